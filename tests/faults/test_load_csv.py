"""Large label files under a bound of memory, measured in a process of their own. Run as a script, it is that process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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


def measured(root: Path, unrequested: str) -> dict[str, Any]:
    """Take in the label file of `root` in another process; return what it decided, its seconds and its peak memory."""
    pytest.importorskip("resource", reason="the system does not say how much memory a process took at most")
    command = [sys.executable, str(Path(__file__).resolve()), str(root), unrequested]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return dict(json.loads(ended.stdout))


def figure_text(size: int, found: dict[str, Any]) -> str:
    """Return a measurement in words."""
    return f"{size / MB:.0f} MB, {found['rows']:,} rows in {found['seconds']:.1f} s, peak {found['peak_mb']:.0f} MB"


def test_a_million_labels_are_taken_in_within_600_mb(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    size = write_rows(tmp_path / "week.csv", (row(number, "deer" if number % 3 else "fox") for number in range(ROWS)))
    found = measured(tmp_path, "accept")
    assert (found["rows"], found["labels"], found["verdict"]) == (ROWS, ROWS, "accepted")
    figure("label file of a million labels", figure_text(size, found))
    assert found["peak_mb"] < MOST_MB


def test_a_million_rows_of_which_few_were_asked_for(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    size = write_rows(tmp_path / "week.csv", (row(number) for number in range(ROWS)))
    found = measured(tmp_path, "ignore")
    assert (found["rows"], found["labels"], found["verdict"]) == (ROWS, 100, "accepted")
    figure("label file of a million rows, 100 asked for", figure_text(size, found))
    assert found["peak_mb"] < MOST_MB


def test_a_label_file_of_200_mb(tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    note = '"' + "seen by the pond, walking " * 30 + '"'
    size = write_rows(tmp_path / "week.csv", (row(number % 1000, note=note) for number in range(240_000)))
    assert size > 200 * MB
    found = measured(tmp_path, "ignore")
    assert (found["rows"], found["labels"], found["verdict"]) == (240_000, 100, "accepted")
    figure("label file of 200 MB", figure_text(size, found))
    assert found["peak_mb"] < MOST_MB


@pytest.mark.parametrize(
    ("cell", "verdict"),
    [("x" * 8 * MB, "rejected"), ('"' + "x\r\n" * 3 * MB + '"', "rejected"), ('"' * 8 * MB, "rejected")],
)
def test_a_cell_of_8_mb(cell: str, verdict: str, tmp_path: Path, figure: Callable[[str, str], None]) -> None:
    size = write_rows(tmp_path / "week.csv", [row(0), row(1, note=cell), row(2)])
    found = measured(tmp_path, "ignore")
    assert found["verdict"] == verdict
    figure(f"cell of 8 MB that begins {cell[:3]!r}", figure_text(size, found))
    assert found["peak_mb"] < MOST_MB


def test_wrong_rows_by_the_million_are_reported_within_bounds(
    tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    size = write_rows(tmp_path / "week.csv", (row(number, "dear") for number in range(ROWS // 2)))
    found = measured(tmp_path, "accept")
    assert (found["rows"], found["labels"], found["verdict"]) == (ROWS // 2, 0, "rejected")
    figure("label file of half a million wrong words", figure_text(size, found))
    assert found["peak_mb"] < MOST_MB


def take_in(root: Path, unrequested: str) -> dict[str, Any]:
    """Take `week.csv` in as the daemon does: bin, private copy, reader, decision, journal line, receipt."""
    import resource

    from camera_trap_al import taking
    from camera_trap_al.config import Config, DataConfig, LabelsConfig
    from camera_trap_al.core.history import History
    from camera_trap_al.core.records import ImageKey
    from camera_trap_al.labels.inbox import Inbox
    from camera_trap_al.store.journal import LabelJournal

    images = root / "images"
    for name in ("intake", "reports"):
        (root / name).mkdir()
    pool = (ImageKey(f"Station{n // IN_A_FOLDER:03}/Card1", f"IMG_{n % IN_A_FOLDER:05}.JPG") for n in range(ROWS))
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
        folder=SimpleNamespace(bin=root, reports=root / "reports", intake=root / "intake"),
        config=Config(data=DataConfig(unlabelled=str(images)), labels=LabelsConfig(unrequested=unrequested)),
        journal=journal,
        history=history,
        catalog=SimpleNamespace(
            fact=lambda name, default=0: default, pool_keys=lambda **_: pool, unusable=lambda keys: []
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
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "rows": receipt["counts"]["rows"],
        "labels": len(history.labels),
        "verdict": receipt["verdict"],
        "seconds": took_s,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB,
    }


if __name__ == "__main__":
    print(json.dumps(take_in(Path(sys.argv[1]), sys.argv[2])))
