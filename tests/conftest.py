"""Makes `service/` importable by its installed name where the package was not installed; shares the season."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

# The tests run in two processes; more threads than cores would slow both.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SERVICE = "camera_trap_al_service"

if importlib.util.find_spec(SERVICE) is None:
    folder = Path(__file__).resolve().parent.parent / "service"
    spec = importlib.util.spec_from_file_location(
        SERVICE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[SERVICE] = module
    spec.loader.exec_module(module)

sys.path.insert(0, str(Path(__file__).resolve().parent))
from season import new_season, pictures  # noqa: E402, F401 - fixtures for all tests
