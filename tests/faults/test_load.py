"""Five hundred label files at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import SPECIES, Daemon, all_ended, drop, fast_folder, journal, labels_csv, make_season, receipt, status

pytestmark = pytest.mark.faults

FILES = 500
ROWS = 6
LONGEST_S = 400.0


def n_receipts(folder: Path) -> int:
    return sum(path.name.endswith(".receipt.json") for path in folder.iterdir())


def test_five_hundred_files_dropped_at_once_all_get_their_receipt(
    tmp_path: Path, long: int, figure: Callable[[str, str], None]
) -> None:
    with fast_folder(tmp_path) as root:
        drop_at_once(root, long, figure)


def drop_at_once(root: Path, long: int, figure: Callable[[str, str], None]) -> None:
    season = make_season(root, 600, labels__unrequested="accept", query__batch=20, labels__settle_s=0.2)
    paths = [f"{folder}/{name}".lstrip("/") for folder, name in season.truth]
    files: dict[str, dict[str, str]] = {}
    for n in range(FILES * long):
        some = [paths[(n * 7 + i * 11) % len(paths)] for i in range(ROWS)]
        files[f"{n:05d}.csv"] = {path: SPECIES[(n + i) % 3] for i, path in enumerate(some)}
    with all_ended() as daemons:
        daemons.append(Daemon(season.work))
        daemons[-1].wait_for(lambda: status(season.work).get("published"))
        began = time.monotonic()
        for name, labels in files.items():
            drop(season.work, name, labels)
        folder = season.work / "new_labels_bin"
        daemons[-1].wait_for(lambda: n_receipts(folder) == len(files), LONGEST_S * long)
        took_s = time.monotonic() - began
        daemons[-1].wait_for(lambda: status(season.work).get("labels") == len({p for f in files.values() for p in f}))
        daemons[-1].kill()
        daemons.append(Daemon(season.work, "--until", "waiting"))
        daemons[-1].end()
    taken = {line["seq"]: line["name"] for line in journal(season.work) if line["kind"] == "labels"}
    expected: dict[str, str] = {}
    for seq in sorted(taken):
        expected |= files[taken[seq]]
    for name, labels in files.items():
        answer = receipt(season.work, name)
        counts = answer["counts"]
        assert taken[answer["seq"]] == name and answer["verdict"] == "accepted"
        assert counts["rows"] == len(labels) == counts["accepted"] + counts["corrected"] + counts["unchanged"]
    now = labels_csv(season.work)
    assert {path: now[path] for path in expected} == expected
    figure("load", f"{len(files)} label files at once: {len(taken)} receipts in {took_s:.1f} s, all as the files say")
