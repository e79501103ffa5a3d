"""Scripts as the reference program's README has them, run as they stand by a person at a terminal; and killed."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from camera_trap_al.store.journal import read_journal

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PROMPT = "Press enter when you have placed the labels in the labels bin"
# The second half of the package by its installed name, where it was not installed.
SERVICE = f"__path__ = [{str(ROOT / 'service')!r}]\n"
QUICK_START = """
from camera_trap_al.main_scripts import run_active_learning

run_active_learning(
    train_data = {train!r},
    unlabelled_data = {unlabelled!r},
)
"""
WITH_LOG = """
import logging

logging.getLogger().setLevel(logging.INFO)
"""
# With a stand-in for torch, which alone could say whether there is a GPU.
SMALL = """
from camera_trap_al_service import console
console._warn_without_gpu = lambda: None

from camera_trap_al.main_scripts import run_active_learning
run_active_learning({train!r}, {unlabelled!r}, {validation!r}, True, True, 0, 'default', 4, use_pretrained=False,
    embedding_arch='tiny', feat_dim=6, embedding_train_num_epochs=1, embedding_finetuning_num_epochs=1)
print("after")
"""


class Terminal:
    """A script at a terminal, and what it printed so far."""

    def __init__(self, script: str, folder: Path, environment: dict[str, str]) -> None:
        (folder / "script.py").write_text(script, encoding="utf-8")
        service = folder / "site" / "camera_trap_al_service"
        service.mkdir(parents=True, exist_ok=True)
        (service / "__init__.py").write_text(SERVICE, encoding="utf-8")
        self.said = ""
        self.log = folder / "log.txt"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(folder / "script.py")],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def until_prompt(self) -> bool:
        """Read until it waits for Enter; return whether it does, rather than having ended."""
        assert self.process.stdout is not None
        before = self.said.count(PROMPT)
        while self.said.count(PROMPT) == before:
            byte = self.process.stdout.read(1)
            if not byte:
                self.process.wait(60)
                return False
            self.said += byte.decode("utf-8")
        return True

    def enter(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


@pytest.fixture
def start(drawn: Path, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Return a starter of scripts in one working directory; what is left of them is ended."""
    started: list[Terminal] = []
    names = {name: str(drawn / folder) for name, folder in KINDS.items()}

    def start(script: str, *, stand_in: bool = False, **variables: str) -> Terminal:
        paths = [
            str(tmp_path / "site"),
            *([str(ROOT / "tests" / "faults" / "no_torch_site")] if stand_in else []),
            str(ROOT),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **variables}
        started.append(Terminal(script.format(**names), tmp_path, environment))
        return started[-1]

    yield start
    for terminal in started:
        terminal.process.kill()
        terminal.process.wait()


KINDS = {"train": "train", "unlabelled": "pool", "validation": "validation"}


def answer(work: Path) -> list[str]:
    """Label what is selected, as Timelapse exports it; return which images that were."""
    with (work / "timelapse_selector.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Selected"] == "true"]
    with (work / "new_labels_bin" / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["File", "RelativePath", "Selected", "Species"])
        writer.writerows(
            [r["File"], r["RelativePath"], "true", ("red", "green", "blue")[int(r["File"][4:6]) % 7 % 3]] for r in rows
        )
    return [f"{row['RelativePath']}/{row['File']}" for row in rows]


def labels_of(work: Path) -> dict[str, str]:
    lines, _, _ = read_journal(work / "data" / "journal.jsonl")
    return {f"{row[0]}/{row[1]}": row[2] for line in lines if line["kind"] == "labels" for row in line["rows"]}


def test_the_quick_start_runs_as_it_stands(start: Callable[..., Terminal], tmp_path: Path) -> None:
    import torch
    from torchvision.models import resnet18

    weights = tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    weights.parent.mkdir(parents=True)
    torch.save(resnet18(weights=None).state_dict(), weights)
    terminal = start(WITH_LOG + QUICK_START, TORCH_HOME=str(tmp_path / "torch"))
    work = tmp_path / "Active Learning Files"
    assert terminal.until_prompt(), terminal.log.read_text(encoding="utf-8")
    bin_folder = work / "new_labels_bin"
    asks = f"""
    Timelapse data selector file has been updated.
    Please import it into the Timelapse database.


    Please place exported Timelapse CSV in the labels bin at
    {bin_folder}

    {PROMPT}"""
    assert terminal.said == textwrap.dedent(asks).replace("\n    ", "\n")
    assert len(answer(work)) == 14
    terminal.enter()
    assert not terminal.until_prompt() and terminal.process.returncode == 0
    assert terminal.said.endswith("Labels were loaded successfully\n") and len(labels_of(work)) == 14
    for name in ("classifier.onnx", "embedding_model_weights.pt", "dataset_mean.npy", "dataset_std.npy"):
        assert (work / "export" / name).is_file(), name
    story = terminal.log.read_text(encoding="utf-8")
    assert "No GPU was detected; using CPU instead" in story or torch.cuda.is_available()
    for line in ("Training embedding model...", "Finished training embedding model...", "Terminating program"):
        assert line in story, line


def test_killed_at_the_prompt_and_amid_its_work_it_goes_on_and_no_label_is_lost(
    start: Callable[..., Terminal], tmp_path: Path
) -> None:
    work = tmp_path / "Active Learning Files"
    terminal = start(SMALL, stand_in=True)
    assert terminal.until_prompt(), terminal.log.read_text(encoding="utf-8")
    asked = answer(work)
    shutil.rmtree(work / "new_labels_bin")
    terminal.process.kill()
    terminal.process.wait()
    for n in (4, 8):
        terminal = start(SMALL, stand_in=True)
        assert terminal.until_prompt(), terminal.log.read_text(encoding="utf-8")
        assert n > 4 or answer(work) == asked, "the same request as before"
        answer(work)
        terminal.enter()
        while "Labels were loaded successfully" not in terminal.said:
            assert terminal.process.stdout is not None
            byte = terminal.process.stdout.read(1)
            assert byte, f"it ended: {terminal.said}"
            terminal.said += byte.decode()
        terminal.process.kill()
        terminal.process.wait()
        assert len(labels_of(work)) == n
    terminal = start(SMALL, stand_in=True)
    while terminal.until_prompt():
        answer(work)
        terminal.enter()
    assert terminal.said.endswith("after\n") and len(labels_of(work)) == 14


def test_two_scripts_cannot_work_in_one_folder(start: Callable[..., Terminal]) -> None:
    first = start(SMALL, stand_in=True)
    assert first.until_prompt()
    second = start(SMALL, stand_in=True)
    assert not second.until_prompt() and second.process.returncode != 0
    assert "Another camera-trap-al works in" in second.log.read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles, this one included")
def test_ctrl_c_ends_a_script_as_it_ends_any_other(start: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = start(SMALL, stand_in=True)
    assert terminal.until_prompt()
    terminal.process.send_signal(signal.SIGINT)
    assert not terminal.until_prompt() and "KeyboardInterrupt" in terminal.log.read_text(encoding="utf-8")
    again: Any = start(SMALL, stand_in=True)
    assert again.until_prompt(), "it goes on"
