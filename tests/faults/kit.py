"""Real daemons for the fault tests: a season to label, the command in a process, what it started, and label files."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from season import HUES, QUICK, Season, draw

from camera_trap_al.layout import WorkFolder
from camera_trap_al.lock import is_held
from camera_trap_al.store.journal import read_journal
from camera_trap_al_service.init import init

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LONGEST_S = 300.0
SAID = 3000
LEAST_FREE_BYTES = 3 << 30
HEADER = "File,RelativePath,Species\r\n"
SPECIES = tuple(HUES)
START = """
import importlib.util, sys
NAME, FOLDER = "camera_trap_al_service", "service"
if importlib.util.find_spec(NAME) is None:
    spec = importlib.util.spec_from_file_location(NAME, FOLDER + "/__init__.py", submodule_search_locations=[FOLDER])
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])
from camera_trap_al_service.cli import main
sys.exit(main())
"""


def make_season(root: Path, n_images: int, **options: object) -> Season:
    """Return a season of `n_images` small pictures at three sites, 6 to train on, and its work folder.

    Keyword arguments are options, with `__` for a dot. The worker is a process.
    """
    rng = np.random.default_rng(n_images)
    for name, hue in HUES.items():
        for i in range(2):
            draw(root / "train" / name / f"{i}.jpg", hue, rng)
    pictures = [(root / "train" / name / "0.jpg").read_bytes() for name in SPECIES]
    truth = {}
    for i in range(n_images):
        key = ("", "site a", "site b")[i % 3], f"IMG_{i // 3:05d}.JPG"
        path = root / "pool" / key[0] / key[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        # What follows the picture makes each file another one.
        path.write_bytes(pictures[i % 7 % 3] + i.to_bytes(4, "big"))
        truth[key] = SPECIES[i % 7 % 3]
    given = {"data.unlabelled": str(root / "pool"), "data.train": str(root / "train")}
    named = {key.replace("__", "."): value for key, value in options.items()}
    init(root / "work", given, {**QUICK, "daemon.worker": "process", **named})
    return Season(root, truth)


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process in which the numpy learner stands in for torch."""
    path = [str(HERE / "no_torch_site"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", **more}


class Daemon:
    """The command `run` in a process; what it says goes to a file."""

    def __init__(self, work: Path, *arguments: str, **variables: str) -> None:
        self.work = work
        self.said = work.parent / "said.txt"
        self._since = self.said.stat().st_size if self.said.exists() else 0
        with self.said.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, "run", str(work), *arguments],
                cwd=ROOT,
                env=environment(**variables),
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def words(self) -> str:
        """Return what this process said last."""
        return self.said.read_bytes()[self._since :].decode("utf-8", "replace")[-SAID:]

    def check_alive(self) -> None:
        """Fail the test if the daemon ended by itself."""
        assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}: {self.words()}"

    def wait_for(self, condition: Callable[[], object], longest_s: float = LONGEST_S) -> float:
        """Wait until something is so; return the seconds. Fails where the daemon ends or it takes too long."""
        began = time.monotonic()
        while not condition():
            self.check_alive()
            assert time.monotonic() - began < longest_s, f"it took too long; status {status(self.work)}: {self.words()}"
            time.sleep(0.01)
        return time.monotonic() - began

    def wait_for_lock(self) -> None:
        """Wait until the daemon holds its work folder."""
        lock = WorkFolder.at(self.work).lease
        self.wait_for(lambda: str(self.pid) in _text(lock))

    def kill(self) -> None:
        """End the process at once, as a power cut does."""
        self.process.kill()
        self.process.wait()

    def end(self, longest_s: float = LONGEST_S) -> None:
        """Wait for the process to end by itself, well."""
        code = self.process.wait(longest_s)
        assert code == 0, f"the daemon ended with {code}: {self.words()}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


