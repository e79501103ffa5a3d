"""The verb `detections` is killed at each durable operation and in each transaction: the next start has all of it or none."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from season import Season

from camera_trap_al.catalog import detections as of_detections
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL
from camera_trap_al.store.atomic import KILLED_STATUS, failpoints
from camera_trap_al.work import Work
from camera_trap_al_service.cli import main

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork"),
]
MOST_POINTS = 200
FIRST = {"IMG_0000.JPG": [("1", 0.9, [0.1, 0.1, 0.5, 0.5])], "IMG_0001.JPG": [("2", 0.9, [0.1, 0.1, 0.5, 0.5])]}
SECOND = {"IMG_0000.JPG": [("2", 0.9, [0.1, 0.1, 0.5, 0.5])], "IMG_0002.JPG": [("1", 0.9, [0.2, 0.1, 0.5, 0.5])] * 2}


def md(path: Path, images: dict[str, Any]) -> Path:
    listed = [
        {"file": name, "detections": [{"category": c, "conf": conf, "bbox": box} for c, conf, box in boxes]}
        for name, boxes in images.items()
    ]
    path.write_text(json.dumps({"detection_categories": {"1": "animal", "2": "person"}, "images": listed}))
    return path


def state(root: Path) -> tuple[frozenset[Any], int, Any]:
    """Return what the next start makes of a work folder: crops, images kept back, and what is known of a file."""
    work = Work.open(root)
    try:
        live = work.catalog.live_rows(POOL).tolist()
        found = zip(work.catalog.keys_of(live), work.catalog.boxes_of(live), strict=True)
        return frozenset(found), work.catalog.counts().private, work.catalog.fact(of_detections.CUT)
    finally:
        work.close()


def in_child(act: Callable[[], object]) -> int:
    """Run in a process of its own; return its exit code."""
    child = multiprocessing.get_context("fork").Process(target=act)
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def kill_in_transaction(n: int) -> None:
    """End this process when the n-th transaction is about to commit."""
    write, calls = Catalog._write, []

    @contextmanager
    def counted(catalog: Catalog) -> Iterator[Any]:
        with write(catalog) as connection:
            yield connection
            calls.append(1)
            if len(calls) == n:
                os._exit(KILLED_STATUS)

    Catalog._write = counted  # type: ignore[method-assign]


@pytest.mark.parametrize("where", ["operation", "transaction"])
def test_a_kill_leaves_all_of_it_or_none(
    new_season: Callable[..., Season], tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch, figure: Any
) -> None:
    monkeypatch.setattr(of_detections, "ROWS_AT_ONCE", 25)
    season = new_season()
    season.turn()
    root = season.work
    assert main(["detections", str(root), str(md(tmp_path / "first.json", FIRST))]) == 0
    before = state(root)
    shutil.copytree(root, tmp_path / "before")
    given = ["detections", str(root), str(md(tmp_path / "second.json", SECOND))]

    def restore() -> None:
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "before", root)

    def act(n: int) -> None:
        if where == "operation":
            failpoints.count, failpoints.fail_at, failpoints.mode = 0, n, "kill"
        else:
            kill_in_transaction(n)
        os._exit(main(given))

    outcomes = []
    assert in_child(lambda: act(0)) == 0
    after = state(root)
    assert before != after and (before[1], after[1]) == (1, 1)
    for n in range(1, MOST_POINTS):
        restore()
        code = in_child(lambda n=n: act(n))  # type: ignore[misc]
        found = state(root)
        outcomes.append(found == after)
        assert found in (before, after), f"killed at {where} {n}"
        assert not list(root.rglob(".*.partial"))
        assert main(given) == 0 and state(root) == after
        if code == 0:
            break
        assert code == KILLED_STATUS
    assert outcomes == sorted(outcomes) and set(outcomes) == ({False, True} if where == "operation" else {True})
    figure("kills while detections are taken in", f"{len(outcomes) - 1}, each in another {where}, all right")
