"""Known label files that come back with new times: one is an export made again, several at once a restored folder."""

from __future__ import annotations

import json
import os

import pytest
from season import Season


def verdict(season: Season, name: str) -> str:
    path = season.work / "new_labels_bin" / f"{name}.receipt.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["verdict"])


def touch(season: Season, *names: str, at: int) -> None:
    for name in names:
        os.utime(season.work / "new_labels_bin" / name, (at, at))


@pytest.fixture
def images(season: Season) -> list[str]:
    """Return what the first round asks for; two label files were taken."""
    images = season.asked()
    season.drop("a.csv", {images[0]: "red"})
    season.turn()
    season.drop("b.csv", {images[0]: "blue", images[1]: "green"})
    season.turn()
    return images


@pytest.mark.slow
def test_one_file_that_is_exported_again_is_read_again(season: Season, images: list[str]) -> None:
    touch(season, "a.csv", at=2_000_000_000)
    season.turn()
    assert verdict(season, "a.csv") == "accepted" and season.labels_csv()[images[0]] == "red"


@pytest.mark.slow
def test_of_a_restored_folder_no_file_is_read(season: Season, images: list[str]) -> None:
    touch(season, "a.csv", "b.csv", at=2_000_000_000)
    season.turn()
    assert [verdict(season, name) for name in ("a.csv", "b.csv")] == ["already_known"] * 2
    assert season.labels_csv()[images[0]] == "blue"


def test_a_file_put_back_alone_after_that_is_read(season: Season, images: list[str]) -> None:
    touch(season, "a.csv", "b.csv", at=2_000_000_000)
    season.turn()
    touch(season, "a.csv", at=2_000_000_100)
    season.turn()
    assert verdict(season, "a.csv") == "accepted" and season.labels_csv()[images[0]] == "red"


def test_new_content_under_an_old_name_and_time_is_a_new_file(season: Season, images: list[str]) -> None:
    path = season.work / "new_labels_bin" / "b.csv"
    before = path.stat()
    season.drop("b.csv", {images[2]: "green", images[1]: "red"})
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    season.turn()
    table = season.labels_csv()
    assert (table[images[1]], table[images[2]]) == ("red", "green")
