"""A first start with weights that have to be fetched, on a computer that cannot reach them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from camera_trap_al.errors import WeightsMissingError
from camera_trap_al_service.daemon import run

pytestmark = pytest.mark.slow


def test_weights_that_cannot_be_fetched_are_told_and_the_next_start_works(
    new_season: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    season = new_season(embedding_arch="resnet18")
    for _ in range(2):
        with pytest.raises(WeightsMissingError) as raised:
            run(season.work, until="waiting", handle_signals=False)
        assert "resnet18-f37072fd.pth" in str(raised.value) and "embedding_arch = efficientnet_lite0" in str(
            raised.value
        )
    config = season.work / "config.toml"
    text = (
        config.read_text(encoding="utf-8")
        .replace('"resnet18"', '"tiny"')
        .replace("pretrained = true", "pretrained = false")
    )
    config.write_text(text, encoding="utf-8")
    run(season.work, until="waiting", handle_signals=False)
    assert len(season.asked()) == 9
