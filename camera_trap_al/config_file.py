"""The file `config.toml`: read, written by `init`, and changed by `relocate`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from camera_trap_al.config import Config, build
from camera_trap_al.errors import UsageError, WorkFolderError
from camera_trap_al.layout import WorkFolder

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib


def read_config(path: Path) -> Config:
    """Read and check a `config.toml`. Touches nothing else."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{path} cannot be read: {error}.", hint="A Windows path needs single quotes: 'D:\\photos'."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.", hint="Save it as UTF-8 in your editor.") from error
    flat: dict[str, Any] = {}
    for group, table in tables.items():
        if isinstance(table, dict):
            flat |= {f"{group}.{name}": value for name, value in table.items()}
        else:
            flat[group] = table
    return build(flat, path.name)


def read_work_config(root: Path) -> tuple[WorkFolder, Config]:
    """Return the paths and the configuration of a work folder. Touches nothing.

    Raises `WorkFolderError` where there is none, `UsageError` where its configuration cannot be used.
    """
    path = WorkFolder.at(root).config
    if not path.is_file():
        raise WorkFolderError(
            f"{root} is not a work folder of camera-trap-al: it has no config.toml.",
            hint="Make one with `camera-trap-al init`, or name the right folder.",
        )
    try:
        config = read_config(path)
    except UsageError as error:
        text = path.read_bytes()
        if b"[data]" not in text and not text.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise WorkFolderError(
                f"{path} was not made by camera-trap-al, so {root} is the folder of another program.",
                hint="Name another folder.",
            ) from error
        raise
    data = {f.name: _below(root, getattr(config.data, f.name)) for f in fields(config.data)}
    return WorkFolder.at(root, config.daemon.state_dir), replace(config, data=replace(config.data, **data))


def _below(root: Path, folder: str) -> str:
    """Return a folder of the configuration as absolute: relative ones are meant from the work folder."""
    return str(root.absolute() / folder) if folder else ""


def with_values(text: str, values: Mapping[str, str]) -> str:
    """Return the text of a `config.toml` with other values for options that are texts; all else stays as it is.

    Raises `UsageError` where the file is written in a way that this cannot change.
    """
    for key, value in values.items():
        group, _, name = key.partition(".")
        line = f"{name} = {_toml(value)}"
        table = re.search(rf"(?ms)^[ \t]*\[{group}\][^\n]*\n(?:(?!^[ \t]*\[).)*", text)
        if table is None:
            text += f"\n[{group}]\n{line}\n"
            continue
        escaped = line.replace("\\", "\\\\")
        body, n = re.subn(rf"(?m)^[ \t]*{name}[ \t]*=[^\r\n]*", escaped, table[0], count=1)
        if not n:
            head, newline, rest = table[0].partition("\n")
            body = f"{head}{newline}{line}{newline}{rest}"
        text = text[: table.start()] + body + text[table.end() :]
    try:
        tables = tomllib.loads(text)
        is_right = all(tables[key.partition(".")[0]][key.partition(".")[2]] == value for key, value in values.items())
    except (tomllib.TOMLDecodeError, KeyError):
        is_right = False
    if not is_right:
        raise UsageError(
            "config.toml is written in a way that is not changed by itself.",
            hint="Set these in an editor: "
            + ", ".join(f"{key} = {_toml(value)}" for key, value in values.items())
            + ".",
        )
    return text


def config_text(config: Config) -> str:
    """Return `config.toml` for a configuration: every option, with its meaning and default."""
    lines = ["# Options of camera-trap-al. Change a value, save, and start the program again.", ""]
    for group in fields(Config):
        record = getattr(config, group.name)
        lines += [f"# {(type(record).__doc__ or '').strip()}", f"[{group.name}]"]
        for f in fields(record):
            choices = f" Choices: {', '.join(f.metadata['choices'])}." if f.metadata["choices"] else ""
            alias = f" ({f.metadata['alias']})" if f.metadata["alias"] else ""
            lines.append(f"# {f.metadata['text']}{choices} Default: {_toml(f.default)}.{alias}")
            lines.append(f"{f.name} = {_toml(getattr(record, f.name))}")
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
