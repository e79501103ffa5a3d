"""What the code never does, read from the code itself; the unit for systemd; and what is installed with the program."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from source_code import FILES, ROOT, nodes

from camera_trap_al.errors import EXIT_DAMAGED, EXIT_LOCKED, EXIT_USAGE

UNIT = ROOT / "service" / "camera-trap-al.service"
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "joblib",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
    "skops",
    "yaml",
    "jinja2",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.startfile", "tempfile.mktemp"}


def calls(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.Call]]:
    for node in nodes:
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg}


def problems(nodes: Iterable[ast.AST]) -> list[str]:
    """Return what must not be in a module, as `line: what`."""
    found = []
    for node in nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{node.lineno}: imports {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
    for name, call in calls(nodes):
        given, last = keywords(call), name.rpartition(".")[2]
        is_bad = name in FORBIDDEN_CALLS
        is_bad |= name == "torch.load" and given.get("weights_only") != "True"
        is_bad |= name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False"
        is_bad |= name in ("np.save", "numpy.save") and given.get("allow_pickle") != "False"
        is_bad |= name == "Image.open" and "formats" not in given
        is_bad |= given.get("shell", "False") != "False"
        is_bad |= (
            name.startswith("subprocess.")
            and bool(call.args)
            and isinstance(call.args[0], ast.Constant | ast.JoinedStr)
        )
        is_bad |= last in (
            "extractall",
            "unpack_archive",
            "load_external_data_for_model",
            "register_custom_ops_library",
        )
        if is_bad:
            found.append(f"{call.lineno}: {ast.unparse(call)[:80]}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_run_because_it_was_read(path: Path) -> None:
    assert problems(nodes(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "os.system('ls')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, array)",
        "Image.open(path)",
        "subprocess.run('ls', shell=True)",
        "subprocess.Popen(f'ls {path}')",
        "archive.extractall(path)",
    ],
)
def test_the_gate_sees_what_it_is_there_for(line: str) -> None:
    assert problems(list(ast.walk(ast.parse(line))))


def test_onnx_is_opened_at_one_place_which_switches_telemetry_off() -> None:
    opens = [
        path.name for path in FILES for name, _ in calls(nodes(path)) if name.rpartition(".")[2] == "InferenceSession"
    ]
    assert opens == ["onnx_files.py"]


def test_images_are_opened_in_six_formats_alone() -> None:
    from camera_trap_al import images

    assert set(images.FORMATS) == {"JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"}
    opens = [
        (path.name, keywords(call)["formats"])
        for path in FILES
        for name, call in calls(nodes(path))
        if name == "Image.open"
    ]
    assert opens and {formats for _, formats in opens} == {"FORMATS"}


@pytest.fixture(scope="module")
def unit() -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return {name: dict(parser[name]) for name in parser.sections()}


def test_the_unit_for_systemd_closes_the_program_in(unit: dict[str, dict[str, str]]) -> None:
    assert set(unit) == {"Unit", "Service", "Install"}
    service = unit["Service"]
    wanted = {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "CapabilityBoundingSet": "", "PrivateTmp": "yes"}
    assert {name: service.get(name) for name in wanted} == wanted
    assert re.fullmatch(r"\d+G", service["MemoryMax"]) and service["User"] != "root"
    assert service["StateDirectoryMode"] == "0700"


def test_the_unit_reads_the_images_and_writes_the_work_folder(unit: dict[str, dict[str, str]]) -> None:
    service = unit["Service"]
    work = service["ReadWritePaths"]
    assert service["ExecStart"].endswith(f"camera-trap-al run {work}")
    assert not Path(service["ReadOnlyPaths"]).is_relative_to(work)


def test_the_unit_does_not_start_again_what_cannot_go_on(unit: dict[str, dict[str, str]]) -> None:
    never = {int(code) for code in unit["Service"]["RestartPreventExitStatus"].split()}
    assert never == {EXIT_USAGE, EXIT_DAMAGED, EXIT_LOCKED} and unit["Service"]["Restart"] == "on-failure"
    assert int(unit["Service"]["TimeoutStopSec"]) >= 10 and unit["Service"]["KillSignal"] == "SIGTERM"


def test_the_unit_is_installed_with_the_program() -> None:
    assert '"camera-trap-al.service"' in (ROOT / "setup.py").read_text(encoding="utf-8")


KNOWN_HOLES = {
    "pillow": (10, 3),
    "torch": (2, 6),
    "onnx": (1, 21),
    "filelock": (3, 20, 3),
    "tqdm": (4, 66, 3),
    "scikit-learn": (1, 5),
}
"""The first versions without a known hole: CVE-2024-28219, 2025-32434, external data, 2026-22701, 2024-34062, 2024-5206."""


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def required() -> dict[str, tuple[int, ...]]:
    text = (ROOT / "setup.py").read_text(encoding="utf-8").partition("install_requires")[2].partition("]")[0]
    return {name: version(number) for name, number in re.findall(r"[\"']([A-Za-z0-9_-]+)>=([\d.]+)", text)}


@pytest.mark.parametrize("name", KNOWN_HOLES)
def test_versions_with_known_holes_cannot_be_installed(name: str) -> None:
    assert required()[name] >= KNOWN_HOLES[name]


def test_ci_runs_on_pinned_versions_that_setup_allows() -> None:
    text = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8")
    pinned = {name.lower(): version(number) for name, number in re.findall(r"(?m)^([A-Za-z0-9_-]+)==([\d.]+)", text)}
    asked = required()
    asked.pop("tomli")
    assert {name for name in asked if name.lower() not in pinned} == set()
    assert all(pinned[name.lower()] >= least for name, least in asked.items())
