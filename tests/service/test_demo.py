"""The demo in small: it plays the whole job; and labels that say nothing teach nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from camera_trap_al.errors import UsageError
from camera_trap_al.learn.packaged import find_packaged
from camera_trap_al_service.demo import Truth, demo

needs_weights = pytest.mark.skipif(
    find_packaged("efficientnet_lite0") is None, reason="the packaged weights come with the extra [demo]"
)
MAJORITY = 18 / 214


@pytest.mark.slow
def test_the_demo_tells_what_it_measured_and_where_things_are(tmp_path: Path) -> None:
    said: list[str] = []
    small = {"embedding.arch": "tiny", "embedding.feat_dim": 16, "finetune.epochs": 1, "loader.samples": 2}
    soon = {"finetune.period": 30, "train.min_labels": 20}
    outcomes = demo(3, tmp_path / "d", say=said.append, options={**small, **soon}, rounds=2)
    text = "\n".join(said)
    assert [o.labels for o in outcomes] == [0, 30, 60] and f"{100 * outcomes[-1].accuracy:.1f} %" in text
    for name in ("export", "test_results", "timelapse_selector.csv", "new_labels_bin", "data/labels.csv"):
        path = tmp_path / "d" / "work" / name
        assert path.exists() and str(path) in text


@pytest.mark.slow
@needs_weights
def test_labels_that_were_shuffled_teach_nothing(tmp_path: Path) -> None:
    def shuffled(truth: Truth) -> Truth:
        species = list(truth.values())
        random.Random(0).shuffle(species)
        return dict(zip(truth, species, strict=True))

    options = {"finetune.epochs": 0, "query.batch": 100}
    outcomes = demo(1, tmp_path / "d", say=lambda line: None, options=options, change_truth=shuffled, rounds=2)
    assert outcomes[0].accuracy > 0.4, "the training pictures alone teach something"
    assert outcomes[-1].accuracy < 2.5 * MAJORITY, "shuffled labels must not"


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        demo(1, tmp_path, say=print)
    assert [p.name for p in tmp_path.iterdir()] == ["theirs.txt"]
