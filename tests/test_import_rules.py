"""Who may import whom (docs/architecture.md, section 3), and which code may write files."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from source_code import ROOT, nodes, parsed

PACKAGE = ROOT / "camera_trap_al"
HEAVY = {"torch", "torchvision"}
TORCH_MODULES = {
    "device",
    "data",
    "making",
    "projection",
    "training",
    "model_folder",
    "raw_onnx",
    "embedding",
    "efficientnet_lite",
    "engines",
}
SPEAKS_SQLITE = {"sqlite_files", "template", "template_classes", "timelapse_database"}
TOP = {"config", "facts", "jobs", "layout", "lock", "loop", "results", "rounds", "taking", "upkeep", "work", "worker"}
EVERYONE = {"errors", "registry"}
THIRD_PARTY = {
    "core": {"numpy"},
    "strategies": {"numpy", "sklearn"},
    "store": {"numpy", "safetensors"},
    "labels": {"numpy"},
    "catalog": {"numpy", "sqlalchemy"},
    "importers": set(),
    "exporters": {"numpy", "onnx", "onnxruntime", "skl2onnx", "sklearn", "safetensors", "google"},
    "deep_learning": {"numpy", "PIL"},
    "utils": set(),
    "learn": {"numpy", "PIL", "safetensors", "sklearn", "onnx", "onnxruntime", "matplotlib", "threadpoolctl", "scipy"},
}
OWN = {
    "core": {"core"},
    "strategies": {"core", "strategies"},
    "store": {"core", "store"},
    "labels": {"core", "store", "labels"},
    "catalog": {"core", "catalog"},
    "importers": {"core", "importers"},
    "exporters": {"core", "store", "exporters", "learn.classifier", "learn.onnx_files", "version"},
    "learn": {"core", "store", "images", "engine", "learn", "version"},
    "deep_learning": {"core", "catalog", "images", "learn", "strategies"},
    "utils": {"core", "store", "labels", "layout", "prompting"},
}


def imports(path: Path, *, at_top: bool) -> set[str]:
    found: set[str] = set()
    for node in walk_top(parsed(path)) if at_top else nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def walk_top(tree: ast.AST) -> list[ast.AST]:
    """Return the nodes that importing the module runs: not in functions, not under `if TYPE_CHECKING`."""
    out: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        out += [node, *walk_top(node)]
    return out


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.stat().st_size)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_folder_may(path: Path) -> None:
    folder = path.relative_to(PACKAGE).parts[0] if path.parent != PACKAGE else ""
    stem = path.stem
    for name in imports(path, at_top=True):
        top = name.partition(".")[0]
        if top == "camera_trap_al":
            inner = name.split(".")[1:]
            if not folder or inner[0] in EVERYONE:
                continue
            allowed = OWN[folder]
            assert inner[0] in allowed or ".".join(inner[:2]) in allowed, f"{path}: {name}"
        elif top not in sys.stdlib_module_names:
            assert top != "camera_trap_al_service", f"{path}: {name}"
            if top in HEAVY:
                is_facade = (folder, stem) == ("deep_learning", "data_loader")
                assert is_facade or folder == "learn" and stem in TORCH_MODULES, f"{path}: {name}"
            elif folder:
                assert top in THIRD_PARTY[folder], f"{path}: {name}"
        elif top == "sqlite3":
            assert folder == "labels" and stem in SPEAKS_SQLITE, f"{path}: {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_store_opens_for_writing_renames_or_removes(path: Path) -> None:
    if path.name == "atomic.py":
        return
    for node in nodes(path):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        banned = {
            "write_text",
            "write_bytes",
            "unlink",
            "rename",
            "rmdir",
            "rmtree",
            "mkdir",
            "makedirs",
            "fsync",
            "touch",
        }
        assert name not in banned, f"{path}:{node.lineno}: {name}"
        texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if name == "open":
            assert not any(set(text) & set("wax+") and len(text) <= 3 for text in texts), f"{path}:{node.lineno}: open"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_is_too_long_and_nothing_is_pickled(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    names = imports(path, at_top=False)
    assert not names & {"pickle", "joblib", "dill", "shelve", "marshal"}


TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TESTS, ids=lambda p: str(p.relative_to(ROOT / "tests")))
def test_no_file_of_tests_imports_torch_before_its_first_test_runs(path: Path) -> None:
    """Every test process reads every file, which would take it seconds; a fixture called `imports` does it."""
    for name in imports(path, at_top=True):
        assert not {"torch", "torchvision"} & set(name.split(".")), f"{path}: {name}"
        assert name.removeprefix("camera_trap_al.learn.") not in TORCH_MODULES, f"{path}: {name}"


@pytest.mark.slow
def test_the_daemon_and_its_verbs_run_with_torch_blocked() -> None:
    script = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "pandas"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import importlib.util
if importlib.util.find_spec("camera_trap_al_service") is None:
    exec(open("tests/conftest.py", encoding="utf-8").read().replace("__file__", "'tests/conftest.py'"))
import camera_trap_al_service.cli, camera_trap_al_service.daemon, camera_trap_al_service.init
import camera_trap_al_service.checking, camera_trap_al_service.verbs, camera_trap_al_service.demo, camera_trap_al_service.doctor
import camera_trap_al.loop, camera_trap_al.worker, camera_trap_al.jobs
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
