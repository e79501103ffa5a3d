"""Seasons that teach little: the loop asks on, says why, and never stops."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from season import Season

from camera_trap_al.store import generations

pytestmark = pytest.mark.slow


def rounds(season: Season, n: int, species: str = "") -> list[int]:
    """Let a person answer n requests, with the truth or always the same; return how many images each asked for."""
    sizes = []
    for i in range(n):
        season.run()
        asked = season.asked()
        sizes.append(len(asked))
        truth = {"/".join(filter(None, key)): name for key, name in season.truth.items()}
        season.drop(f"{i}.csv", {path: species or truth[path] for path in asked})
    season.run()
    return sizes


def checkpoints(season: Season) -> list[int]:
    return generations.numbers(season.work / "checkpoints")


def only_one_class(root: Path) -> None:
    for name in ("green", "blue"):
        shutil.rmtree(root / name)


def test_one_class_only_asks_on_at_random_until_a_second_one_comes(new_season: Any) -> None:
    season = new_season(folders=("train",), **{"classes.auto_add": True, "classes.auto_add_min": 1})
    only_one_class(season.root / "train")
    sizes = rounds(season, 2, species="red")
    assert sizes == [9, 9]
    assert set(season.labels_csv().values()) == {"red", "unlabelled"}
    assert season.placed() == 3


def test_a_class_with_one_image_is_learned(new_season: Any) -> None:
    season = new_season()
    (season.root / "train" / "red" / "1.jpg").unlink()
    rounds(season, 1)
    classes = json.loads((season.work / "export" / "manifest.json").read_text(encoding="utf-8"))["classes"]
    assert "red" in classes and checkpoints(season)


def test_images_that_are_all_alike_are_asked_for_all_the_same(new_season: Any) -> None:
    season = new_season(active_learning_strategy="kcenter")
    grey = Image.fromarray(np.full((24, 32, 3), 90, np.uint8))
    for path in [p for kind in ("train", "validation", "pool") for p in (season.root / kind).rglob("*.[jJ]*")]:
        grey.save(path)
    assert rounds(season, 2) == [9, 9]
    assert checkpoints(season) and season.placed() == 3


def test_a_batch_larger_than_the_pool_asks_for_all_and_ends(new_season: Any) -> None:
    season = new_season(active_batch=1000, extract_embedding_batch_size=1000)
    assert rounds(season, 1) == [60]
    assert season.placed() == "finished"


def test_an_embedding_of_one_number(new_season: Any) -> None:
    season = new_season(feat_dim=1, embedding_loss_type="siamese", active_learning_strategy="hierarchical")
    assert rounds(season, 1) == [9]
    assert checkpoints(season) and season.placed() == 2
    assert json.loads((season.work / "export" / "check.json").read_text(encoding="utf-8"))["ok"] is True
