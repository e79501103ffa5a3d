"""The stand-in for torch that the fault tests use: the whole loop runs on it, in this process and in a real worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy_learner
import pytest
from season import Season

from camera_trap_al.store import generations

pytestmark = pytest.mark.faults

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@pytest.fixture
def _stand_in() -> Iterator[None]:
    undo = numpy_learner.install()
    yield
    undo()


def two_rounds(season: Season) -> None:
    season.run()
    label = season.person()
    for _ in range(2):
        assert label() == 9
        season.run()


def is_whole(season: Season) -> None:
    model = generations.newest(season.work / "models")
    assert model is not None and model.manifest["trained"]
    assert "numpy learner" in (model.folder / "model.json").read_text(encoding="utf-8")
    checkpoint = generations.newest(season.work / "checkpoints")
    assert checkpoint is not None and checkpoint.manifest["n_labels"] >= 18
    assert (season.work / "export" / "manifest.json").is_file()


@pytest.mark.usefixtures("_stand_in")
def test_the_whole_loop_runs_inline_without_torch(new_season: Callable[..., Season]) -> None:
    season = new_season()
    two_rounds(season)
    is_whole(season)


def test_real_workers_use_the_stand_in(new_season: Callable[..., Season], monkeypatch: pytest.MonkeyPatch) -> None:
    path = [str(HERE / "no_torch_site"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    season = new_season(daemon__worker="process")
    two_rounds(season)
    is_whole(season)


def test_torch_cannot_be_imported_beside_the_stand_in() -> None:
    command = [sys.executable, "-c", "import torch"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE / "no_torch_site"), str(ROOT)])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)
    assert ended.returncode != 0 and "numpy learner stands in" in ended.stderr
