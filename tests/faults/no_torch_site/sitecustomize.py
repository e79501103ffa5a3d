"""Makes every process with this folder on its PYTHONPATH use the numpy learner, loaded when it is first needed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

MARKED = {f"camera_trap_al.learn.{name}" for name in ("making", "training", "embedding", "model_folder")}


class _Finder:
    """Passes the first import of a module that imports torch, or of torch itself, on to the stand-in."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        if name not in MARKED and name not in ("torch", "torchvision"):
            return None
        stand_in = sys.modules.get("numpy_learner")
        if stand_in is None:
            spec = importlib.util.spec_from_file_location(
                "numpy_learner", Path(__file__).resolve().parent.parent / "numpy_learner.py"
            )
            assert spec is not None and spec.loader is not None
            stand_in = importlib.util.module_from_spec(spec)
            sys.modules["numpy_learner"] = stand_in
            spec.loader.exec_module(stand_in)
        return stand_in.StandIn().find_spec(name)


sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]
