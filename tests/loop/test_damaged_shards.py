"""Embeddings that are damaged on disk: the program says so, makes them anew, and no request or label suffers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from security.small_world import answer, make_world, run

from camera_trap_al.store import shards
from camera_trap_al.work import Work

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_torch")]


def learner_folder(work: Path) -> Path:
    return work / "embedding" / "gen-000001"


def vectors_by_row(work: Path) -> dict[int, list[float]]:
    folder, found = learner_folder(work), {}
    for name in shards.shard_names(folder):
        vectors = np.load(folder / f"{name}.npy", allow_pickle=False)
        found |= dict(zip(shards.read_shard_facts(folder, name).rows.tolist(), vectors.tolist(), strict=True))
    return found


def end_bytes_changed(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes(255 - byte for byte in content[-2:]))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def of_another_model(path: Path) -> None:
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    path.with_suffix(".json").write_text(
        json.dumps({**facts, "made_by": "another", "facts_crc32": None}), encoding="utf-8"
    )


@pytest.mark.parametrize("damage", [end_bytes_changed, cut_short, of_another_model])
def test_damaged_shards_are_reported_and_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, damage: object
) -> None:
    monkeypatch.setattr("camera_trap_al.loop.FIRST_REST_S", 0.01)
    monkeypatch.setattr("camera_trap_al.learn.evaluate.confusion_figure", lambda *given: b"figure")
    monkeypatch.setattr("camera_trap_al.learn.evaluate.curve_figure", lambda *given: b"figure")
    work = make_world(tmp_path)
    run(work)
    before = vectors_by_row(work)
    assert callable(damage)
    for path in learner_folder(work).glob("shard-*.npy"):
        damage(path)
    answer(work)
    caplog.clear()
    run(work)
    assert vectors_by_row(work) == before, "the same vectors again, none of them damaged"
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any(("damaged" in text or "of another model" in text) and "embedded again" in text for text in said), said
    opened = Work.open(work)
    requests, labels = opened.history.requests, opened.history.labels
    opened.close()
    assert len(labels) == 4 and [len(request.keys) for request in requests] == [4, 4]
    assert not set(requests[0].keys) & set(requests[1].keys)


def test_shards_made_anew_under_names_that_were_taken_in_before_are_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who removes the networks has the next one and its shards called as the first: broken images are found all the same."""
    monkeypatch.setattr("camera_trap_al.learn.evaluate.confusion_figure", lambda *given: b"figure")
    monkeypatch.setattr("camera_trap_al.learn.evaluate.curve_figure", lambda *given: b"figure")
    work = make_world(tmp_path)
    run(work)
    for name in ("models", "cache"):
        shutil.rmtree(work / name)
    image = tmp_path / "pool" / "red2.jpg"
    before = image.stat()
    image.write_bytes(bytes(before.st_size))
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    run(work)
    assert "red2.jpg" in (work / "data" / "quarantine.csv").read_text(encoding="utf-8-sig")
    opened = Work.open(work)
    names = {f"gen-000001/{name}" for name in shards.shard_names(learner_folder(work))}
    assert opened.catalog.absorbed_shards() == names
    opened.close()
