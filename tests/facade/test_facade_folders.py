"""Choices and folders that `run_active_learning` is given: what is refused, and what becomes of what lies there."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from camera_trap_al import prompting
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.errors import LockedError


def test_a_selection_of_what_is_not_there_is_a_value_error_and_makes_nothing(session: Any) -> None:
    for wrong, words in {
        "active_learning_strategy": "Did you mean 'margin'?",
        "embedding_loss_type": "Did you mean 'triplet'?",
        "embedding_arch": "Did you mean 'resnet18'?",
        "embedding_train_loader_type": "Did you mean 'single'?",
    }.items():
        name = {"marginn", "triplett", "resnet_18", "singel"}
        value = next(n for n in name if n[:3] == words.split("'")[1][:3])
        with pytest.raises(ValueError) as caught:
            session.run(**{wrong: value})
        assert words in str(caught.value)
    for name, value in {"active_batch": 0, "validate_model": 1, "embedding_finetuning_period": None}.items():
        with pytest.raises(ValueError, match=f"'{name}' must be"):
            session.run(**{name: value})
    with pytest.raises(ValueError, match="does not exist"):
        session.run(unlabelled_data=session.root / "nowhere")
    assert not session.output.exists()


def test_a_class_of_the_validation_images_must_be_one_of_the_training_images(session: Any) -> None:
    (session.root / "validation" / "red").rename(session.root / "validation" / "redd")
    with pytest.raises(ValueError, match="'redd'.*Did you mean 'red'"):
        session.run()
    assert not session.output.exists()


@pytest.mark.slow
def test_by_default_the_files_are_in_a_folder_of_the_working_directory(
    session: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    session.run(output_dir="default")
    assert (tmp_path / "Active Learning Files" / "timelapse_selector.csv").is_file()


@pytest.mark.slow
def test_parents_are_made_and_what_else_lies_in_the_folder_stays(session: Any) -> None:
    target = session.root / "a" / "b"
    session.run(output_dir=target)
    assert (target / "timelapse_selector.csv").is_file()
    session.output.mkdir()
    (session.output / "notes.txt").write_text("mine", encoding="utf-8")
    (session.output / "new_labels_bin").mkdir()
    session.run(lambda: session.put("labels.csv"))
    assert len(session.labels()) == 5 and (session.output / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_folder_in_whose_places_other_things_lie_is_refused(session: Any) -> None:
    (session.output / "export").mkdir(parents=True)
    (session.output / "export" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(Exception, match="is there and not empty"):
        session.run()
    assert [path.name for path in session.output.rglob("*")] == ["export", "thesis.txt"]


class Bomb:
    """What a pickle of somebody else may do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.abort, ()


@pytest.mark.parametrize("use_checkpoints", [True, False])
def test_a_checkpoint_of_the_original_program_is_never_opened(session: Any, use_checkpoints: bool) -> None:
    for name in ("data/data_loader.pt", "classifier/classifier.pkl"):
        path = session.output / name
        path.parent.mkdir(parents=True)
        path.write_bytes(pickle.dumps(Bomb()))
    (session.output / "data" / "labels.csv").write_text("path,label\n", encoding="utf-8")
    before = sorted(session.output.rglob("*"))
    with pytest.raises(Exception) as caught:
        session.run(use_checkpoints=use_checkpoints)
    assert "original train_image_classifier_al" in str(caught.value) and "import-labels" in str(caught.value)
    assert sorted(session.output.rglob("*")) == before


def changes_nothing(session: Any, act: Callable[[], object], error: type[Exception], words: str) -> None:
    path = session.output / "config.toml"
    before = path.read_bytes()
    with pytest.raises(error, match=words):
        act()
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_start_anew_with_folders_that_cannot_be_used_leaves_the_work_folder_as_it_is(session: Any) -> None:
    session.run()
    asked = session.asked()
    other, new = shutil.copytree(session.root / "train", session.root / "other"), {"use_checkpoints": False}
    changes_nothing(session, lambda: session.run(unlabelled_data=other, **new), ValueError, "holds other pictures")
    gone = {"train_data": session.root / "trian", "validation_data": None}
    changes_nothing(session, lambda: session.run(**gone, **new), ValueError, "does not exist")
    assert session.run(lambda: session.put("labels.csv")) == 2 and set(session.labels()) == set(asked)


