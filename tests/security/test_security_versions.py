"""What a newer version wrote is refused in words and left as it is; fields that we do not know are kept and passed over."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_world import contents, make_world, run

from camera_trap_al import wishes
from camera_trap_al.errors import EXIT_DAMAGED, EXIT_USAGE
from camera_trap_al.store import generations
from camera_trap_al.store.journal import encode_line, read_journal
from camera_trap_al.work import Work
from camera_trap_al_service.cli import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, no_torch: None) -> Path:
    work = make_world(tmp_path_factory.mktemp("versions"))
    run(work)
    return work


@pytest.fixture
def work(finished: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(finished, tmp_path / "work")
    generations._verified.clear()
    yield tmp_path / "work"
    generations._verified.clear()


def change_journal(work: Path, **fields: object) -> None:
    path = work / "data" / "journal.jsonl"
    lines = [{k: v for k, v in line.items() if k != "crc32"} for line in read_journal(path)[0]]
    lines[0] |= fields
    path.write_bytes(b"".join(encode_line(line) for line in lines))


def change_manifest(work: Path, parent: str, **fields: object) -> None:
    (path,) = (work / parent).glob("gen-*/manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def change_catalogue(work: Path, version: int) -> None:
    connection = sqlite3.connect(work / "data" / "catalog.sqlite")
    connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(version),))
    connection.commit()
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["journal", "catalogue", "models", "embedding", "checkpoints"])
def test_what_a_newer_version_wrote_is_refused_and_left_as_it_is(
    work: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if part == "journal":
        change_journal(work, format=2, version="9.1")
    elif part == "catalogue":
        change_catalogue(work, 99)
    else:
        change_manifest(work, part, format=2)
    before = contents(work)
    assert main(["next", str(work)]) == EXIT_DAMAGED
    said = capsys.readouterr().err
    assert "newer" in said and "nstall" in said and str(work) in said
    ours = ("lease.json", "daemon.lock", "data/journal.jsonl")
    assert {k: v for k, v in contents(work).items() if k not in ours} == {
        k: v for k, v in before.items() if k not in ours
    }
    assert contents(work)["data/journal.jsonl"] == before["data/journal.jsonl"]


def test_an_option_of_a_newer_version_is_refused_by_name(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = work / "config.toml"
    config.write_text(config.read_text(encoding="utf-8") + "\n[individuals]\nleast = 5\n", encoding="utf-8")
    assert main(["next", str(work)]) == EXIT_USAGE
    assert "individuals.least" in capsys.readouterr().err


def test_a_wish_of_a_newer_version_is_answered(work: Path) -> None:
    opened = Work.open(work)
    try:
        name = f"{1:019d}-{'0' * 32}.json"
        opened.folder.wishes.mkdir(exist_ok=True)
        wish = {"format": 2, "id": "0" * 32, "what": "next", "arguments": {}}
        (opened.folder.wishes / name).write_text(json.dumps(wish), encoding="utf-8")
        wishes.grant(opened, name)
        answer = json.loads((opened.folder.wishes / f"{name[:-5]}.answer.json").read_text(encoding="utf-8"))
        assert not answer["granted"] and "another version" in answer["text"]
    finally:
        opened.close()


@pytest.mark.slow
def test_fields_that_we_do_not_know_are_kept_and_passed_over(work: Path) -> None:
    change_journal(work, more={"of": "a newer minor version"})
    for parent in ("models", "embedding", "checkpoints"):
        change_manifest(work, parent, more=[1, 2])
    run(work)
    lines = read_journal(work / "data" / "journal.jsonl")[0]
    assert lines[0]["more"] == {"of": "a newer minor version"}
    assert len(list(work.glob("models/gen-*"))) == 1
    (manifest,) = work.glob("models/gen-*/manifest.json")
    assert json.loads(manifest.read_text(encoding="utf-8"))["more"] == [1, 2]
