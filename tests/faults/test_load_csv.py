"""Large label files under a bound of memory, measured in a process of their own. Run as a script, it is that process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import camera_trap_al

pytestmark = pytest.mark.faults

MB = 1_000_000
MOST_MB = 600
ROWS = 1_000_000
IN_A_FOLDER = 10_000
HEADER = "RootFolder,File,RelativePath,DateTime,Selected,Species,Note\r\n"


def write_rows(path: Path, rows: Iterable[str]) -> int:
    """Write a label file and return its size in bytes."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(HEADER)
        for row in rows:
            file.write(row)
    return path.stat().st_size


def row(number: int, species: str = "deer", note: str = "") -> str:
    """Return the line of one image, as Timelapse writes it."""
    folder, image = divmod(number, IN_A_FOLDER)
    return f"Root,IMG_{image:05}.JPG,Station{folder:03}\\Card1, 2024-09-17 18:44:56,true,{species},{note}\r\n"


def measured(root: Path, unrequested: str, n_pool: int) -> dict[str, Any]:
    """Take in the label file of `root` in another process; return what it decided, its seconds and its peak memory."""
    pytest.importorskip("resource", reason="the system does not say how much memory a process took at most")
    command = [sys.executable, str(Path(__file__).resolve()), str(root), unrequested, str(n_pool)]
    package = {"PYTHONPATH": str(Path(camera_trap_al.__file__).resolve().parents[1])}
    ended = subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=300, check=False, env=os.environ | package
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return dict(json.loads(ended.stdout))


def figure_text(size: int, found: dict[str, Any]) -> str:
    """Return a measurement in words."""
    return f"{size / MB:.0f} MB, {found['rows']:,} rows in {found['seconds']:.1f} s, peak {found['peak_mb']:.0f} MB"


NOTE = '"' + "seen by the pond, walking " * 120 + '"'
FILES: dict[str, tuple[int, Callable[[int], str], str, int, int, str]] = {
    "a million labels": (ROWS, lambda n: row(n, "deer" if n % 3 else "fox"), "accept", ROWS, ROWS, "accepted"),
    "300,000 rows, 100 asked for": (300_000, row, "ignore", 300_000, 100, "accepted"),
    "200 MB": (66_000, lambda n: row(n % 1000, note=NOTE), "ignore", 10_000, 100, "accepted"),
    "200,000 wrong words": (200_000, lambda n: row(n % 1000, f"dear{n}"), "accept", 10_000, 0, "rejected"),
    "200,000 unknown images": (200_000, lambda n: row(n + 10_000), "accept", 10_000, 0, "rejected"),
}
CELLS = {"8 MB": "x" * 8 * MB, "8 MB of lines": '"' + "x\r\n" * 3 * MB + '"', "8 MB of quotes": '"' * 8 * MB}


@pytest.mark.parametrize("name", FILES)
def test_a_large_label_file_is_taken_in_within_600_mb(
    name: str, tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    n_rows, made, unrequested, n_pool, n_labels, verdict = FILES[name]
    size = write_rows(tmp_path / "week.csv", map(made, range(n_rows)))
    assert name != "200 MB" or size > 200 * MB
    found = measured(tmp_path, unrequested, n_pool)
    assert (found["rows"], found["labels"], found["verdict"]) == (n_rows, n_labels, verdict)
    figure(f"label file of {name}", figure_text(size, found))
    assert found["peak_mb"] < MOST_MB


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_of_megabytes_is_refused_within_600_mb(
    name: str, tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    size = write_rows(tmp_path / "week.csv", [row(0), row(1, note=CELLS[name]), row(2)])
    found = measured(tmp_path, "ignore", 10_000)
    assert (found["labels"], found["verdict"]) == (0, "rejected")
    figure(f"cell of {name}", figure_text(size, found))
    assert found["peak_mb"] < MOST_MB


def take_in(root: Path, unrequested: str, n_pool: int) -> dict[str, Any]:
    """Take `week.csv` in as the daemon does: bin, private copy, reader, decision, journal line, receipt."""

    from camera_trap_al import taking
    from camera_trap_al.config import Config, DataConfig, LabelsConfig
    from camera_trap_al.core.history import History
    from camera_trap_al.core.records import ImageKey
    from camera_trap_al.labels.inbox import Inbox
    from camera_trap_al.store.journal import LabelJournal

    images = root / "images"
    for name in ("intake", "reports"):
        (root / name).mkdir()
    pool = (ImageKey(f"Station{n // IN_A_FOLDER:03}/Card1", f"IMG_{n % IN_A_FOLDER:05}.JPG") for n in range(n_pool))
    history = History(classes=["deer", "fox"])
    history.requested = {ImageKey("Station000/Card1", f"IMG_{n:05}.JPG") for n in range(100)}
    journal = LabelJournal.create(root / "journal.jsonl", "test", "0")
    cache: dict[str, Any] = {}

    def append(kind: str, fields: dict[str, Any]) -> None:
        history.apply(journal.append(kind, fields))

    def cached(name: str, stamp: Any, compute: Callable[[], Any]) -> Any:
        if cache.get(name, (None, None))[0] != stamp:
            cache[name] = (stamp, compute())
        return cache[name][1]

    work: Any = SimpleNamespace(
        folder=SimpleNamespace(
            bin=root, reports=root / "reports", intake=root / "intake", published=root / "published.npz"
        ),
        config=Config(data=DataConfig(unlabelled=str(images)), labels=LabelsConfig(unrequested=unrequested)),
        journal=journal,
        history=history,
        catalog=SimpleNamespace(
            fact=lambda name, default=0: default,
            pool_keys=lambda **_: pool,
            unusable=lambda keys: [],
            live_rows=lambda *kinds: np.zeros(0, int),
            keys_of=lambda rows: [],
        ),
        inbox=Inbox(root, 0.0),
        append=append,
        cached=cached,
    )
    history.end = journal.end
    taking.known_images(work)
    began_s = time.perf_counter()
    for _ in range(3):
        needs = taking.bin_files(work)
        for name in needs.untaken:
            taking.take_labels(work, name)
        for name in needs.unanswered:
            taking.answer(work, name)
    took_s = time.perf_counter() - began_s
    receipt = json.loads((root / "week.csv.receipt.json").read_text(encoding="utf-8"))
    return {
        "rows": receipt["counts"]["rows"],
        "labels": len(history.labels),
        "verdict": receipt["verdict"],
        "seconds": took_s,
        "peak_mb": peak_bytes() / MB,
    }


def peak_bytes() -> float:
    """Return the most memory that this program took. Linux counts what the process was before it became this program."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(take_in(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
