"""Verbs that change a work folder: beside a running daemon and without one."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from season import Season, is_quiet

from camera_trap_al import wishes
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lock import DaemonLock
from camera_trap_al.store import atomic
from camera_trap_al.store.journal import read_journal
from camera_trap_al.work import Work
from camera_trap_al_service.cli import main


def beside(season: Season, ask: Callable[[], Any]) -> Any:
    """Run `ask` while a daemon holds the work folder and takes turns."""
    answers: list[Any] = []
    lock = DaemonLock.take(WorkFolder.at(season.work))
    thread = threading.Thread(target=lambda: answers.append(ask()))
    try:
        with season.opened() as loop:
            loop.run(until=is_quiet)
            thread.start()
            while thread.is_alive():
                loop.wake.set()
                loop.run(until=is_quiet)
            loop.run(until=is_quiet)
    finally:
        thread.join(20)
        lock.release()
    return answers[0]


def alone(season: Season, ask: Callable[[], Any]) -> Any:
    """Run `ask` without a daemon, then let one take its turns."""
    answer = ask()
    season.turn()
    return answer


WAYS = pytest.mark.parametrize("way", [alone, beside])
WAYS_OF_REST = pytest.mark.parametrize("way", [alone, pytest.param(beside, marks=pytest.mark.slow)])


def journal(season: Season) -> list[dict[str, Any]]:
    return read_journal(season.work / "data" / "journal.jsonl")[0]


def receipt(season: Season, name: str) -> dict[str, Any]:
    path = season.work / "new_labels_bin" / f"{name}.receipt.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


@WAYS
def test_next_closes_a_round_with_what_is_there(season: Season, way: Any, capsys: Any) -> None:
    first = season.asked()
    season.drop("some.csv", {first[0]: "red"})
    season.turn()
    assert way(season, lambda: main(["next", str(season.work)])) == 0
    assert "Round 1 is closed; 8 of its images" in capsys.readouterr().out
    assert season.placed() == 2
    assert [line["kind"] for line in journal(season)][-2:] == ["close", "request"]
    assert season.labels_csv()[first[0]] == "red"


@WAYS_OF_REST
def test_an_undo_takes_a_file_back_and_the_undo_of_it_brings_it_again(season: Season, way: Any, capsys: Any) -> None:
    first = season.asked()
    season.drop("a.csv", {first[0]: "red", first[1]: "green"})
    season.turn()
    season.drop("b.csv", {first[0]: "blue", first[2]: "blue"})
    season.turn()
    seq = receipt(season, "b.csv")["seq"]
    assert way(season, lambda: main(["labels", str(season.work), "--undo", str(seq)])) == 0
    assert f"Number {seq} (b.csv) counts no more: 1 labels are gone, 1 are as before it" in capsys.readouterr().out
    table = season.labels_csv()
    assert (table[first[0]], table[first[1]], table[first[2]]) == ("red", "green", "unlabelled")
    assert receipt(season, "b.csv")["remarks"] == [{"what": "undone", "seq": seq + 1, "images": 2}]
    assert [line["kind"] for line in journal(season)].count("labels") == 2, "the file in the bin is not taken again"
    assert way(season, lambda: main(["labels", str(season.work), "--undo", str(seq + 1)])) == 0
    table = season.labels_csv()
    assert (table[first[0]], table[first[2]]) == ("blue", "blue")
    assert [remark["what"] for remark in receipt(season, "b.csv")["remarks"]] == ["overrules"]


@WAYS_OF_REST
def test_what_makes_no_sense_is_answered(season: Season, way: Any, capsys: Any) -> None:
    before = (season.work / "data" / "journal.jsonl").read_bytes()
    assert way(season, lambda: main(["labels", str(season.work), "--undo", "1"])) == 1
    assert "no label file" in capsys.readouterr().err
    assert (season.work / "data" / "journal.jsonl").read_bytes() == before


@WAYS_OF_REST
def test_a_rescan_finds_new_images_at_once(season: Season, way: Any) -> None:
    shutil.copy(season.root / "pool" / "IMG_0000.JPG", season.root / "pool" / "site a" / "NEW.JPG")
    season.turn()
    assert way(season, lambda: main(["rescan", str(season.work)])) == 0
    assert "NEW.JPG" in (season.work / "data" / "labels.csv").read_text(encoding="utf-8")


@WAYS_OF_REST
def test_relocate_names_the_new_places(season: Season, way: Any, capsys: Any) -> None:
    first = season.asked()
    season.drop("a.csv", {first[0]: "red"})
    season.turn()
    new = season.root / "another drive ü"
    new.mkdir()
    for kind in ("pool", "train", "validation"):
        shutil.move(season.root / kind, new / kind)
    config = season.work / "config.toml"
    config.write_bytes(config.read_bytes().replace(b"\n", b"\r\n") + b"# a note of mine\r\n")
    folders = [
        "--unlabelled",
        str(new / "pool"),
        "--train",
        str(new / "train"),
        "--validation",
        str(new / "validation"),
    ]
    assert way(season, lambda: main(["relocate", str(season.work), *folders])) == 0
    assert b"# a note of mine\r\n" in config.read_bytes()
    work = Work.open(season.work)
    assert work.pool_root() == new / "pool" and work.catalog.counts().missing == 0
    assert work.history.settings["data.unlabelled"] == str(new / "pool")
    work.close()
    assert season.labels_csv()[first[0]] == "red"


@pytest.mark.slow
@WAYS_OF_REST
def test_relocate_refuses_other_pictures(season: Season, way: Any, capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    before = (season.work / "config.toml").read_bytes()
    assert way(season, lambda: main(["relocate", str(season.work), "--unlabelled", str(tmp_path / "others")])) == 1
    assert "does not hold the images" in capsys.readouterr().err
    assert (season.work / "config.toml").read_bytes() == before


def test_relocate_refuses_a_place_that_would_not_be_looked_through(season: Season, capsys: Any) -> None:
    shutil.copytree(season.root / "pool", season.work / "photos")
    before = (season.work / "config.toml").read_bytes()
    assert main(["relocate", str(season.work), "--unlabelled", str(season.work / "photos")]) == 1
    assert "holds the images in" in capsys.readouterr().err
    assert (season.work / "config.toml").read_bytes() == before


@pytest.mark.slow
@WAYS_OF_REST
def test_rebuild_catalog_keeps_every_label(season: Season, way: Any) -> None:
    first = season.asked()
    season.drop("a.csv", {first[0]: "red"})
    season.turn()
    before = (season.work / "data" / "labels.csv").read_bytes()
    assert way(season, lambda: main(["rebuild-catalog", str(season.work)])) == 0
    assert (season.work / "data" / "labels.csv").read_bytes() == before
    assert list((season.work / "data").glob(".bad-catalog*"))


def test_a_wish_that_was_granted_before_a_kill_is_not_granted_twice(season: Season) -> None:
    work = Work.open(season.work)
    wish = wishes.Wish("0" * 32, "next")
    name = f"{1:019d}-{wish.id}.json"
    atomic.make_folder(work.folder.wishes)
    atomic.replace_json(work.folder.wishes / name, {"id": wish.id, "what": wish.what, "arguments": {}})
    assert wishes.carry_out(work, wish).is_granted
    work.close()
    season.turn()
    assert [line["kind"] for line in journal(season)].count("close") == 1
    answer = json.loads((season.work / "wishes" / f"{name[:-5]}.answer.json").read_text(encoding="utf-8"))
    assert answer["granted"] is True


DAMAGED_WISHES = (
    b"",
    b"{",
    b"[]",
    b"\xff",
    b"{}",
    b'{"id": "00", "what": "next", "arguments": 5}',
    b"[" * 100_000,
    b'{"id": "1", "what": "next", "arguments": {}}',
)


def test_damaged_wishes_are_answered_and_the_loop_goes_on(new_season: Any) -> None:
    season = new_season()
    (season.work / "wishes").mkdir()
    for n, data in enumerate(DAMAGED_WISHES):
        (season.work / "wishes" / f"{n:019d}-{'a' * 32}.json").write_bytes(data)
    (season.work / "wishes" / "notes.json").write_bytes(b"mine")
    season.turn()
    assert season.placed() == 1
    for n, data in enumerate(DAMAGED_WISHES):
        answer = (season.work / "wishes" / f"{n:019d}-{'a' * 32}.answer.json").read_text(encoding="utf-8")
        assert json.loads(answer)["granted"] is False, data
    assert (season.work / "wishes" / "notes.json").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "what, arguments", [("undo", {"seq": "5"}), ("undo", {}), ("relocate", {"daemon.seed": "1"}), ("fly", {})]
)
def test_a_wish_with_wrong_arguments_is_refused(season: Season, what: str, arguments: dict[str, Any]) -> None:
    answer = wishes.ask(season.work, what, **arguments)
    assert not answer.is_granted and answer.text
    assert not list((season.work / "wishes").glob("*")) if (season.work / "wishes").exists() else True


@pytest.mark.slow
def test_a_wish_that_is_taken_back_leaves_nothing(season: Season) -> None:
    lock = DaemonLock.take(WorkFolder.at(season.work))
    try:

        def interrupt(text: str) -> None:
            raise KeyboardInterrupt

        wishes_before = wishes.SAY_AFTER_S
        wishes.SAY_AFTER_S = 0.2
        with pytest.raises(KeyboardInterrupt):
            wishes.ask(season.work, "next", say=interrupt)
    finally:
        wishes.SAY_AFTER_S = wishes_before
        lock.release()
    assert not list((season.work / "wishes").iterdir())


def test_the_history_of_an_image_and_the_list_of_files(season: Season, capsys: Any) -> None:
    first = season.asked()
    season.drop("a.csv", {first[0]: "red"})
    season.turn()
    season.drop("b.csv", {first[0]: "blue"})
    season.turn()
    assert main(["labels", str(season.work)]) == 0
    files = capsys.readouterr().out
    assert "a.csv: 1 label" in files and "b.csv: 1 label" in files
    assert main(["labels", str(season.work), first[0].replace("/", "\\").upper()]) == 0
    said = capsys.readouterr().out
    assert f"{first[0]}: label blue" in said and "asked for in round 1" in said and "red -> blue" in said
    assert main(["labels", str(season.work), "no such.jpg"]) == 2
    assert main(["labels", str(season.work), first[0], "--undo", "3"]) == 2


def test_files_of_one_round_that_disagree_are_listed(season: Season) -> None:
    first = season.asked()
    season.drop("ann.csv", {first[0]: "red", first[1]: "red"})
    season.drop("ben.csv", {first[0]: "blue", first[2]: "green"})
    season.turn()
    table = season.labels_csv()
    assert (table[first[0]], table[first[1]], table[first[2]]) == ("blue", "red", "green")
    conflicts = (season.work / "data" / "conflicts.csv").read_text(encoding="utf-8")
    assert conflicts.count("files_disagree") == 1 and first[0] in conflicts and "ann.csv" in conflicts
    assert [r["what"] for r in receipt(season, "ann.csv")["remarks"]] == ["overruled"]
    assert [r["what"] for r in receipt(season, "ben.csv")["remarks"]] == ["overrules"]
    assert {row["was"] for row in receipt(season, "ben.csv")["accepted"]} == {"red", None}


def test_answers_for_which_nobody_waits_are_removed_with_the_next_wish(season: Season) -> None:
    old = season.work / "wishes" / f"{1:019d}-{'a' * 32}.json"
    for name in (old.name, old.name.replace(".json", ".answer.json")):
        (old.parent / name).write_text("{}", encoding="utf-8")
        os.utime(old.parent / name, (1, 1))
    (old.parent / f"{2:019d}-{'b' * 32}.json").write_text("{}", encoding="utf-8")
    season.turn()
    assert sorted(path.name[:22] for path in old.parent.iterdir()) == [f"{2:019d}-bb"] * 2


@pytest.mark.slow
@WAYS_OF_REST
def test_images_that_were_removed_on_purpose_are_given_up_when_told(season: Season, way: Any) -> None:
    shutil.rmtree(season.root / "pool" / "site a")
    season.turn()
    work = Work.open(season.work)
    assert work.catalog.counts().missing == 0, "a third of the images at once is more likely a share that is away"
    work.close()
    assert way(season, lambda: main(["rescan", str(season.work), "--gone"])) == 0
    work = Work.open(season.work)
    assert work.catalog.counts().missing == 20 and not work.catalog.fact("away")
    work.close()
    assert not [path for path in season.asked() if path.startswith("site a")] or season.placed() == 1
