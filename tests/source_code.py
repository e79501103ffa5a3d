"""The code of the program, read and parsed once a process."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*(ROOT / "camera_trap_al").rglob("*.py"), *(ROOT / "service").rglob("*.py")])


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a module, not to be changed."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of a module."""
    return tuple(ast.walk(parsed(path)))
