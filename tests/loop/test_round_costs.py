"""A round reads of the pool only what it changes: the images are read, and their lines made, once and not each round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from season import Season, is_quiet

from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.core.records import ImageKey
from camera_trap_al.labels.lines import LabelLines, SelectorLines


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many images were read from the catalogue, and how many lines were made of them."""
    counts = {"keys": 0, "lines": 0}
    pool_keys = Catalog.pool_keys

    def counting(catalog: Catalog, **how: Any) -> Iterator[ImageKey]:
        for key in pool_keys(catalog, **how):
            counts["keys"] += 1
            yield key

    monkeypatch.setattr(Catalog, "pool_keys", counting)
    for lines in (SelectorLines, LabelLines):
        monkeypatch.setattr(lines, "beginning", _counting(lines.beginning, counts))
    return counts


def _counting(beginning: Callable[..., bytes], counts: dict[str, int]) -> Callable[..., bytes]:
    def counted(lines: Any, key: ImageKey) -> bytes:
        counts["lines"] += 1
        return beginning(lines, key)

    return counted


@pytest.mark.slow
def test_a_round_does_not_read_the_pool_again(new_season: Callable[..., Season], counted: dict[str, int]) -> None:
    season = new_season(train__epochs=0, finetune__epochs=0)
    label, asked = season.person(), 9
    with season.opened() as loop:
        loop.run(until=is_quiet)
        label()
        loop.run(until=is_quiet)
        before = dict(counted)
        label()
        loop.run(until=is_quiet)
        assert season.placed() == 3
        # The 9 images of the new request are looked up in the selector, the 18 labelled ones in labels.csv.
        assert {name: counted[name] - before[name] for name in counted} == {"keys": 0, "lines": asked + 2 * asked}
        labels = season.labels_csv()
        assert len(labels) > 2 * asked and sum(label != "unlabelled" for label in labels.values()) == 2 * asked