@contextlib.contextmanager
def fast_folder(folder: Path) -> Iterator[Path]:
    """Give a folder in memory where the system has one with space, since a killed process needs no disk, else `folder`."""
    memory = Path("/dev/shm")
    if sys.platform != "linux" or not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < LEAST_FREE_BYTES:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="camera-trap-al-", dir=memory, ignore_cleanup_errors=True) as made:
        yield Path(made)


@contextlib.contextmanager
def all_ended() -> Iterator[list[Daemon]]:
    """Give a list of daemons that are ended whatever happens."""
    daemons: list[Daemon] = []
    try:
        yield daemons
    finally:
        for daemon in daemons:
            daemon.kill()


def command(work: Path, verb: str, *arguments: object) -> tuple[int, str]:
    """Run another verb; return its exit code and what it said."""
    ended = subprocess.run(
        [sys.executable, "-c", START, verb, str(work), *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LONGEST_S,
        check=False,
    )
    return ended.returncode, ended.stdout.decode("utf-8", "replace")


def json_of(path: Path) -> dict[str, Any]:
    """Return a JSON file, or {} while it is not there."""
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except OSError:
        return {}
    return value


def status(work: Path) -> dict[str, Any]:
    """Return `status.json`."""
    return json_of(work / "status.json")


def asked(work: Path) -> list[str]:
    """Return the images of the request that is shown."""
    return list(json_of(work / "data" / "label_request.json").get("images", ()))


def receipt(work: Path, name: str) -> dict[str, Any]:
    """Return the receipt of a label file, or {} while there is none."""
    return json_of(work / "new_labels_bin" / f"{name}.receipt.json")


def journal(work: Path) -> list[dict[str, Any]]:
    """Return the valid lines of the journal."""
    return read_journal(work / "data" / "journal.jsonl")[0]


def label_text(labels: Mapping[str, str]) -> bytes:
    """Return a label file for {path: species}."""
    rows = (f"{path.rpartition('/')[2]},{path.rpartition('/')[0]},{species}\r\n" for path, species in labels.items())
    return (HEADER + "".join(rows)).encode("utf-8")


def drop(work: Path, name: str, labels: Mapping[str, str]) -> None:
    """Put a label file into the bin at once."""
    (work / "new_labels_bin" / name).write_bytes(label_text(labels))


def labels_csv(work: Path) -> dict[str, str]:
    """Return what `data/labels.csv` says of each image."""
    lines = (work / "data" / "labels.csv").read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.rsplit(",", 1) for line in lines)


def worker_pid(work: Path) -> int:
    """Return the process that works for the daemon of `work`, 0 if there is none or it cannot be told for certain."""
    folder = WorkFolder.at(work)
    if not is_held(folder.worker_lock):
        return 0
    pid = int(json_of(folder.worker).get("pid", 0))
    arguments = _arguments(pid) if pid else ""
    return pid if "camera_trap_al.worker" in arguments and str(work) in arguments else 0


def _arguments(pid: int) -> str:
    if Path("/proc/self/cmdline").exists():
        return _text(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")
    asked = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, check=False)
    return asked.stdout.decode("utf-8", "replace")


def descendants(pid: int) -> set[tuple[int, str]]:
    """Return (pid, when it began) of all that a process started, and what these did; nothing where there is no /proc."""
    parents: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _text(folder / "stat").rpartition(")")[2].split()
        if fields:
            parents[int(folder.name)] = (int(fields[1]), fields[19])
    found, fresh = set(), {pid}
    while fresh:
        fresh = {child for child, (parent, _) in parents.items() if parent in fresh}
        found |= {(child, parents[child][1]) for child in fresh}
    return found


def is_running(process: tuple[int, str]) -> bool:
    """Return whether a process of `descendants` is still there."""
    fields = _text(Path(f"/proc/{process[0]}/stat")).rpartition(")")[2].split()
    return bool(fields) and fields[19] == process[1] and fields[0] != "Z"


def log_uniform(rng: random.Random, low: float, high: float) -> float:
    """Return a number between `low` and `high`, each power of ten as likely as the next."""
    return float(low * (high / low) ** rng.random())
