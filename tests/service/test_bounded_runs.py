"""What a bounded run leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from camera_trap_al_service.daemon import run


@pytest.mark.slow
def test_labels_csv_holds_the_newest_labels_although_a_network_would_be_trained_now(
    new_season: Callable[..., Any],
) -> None:
    season = new_season(finetune__period=1)
    run(season.work, until="idle", handle_signals=False)
    asked = season.asked()
    season.drop("a.csv", dict.fromkeys(asked, "red"))
    run(season.work, until="waiting", handle_signals=False)
    assert season.shown()["round"] == 2
    assert [label for label in season.labels_csv().values() if label != "unlabelled"] == ["red"] * len(asked)
