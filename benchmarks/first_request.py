"""S13: a new season. How long until something is asked, and until a model picks what is asked."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.beside import daemon
from benchmarks.figures import Figure, Run, rows
from benchmarks.made_up import answer, tiny_jpeg
from camera_trap_al.config import build
from camera_trap_al.config_file import config_text
from camera_trap_al.core.records import ImageKey
from camera_trap_al.layout import WorkFolder
from camera_trap_al.store.journal import read_journal
from camera_trap_al.store.shards import read_shard_facts, shard_names

N_IMAGES, N_FOLDERS = 100_000, 300
SPECIES = ("deer", "fox", "hare", "nothing")
# A hundred images in so short a time is faster than anyone labels; sooner answers would only ask the machine for more.
ANSWER_S = 15.0
LONGEST_S = 630.0


@rows.register("S13")
def first_request(run: Run) -> Iterable[Figure]:
    """Let the program find images it never saw, and a person answer each request, until a model has picked one."""
    n = 200 if run.tiny else N_IMAGES
    images, work = run.folder / "season", WorkFolder.at(run.folder / "work")
    write_season(images, n, photographs(run))
    given = {"data.unlabelled": str(images), "classes.names": list(SPECIES), "embedding.pretrained": False}
    given |= {"query.batch": 20, "embedding.arch": "tiny"} if run.tiny else {}
    work.root.mkdir()
    work.config.write_text(config_text(build(given, "benchmarks")), encoding="utf-8")
    what = f"{n} new {'full-size photographs' if run.data else 'made-up images'} in {N_FOLDERS} folders"
    started = time.monotonic()
    with daemon(work.root):
        requests, answered_s = [request_after(work, 0, started)], float("-inf")
        yield Figure(f"first request, {what}", requests[0]["after_s"], "s", most=60.0)
        while not requests[-1]["checkpoint"]:
            time.sleep(0 if run.tiny else max(0.0, answered_s + ANSWER_S - time.monotonic()))
            answered_s = time.monotonic()
            answer(work.root, species_on)
            requests.append(request_after(work, requests[-1]["round"], started))
        yield Figure(
            "first request picked by a model",
            requests[-1]["after_s"],
            "s",
            most=600.0,
            note=f"ResNet18; round {len(requests)}, an answer each {ANSWER_S:g} s; {sampled(work)}",
        )


def photographs(run: Run) -> list[bytes]:
    """Return the contents of full-size photographs, or a made-up one where there are none."""
    if run.data is None or run.tiny:
        return [tiny_jpeg(*((64, 48) if run.tiny else (2048, 1536)))]
    return [path.read_bytes() for path in sorted(run.data.glob("*.jpg"))]


def write_season(root: Path, n: int, contents: list[bytes]) -> None:
    """Write `n` files in folders of very different sizes: each content once, and links to it where the disk can."""
    places = [root / f"camera {i % 60:02d}" / f"card {i // 60}" for i in range(N_FOLDERS)]
    of_place = [int(N_FOLDERS * (i / n) ** 2) for i in range(n)]
    originals: dict[int, str] = {}
    for i, place in enumerate(of_place):
        path, content = f"{places[place]}{os.sep}IMG_{i:06d}.JPG", i % len(contents)
        if i == 0 or place != of_place[i - 1]:
            places[place].mkdir(parents=True)
        try:
            os.link(originals[content], path)
        except (OSError, KeyError):
            # The first of them, or a disk without links, or with no more of them to one file.
            Path(path).write_bytes(contents[content])
            originals[content] = path


def species_on(key: ImageKey) -> str:
    """Return the species that the person sees: one for each photograph."""
    return SPECIES[int(key.file[4:10]) % 34 % len(SPECIES)]


def request_after(work: WorkFolder, known: int, started: float) -> dict[str, Any]:
    """Wait until a request after number `known` is shown; return its journal line, with the seconds since the start."""
    while (after_s := time.monotonic() - started) < LONGEST_S:
        time.sleep(0.1)
        with contextlib.suppress(OSError, ValueError):
            shown = json.loads(work.request.read_text(encoding="utf-8"))["round"]
            if isinstance(shown, int) and shown > known:
                lines = [line for line in read_journal(work.journal)[0] if line["kind"] == "request"]
                return {**lines[-1], "after_s": after_s}
    raise TimeoutError(f"no request after number {known} within {LONGEST_S:.0f} s")


def sampled(work: WorkFolder) -> str:
    """Return how many images were embedded by then."""
    shards = [(folder, name) for folder in sorted(work.embedding.glob("gen-*")) for name in shard_names(folder)]
    embedded = sum(len(read_shard_facts(folder, name).rows) for folder, name in shards)
    return f"{embedded} images were embedded by then, in {len(shards)} shards"
