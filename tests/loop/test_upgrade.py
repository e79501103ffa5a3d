"""Work folders of every released version open in this one: nothing is lost, nothing is embedded again."""

from __future__ import annotations

import csv
import json
import re
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from camera_trap_al.loop import Loop, is_idle
from camera_trap_al.store.journal import read_journal
from camera_trap_al.work import Work

FIXTURES = sorted((Path(__file__).resolve().parents[1] / "fixtures").glob("work-*.tar.gz"))
pytestmark = pytest.mark.slow


def run(work: Path) -> dict[str, Any]:
    opened = Work.open(work)
    try:
        Loop(opened).run(until=is_idle)
        learner = opened.learner()
        assert learner is not None
        return {
            "requests": len(opened.history.requests),
            "labels": dict(opened.history.labels),
            "learner": learner.number,
        }
    finally:
        opened.close()


def test_there_is_a_fixture() -> None:
    assert FIXTURES


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda p: p.name)
def test_a_work_folder_of_an_older_version_goes_on(fixture: Path, tmp_path: Path) -> None:
    with tarfile.open(fixture) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    work = tmp_path / "work"
    config = work / "config.toml"
    text = config.read_text(encoding="utf-8")
    for key, folder in (("train", "train"), ("unlabelled", "pool"), ("validation", "validation")):
        line = f"{key} = {json.dumps(str(tmp_path / folder))}"
        text = re.sub(rf"(?m)^{key} = .*$", lambda match, line=line: line, text, count=1)
    config.write_text(text, encoding="utf-8")
    before = read_journal(work / "data" / "journal.jsonl")[0]
    given = {tuple(r[:2]): r[2] for line in before if line["kind"] == "labels" for r in line["rows"]}
    shards = sorted(p.name for p in (work / "embedding").rglob("*.npy"))
    found = run(work)
    assert {tuple(key): label.species for key, label in found["labels"].items()} == given
    assert sorted(p.name for p in (work / "embedding").rglob("*.npy")) == shards, "something was embedded again"
    (request,) = [line for line in before if line["kind"] == "request"][-1:]
    with (work / "new_labels_bin" / "next.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["File", "RelativePath", "Species"])
        writer.writerows([[name, folder, "red"] for folder, name in request["keys"]])
    after = run(work)
    assert len(after["labels"]) == len(given) + len(request["keys"]) and after["requests"] == found["requests"] + 1
