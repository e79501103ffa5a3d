"""Choices and folders that `run_active_learning` is given: what is refused, and what becomes of what lies there."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest


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
    with pytest.raises(ValueError, match="active_batch|query.batch"):
        session.run(active_batch=0)
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
