"""Verbs that people ask often import little: what takes a second to import, they do without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from source_code import ROOT

SLOW_TO_IMPORT = {"torch", "pandas", "sklearn", "matplotlib", "onnx", "onnxruntime", "sqlalchemy", "numpy", "PIL"}
SCRIPT = """
import importlib.util, json, sys
if importlib.util.find_spec("camera_trap_al_service") is None:
    exec(open("tests/conftest.py", encoding="utf-8").read().replace("__file__", "'tests/conftest.py'"))
from camera_trap_al_service.cli import main
try:
    main(json.loads(sys.argv[1]))
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""


def imported_by(*arguments: str) -> tuple[str, set[str]]:
    """Return what a verb says and the modules that it imports, those aside that the test setup brings."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(arguments)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    said, _, modules = done.stdout.strip().rpartition("\n")
    return said, set(json.loads(modules))


@pytest.mark.parametrize("verb", ["status", "--help"])
def test_what_is_slow_to_import_is_not_needed(verb: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[data]\nunlabelled = 'photos'\n", encoding="utf-8")
    said, modules = imported_by(verb, *([str(tmp_path)] if verb == "status" else []))
    assert ("never started" if verb == "status" else "usage") in said
    assert "camera_trap_al_service.cli" in modules and not SLOW_TO_IMPORT & modules
