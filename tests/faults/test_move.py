"""The work folder and the images are moved to another place: nothing is decoded or embedded again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kit import Daemon, all_ended, asked, command, drop, labels_csv, make_season, status

from camera_trap_al.work import Work

pytestmark = pytest.mark.faults


def results(work: Path) -> dict[Path, tuple[int, int]]:
    """Return when each file of models and embeddings was written, and its size, by its path in the work folder."""
    files = [path for name in ("models", "embedding") for path in (work / name).rglob("*") if path.is_file()]
    return {path.relative_to(work): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def rows(work: Path) -> list[int]:
    """Return the rows of all images; one that is embedded again has another."""
    opened = Work.open(work)
    try:
        return [int(row) for row in opened.catalog.live_rows("train", "pool")]
    finally:
        opened.close()


def test_nothing_is_decoded_or_embedded_again_in_another_place(
    tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    season = make_season(tmp_path / "here", 90, query__batch=20)
    with all_ended() as daemons:
        daemons.append(Daemon(season.work, "--until", "idle"))
        daemons[-1].end()
        drop(season.work, "a.csv", dict.fromkeys(asked(season.work), "red"))
        daemons.append(Daemon(season.work, "--until", "idle"))
        daemons[-1].end()
        made, numbered, labels = results(season.work), rows(season.work), labels_csv(season.work)
        assert made and status(season.work)["learner"]
        worker = (season.work / "worker.json").read_bytes()
        there = tmp_path / "another drive ü"
        there.mkdir()
        work, pool, train = there / "project", there / "photos", there / "classes"
        season.work.rename(work)
        (season.root / "pool").rename(pool)
        (season.root / "train").rename(train)
        code, said = command(work, "relocate", "--unlabelled", pool, "--train", train)
        assert code == 0, said
        daemons.append(Daemon(work, "--until", "idle"))
        daemons[-1].end()
    assert results(work) == made and rows(work) == numbered and (work / "worker.json").read_bytes() == worker
    now = status(work)
    assert labels_csv(work) == labels and now["online"] and now["images"]["missing"] == 0 and not now["problems"]
    figure("moved", f"{len(numbered)} images and their work folder in another place: 0 of {len(made)} files made anew")
