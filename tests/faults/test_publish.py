"""Readers of our files always see a whole file, however often it is replaced and whoever holds it open."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import FileHeldError
from camera_trap_al.labels.lines import SelectorLines
from camera_trap_al.labels.timelapse import Selector, write_selector
from camera_trap_al.store import atomic

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[2]
ROUNDS, IMAGES, ASKED = 60, 300, 5
REWRITES = 1000
VIOLATIONS, VIOLATED = 0.3, 100
KEYS = [ImageKey(f"site {i % 3}", f"IMG_{i:04d}.JPG") for i in range(IMAGES)]
LINES = SelectorLines(KEYS)
# Reads two files 100 times a second until its input closes; prints how many reads there were, how many of them found a
# part of a file or a mixture, how many nothing, and how often the system let nobody in.
READER = f"""
import sys, threading, time
from pathlib import Path
path = Path(sys.argv[1])
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
reads = torn = missing = refused = 0
print("reading", flush=True)
while not ended.wait(0.01):
    try:
        lines = path.read_bytes().split(b"\\r\\n")
    except FileNotFoundError:
        missing += 1
        continue
    except PermissionError:
        refused += 1
        continue
    reads += 1
    asked = [n for n, line in enumerate(lines[1:-1]) if line.endswith(b",true")]
    whole = lines[0] == b"File,RelativePath,Selected" and len(lines) == {IMAGES} + 2 and lines[-1] == b""
    torn += not (whole and len(asked) == {ASKED} and asked[-1] - asked[0] == {ASKED} - 1 and asked[0] % {ASKED} == 0)
print(reads, torn, missing, refused, flush=True)
"""


class Readers:
    """Two processes that read one file 100 times a second."""

    def __init__(self, path: Path) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", READER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for process in self.processes:
            assert process.stdout is not None and process.stdout.readline() == "reading\n"

    def end(self) -> list[int]:
        counts = [[int(n) for n in process.communicate()[0].split()] for process in self.processes]
        return [sum(column) for column in zip(*counts, strict=True)]


def show(selector: Selector, round_: int) -> int:
    """Show a round, as often as it takes; return how often it was refused."""
    first = round_ % ROUNDS * ASKED
    refused = 0
    while True:
        try:
            selector.show(lambda: LINES, KEYS[first : first + ASKED], round_)
            return refused
        except FileHeldError:
            refused += 1


@pytest.fixture
def selector(tmp_path: Path) -> Selector:
    selector = Selector(tmp_path / "selector.csv", tmp_path / "selector.NEW.csv", tmp_path / "request.json")
    show(selector, 1)
    return selector


def test_readers_see_whole_files_only(
    selector: Selector, tmp_path: Path, long: int, figure: Callable[[str, str], None]
) -> None:
    readers = Readers(selector.path)
    began = time.monotonic()
    for n in range(REWRITES * long):
        first = n % ROUNDS * ASKED
        write_selector(selector.path, LINES, KEYS[first : first + ASKED])
    lasted = time.monotonic() - began
    reads, torn, missing, _ = readers.end()
    assert (torn, missing) == (0, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["request.json", "selector.csv"]
    figure(
        "whole files", f"{REWRITES * long} rewrites in {lasted:.1f} s, {reads} reads: {torn} torn, {missing} missing"
    )


def test_sharing_violations_only_delay(
    selector: Selector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: int, figure: Callable[[str, str], None]
) -> None:
    rng, replace = random.Random(5), os.replace

    def replace_or_refuse(source: Any, target: Any) -> None:
        if rng.random() < VIOLATIONS:
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(source), 32, str(target))
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", replace_or_refuse)
    readers = Readers(selector.path)
    refused = n = 0
    while n < VIOLATED * long:
        try:
            refused += show(selector, n + 1)
            n += 1
        except PermissionError:
            # `label_request.json` was refused: the step rests, and both are written again.
            refused += 1
    reads, torn, missing, _ = readers.end()
    assert (torn, missing) == (0, 0) and refused > VIOLATED / 3
    assert selector.placed() == VIOLATED * long
    assert sorted(p.name for p in tmp_path.iterdir()) == ["request.json", "selector.csv"]
    figure("sharing violations", f"{refused} refusals over {n} rewrites: {reads} reads, {torn} torn, {missing} missing")


def test_every_kind_of_published_file_is_whole_to_a_thread(tmp_path: Path) -> None:
    path, bad, ended = tmp_path / "status.json", [], threading.Event()
    atomic.replace_bytes(path, b"0" * 50_000)

    def read() -> None:
        while not ended.wait(0.001):
            try:
                data = path.read_bytes()
            except PermissionError:
                continue
            if len(data) != 50_000 or len(set(data)) != 1:
                bad.append(data[:20])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for n in range(200):
            try:
                atomic.replace_bytes(path, bytes([48 + n % 10]) * 50_000)
            except PermissionError:
                assert os.name == "nt"
    finally:
        ended.set()
        reader.join()
    assert not bad
