"""A bin and the folder of private copies."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "new_labels_bin"
    folder.mkdir()
    return folder


@pytest.fixture
def intake(tmp_path: Path) -> Path:
    folder = tmp_path / "intake"
    folder.mkdir()
    return folder
