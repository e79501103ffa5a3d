"""Nothing but `store/atomic.py` opens for writing, renames, removes or syncs; what else does is listed here, with why."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from source_code import FILES, ROOT, nodes

ATOMIC = ROOT / "camera_trap_al" / "store" / "atomic.py"

OF_ANY = {
    "write_text",
    "write_bytes",
    "unlink",
    "rmdir",
    "mkdir",
    "touch",
    "symlink_to",
    "hardlink_to",
    "rmtree",
    "chmod",
}
OF_ANY |= {"copytree", "copy2", "copyfile", "copymode", "makedirs", "fsync", "ftruncate", "utime", "NamedTemporaryFile"}
OF_ANY |= {
    "mkstemp",
    "mkdtemp",
    "TemporaryDirectory",
    "FileHandler",
    "RotatingFileHandler",
    "tofile",
    "savetxt",
    "savefig",
}
OF_OS = {
    "rename",
    "replace",
    "remove",
    "truncate",
    "link",
    "symlink",
    "renames",
    "removedirs",
    "write",
    "pwrite",
    "mknod",
}
OF_SHUTIL = {"move", "copy"}
WRITING_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC"}

EXCEPTIONS = {
    # Other programs, simulated: the demo's pictures and its person, who writes as Timelapse does.
    "service/demo.py": {"copytree", "mkdir"},
    "service/timelapse_user.py": {"mkdir", "copy2", "open"},
    # A work folder in the making, which nobody relies on yet, is removed again.
    "service/init.py": {"rmdir", "rmtree"},
    # SQLite writes a template in the system's folder for temporary files, from where its bytes are taken.
    "camera_trap_al/labels/template.py": {"TemporaryDirectory"},
    # A picture is drawn into memory.
    "camera_trap_al/learn/figures.py": {"savefig"},
    # The rights of the catalogue, which SQLite makes.
    "camera_trap_al/private.py": {"chmod"},
    # The log, which nothing is read from.
    "service/logs.py": {"open"},
    # A pipe that was closed: what is printed goes nowhere.
    "service/cli.py": {"os.open"},
}


def writing_calls(path: Path) -> list[tuple[int, str]]:
    """Return line and name of each call that writes, renames or removes."""
    found = []
    for node in nodes(path):
        if not isinstance(node, ast.Call):
            continue
        name, owner = _name_of(node.func)
        if name == "open" and owner == "os":
            if any(isinstance(n, ast.Attribute) and n.attr in WRITING_FLAGS for n in ast.walk(node)):
                found.append((node.lineno, "os.open"))
        elif name in ("open", "fdopen"):
            modes = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
            if any(isinstance(mode, str) and len(mode) <= 3 and set(mode) & set("wax+") for mode in modes):
                found.append((node.lineno, "open"))
        elif (
            name in OF_ANY
            or (owner == "os" and name in OF_OS)
            or (owner == "shutil" and name in OF_SHUTIL)
            or (name == "rename" and owner != "os")
        ):
            found.append((node.lineno, name))
    return found


def _name_of(called: ast.expr) -> tuple[str, str]:
    if isinstance(called, ast.Attribute):
        return called.attr, called.value.id if isinstance(called.value, ast.Name) else ""
    return (called.id, "") if isinstance(called, ast.Name) else ("", "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_is_written_through_the_store_only(path: Path) -> None:
    if path == ATOMIC:
        return
    allowed = EXCEPTIONS.get(path.relative_to(ROOT).as_posix(), set())
    calls = writing_calls(path)
    assert [(line, name) for line, name in calls if name not in allowed] == []


def test_every_exception_is_needed() -> None:
    for name, allowed in EXCEPTIONS.items():
        calls = {call for _, call in writing_calls(ROOT / name)}
        assert allowed <= calls, f"{name} no longer calls {allowed - calls}"


def test_the_store_itself_would_be_found() -> None:
    names = {name for _, name in writing_calls(ATOMIC)}
    assert {"unlink", "mkdir", "rmdir", "os.open", "fsync", "ftruncate", "write"} <= names