@pytest.mark.slow
def test_a_second_call_that_is_refused_changes_no_folder_of_the_first(session: Any) -> None:
    other = shutil.copytree(session.root / "train", session.root / "other")

    def call_again() -> None:
        options = {"train_data": other, "use_checkpoints": False}
        changes_nothing(session, lambda: session.run(**options), LockedError, "Another camera-trap-al")

    session.run(call_again)


@pytest.mark.slow
def test_checkpoints_on_another_disk_are_gone_on_with(session: Any, caplog: pytest.LogCaptureFixture) -> None:
    from camera_trap_al_service.init import init

    folders = {"data.train": "train", "data.unlabelled": "pool", "data.validation": "validation"}
    options = {"daemon.state_dir": str(session.root / "disk"), "embedding.pretrained": False, "embedding.arch": "tiny"}
    init(session.output, {key: str(session.root / name) for key, name in folders.items()}, options)
    session.run()
    assert (session.root / "disk" / "checkpoints" / "gen-000001").is_dir()
    caplog.clear()
    other = shutil.copytree(session.root / "train", session.root / "other")
    session.run(train_data=other)
    assert f"train_data goes on with {session.root / 'train'}; {other} is ignored" in caplog.text


@pytest.mark.slow
def test_a_label_file_that_another_program_holds_is_told_and_read_at_the_next_enter(
    session: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from camera_trap_al_service import console

    read, held = console.take_private_copy, [True, True]  # at one enter it is tried twice

    def read_unless_held(*given: Any) -> Any:
        if held:
            held.pop()
            raise PermissionError(errno.EACCES, "held", str(given[0].path))
        return read(*given)

    monkeypatch.setattr(console, "take_private_copy", read_unless_held)
    assert session.run(lambda: session.put("labels.csv"), lambda: None) == 3
    said = capsys.readouterr().out
    assert said.count(prompting.NOT_LOADED) == 1 and said.count(prompting.LOADED) == 1 and len(session.labels()) == 5


@pytest.mark.slow
def test_only_images_that_were_asked_for_are_given_up_since_others_may_be_on_a_disk_that_is_away(session: Any) -> None:
    for i in range(30):
        shutil.copy(session.root / "pool" / "site a" / "IMG_00.jpg", session.root / "pool" / "site a" / f"MORE_{i}.jpg")

    def take_away() -> None:
        asked = session.asked()
        every = [f"{row['RelativePath']}/{row['File']}" for row in session.selector()]
        for image in [*asked[:3], *sorted(set(every) - set(asked))[:3]]:
            (session.root / "pool" / image).unlink()

    session.run(take_away, active_batch=20)
    catalog = Catalog.open(session.output / "data" / "catalog.sqlite", read_only=True)
    assert catalog.counts().missing == 3
    catalog.close()


@pytest.mark.slow
def test_labels_that_were_written_into_the_selector_itself_are_kept(session: Any) -> None:
    def write_into_it() -> None:
        selector = session.output / "timelapse_selector.csv"
        head, *rows = selector.read_text(encoding="utf-8").splitlines()
        asked.extend(session.asked())
        selector.write_text("\n".join([f"{head},Species", *(f"{row},red" for row in rows), ""]), encoding="utf-8")

    def move_it() -> None:
        (kept,) = (session.output / "data").glob("selector-*.csv")
        shutil.copy(kept, session.bin / "labels.csv")

    asked: list[str] = []
    assert session.run(write_into_it, move_it) == 3
    assert session.labels() == dict.fromkeys(asked, "red") and len(asked) == 5


@pytest.mark.slow
def test_a_folder_of_images_that_is_away_as_a_whole_is_waited_for(
    session: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, away = session.root / "pool", session.root / "away"
    acts = [lambda: (session.put("labels.csv"), pool.rename(away)), lambda: away.rename(pool)]
    assert session.run(*acts) == 3 and len(session.labels()) == 5
    assert capsys.readouterr().out.count("is a disk or share away?") == 1


@pytest.mark.slow
def test_what_starts_anew_set_aside_does_not_pile_up(session: Any) -> None:
    for _ in range(5):
        session.run(use_checkpoints=False)
    for name in ("models", "embedding", "checkpoints"):
        assert len(list((session.output / name).glob(".bad-gen-*"))) <= 3, name
