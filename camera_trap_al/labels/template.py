"""Timelapse templates (`.tdb`): make one for a project, read one that is there.

A template that is there belongs to people and is not written here; `template_classes` adds to one when it is told to.
"""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from camera_trap_al.errors import TemplateError
from camera_trap_al.labels import sqlite_files
from camera_trap_al.labels.sqlite_files import text
from camera_trap_al.store import atomic

NEEDED_FIELDS = {"Species": ("FixedChoice", "Note"), "Selected": ("Flag",)}
OPTIONAL_FIELDS = {
    "Prediction": ("Note", "MultiLine", "FixedChoice", "MultiChoice", "AlphaNumeric"),
    "Confidence": ("Note", "MultiLine", "DecimalAny", "DecimalPositive"),
    "Confirmed": ("Flag",),
    "Count": ("Counter", "IntegerAny", "IntegerPositive", "DecimalAny", "DecimalPositive", "Note", "MultiLine"),
}
"""Fields of ours that a template may have or not, and the types that hold what we import."""
CHOICES = "ChoiceListNonEmpty"
VERSION = "2.3.0.0"  # the first with this layout; an older Timelapse warns of a higher one, a newer one raises it

SCHEMA = """
CREATE TABLE TemplateTable (Id INTEGER PRIMARY KEY AUTOINCREMENT, ControlOrder INTEGER, SpreadsheetOrder INTEGER,
    Type TEXT, DefaultValue TEXT, Label TEXT, DataLabel TEXT, Tooltip TEXT, Visible TEXT, List TEXT,
    ExportToCSV TEXT DEFAULT 'True', TXTBOXWIDTH TEXT, Copyable TEXT);
CREATE TABLE FolderDataTemplateTable (Id INTEGER PRIMARY KEY AUTOINCREMENT, ControlOrder INTEGER,
    SpreadsheetOrder INTEGER, Level INTEGER, Type TEXT, DefaultValue TEXT, Label TEXT, DataLabel TEXT, Tooltip TEXT,
    Visible TEXT, List TEXT, ExportToCSV TEXT DEFAULT 'True');
CREATE TABLE FolderDataInfo (Id INTEGER PRIMARY KEY AUTOINCREMENT, Level INTEGER, Guid TEXT, Alias TEXT);
CREATE TABLE TemplateInfo (VersionCompatabily TEXT DEFAULT '', BackwardsCompatibility TEXT DEFAULT '',
    Standard TEXT DEFAULT '');
"""

INSERT_FIELD = """
INSERT INTO TemplateTable (ControlOrder, SpreadsheetOrder, Type, DefaultValue, Label, DataLabel, Tooltip, Visible,
    List, ExportToCSV, TXTBOXWIDTH, Copyable)
VALUES (:order, :order, :type, :default, :label, :data_label, :tooltip, 'true', :list, :exported, :width, :copyable)
"""


@dataclass(frozen=True)
class Field:
    """One field of a template.

    `data_label` names its column in every CSV, case included; `type` is Timelapse's word ("FixedChoice", "Flag", …);
    `choices` are the items of its menu in their order, without the empty one; `label` is what the user sees;
    `is_exported` whether exports have its column.
    """

    data_label: str
    type: str
    default: str
    choices: tuple[str, ...]
    label: str
    is_exported: bool = True


@dataclass(frozen=True)
class Template:
    """The fields of a template, in the order in which Timelapse shows them."""

    fields: tuple[Field, ...]

    def field(self, data_label: str) -> Field | None:
        """Return the field with this data label, or None."""
        return next((field for field in self.fields if field.data_label == data_label), None)


class _NewField(NamedTuple):
    type: str
    data_label: str
    default: str
    tooltip: str


STANDARD_FIELDS = (
    _NewField("File", "File", "", "The file name"),
    _NewField("RelativePath", "RelativePath", "", "The folder of the file, below the folder of this template"),
    _NewField("DateTime", "DateTime", "2026-01-01 12:00:00", "When the image was taken"),
    _NewField("DeleteFlag", "DeleteFlag", "false", "Mark a file to be deleted, when you confirm it in the Edit menu"),
)
PROJECT_FIELDS = (
    _NewField("FixedChoice", "Species", "", "What the image shows; choose it for the images whose Selected is on"),
    _NewField("Flag", "Selected", "false", "On for images to label; set by importing timelapse_selector.csv"),
    _NewField("Note", "Prediction", "", "The species that the classifier sees; filled by an import"),
    _NewField("Note", "Confidence", "", "How sure the classifier is, from 0 to 1; filled by an import"),
    _NewField("Flag", "Confirmed", "false", "Tick it if Prediction is right; Species can then stay empty"),
    _NewField("Counter", "Count", "0", "How many animals you count; for your own use"),
)
WIDTHS_PX = {"DateTime": 160, "DeleteFlag": 20, "Flag": 20, "Counter": 30}
USUAL_WIDTH_PX = 100
# What is copyable goes from image to image with one key: only a species may, never a flag or a prediction.
COPYABLE = ("Species",)
NOT_EXPORTED = ("DeleteFlag",)
SHOWN_AS = {"DeleteFlag": "Delete?"}


def make_template(path: Path, classes: Sequence[str]) -> None:
    """Make a template that Timelapse 2.3 and later opens; durable on return. Nothing is ever overwritten.

    Parameters
    ----------
    path : where to put it; the folder is the root of the images and must exist
    classes : the items of the Species menu in this order; with none, Species is a Note that any name is typed into

    Raises
    ------
    TemplateError : the folder holds a `.tdb` already or cannot be written, or a class cannot be an item of a menu
    """
    check_choices(classes)
    existing = find_templates(path.parent)
    if existing:
        raise TemplateError(
            f"{path.parent} holds a Timelapse template already: {existing[0].name}.",
            hint="It was left as it is. Add the fields Species and Selected to it in Timelapse's Template Editor if it"
            " has none, or move it elsewhere to have a new one made.",
        )
    try:
        atomic.replace_bytes(path, _new_database(classes))
    except (OSError, sqlite3.Error) as error:
        raise TemplateError(
            f"The template {path} could not be written: {error}.",
            hint="Make room on the disk or see that you may write into this folder. Or make a template in Timelapse's"
            " Template Editor, with Species (FixedChoice) and Selected (Flag).",
        ) from error


def find_templates(folder: Path) -> list[Path]:
    """Return the `.tdb` files (in any letter case) of a folder, sorted.

    Raises
    ------
    TemplateError : the folder cannot be listed
    """
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".tdb" and path.is_file())
    except OSError as error:
        raise TemplateError(
            f"The folder {folder} cannot be read: {error}.",
            hint="Check its name, that its disk or share is connected, and that you may read it.",
        ) from error


def read_template(path: Path) -> Template:
    """Read a template without changing it; Timelapse may have it open.

    Raises
    ------
    TemplateError : there is none, it is damaged, something else, from before Timelapse 2.3, or locked
    """
    with _explained(path), closing(_open_to_read(path)) as database:
        _check_kind(database, path)
        columns = {row[1] for row in database.execute("PRAGMA table_info(TemplateTable)")}
        # Timelapse adds this column where it opens a template that lacks it.
        exported = "ExportToCSV" if "ExportToCSV" in columns else "'true'"
        rows = database.execute(
            f"SELECT DataLabel, Type, DefaultValue, List, Label, {exported} FROM TemplateTable ORDER BY ControlOrder, Id"
        ).fetchall()
    fields = []
    for *texts, items, label, exported in rows:
        data_label, type_, default = map(text, texts)
        is_exported = text(exported).lower() == "true"
        fields.append(Field(data_label, type_, default, _choices(text(items)), text(label), is_exported))
    return Template(tuple(fields))


def missing_fields(template: Template) -> list[str]:
    """Return the data labels of `NEEDED_FIELDS` that the template lacks or has with another type."""
    found = {field.data_label: field.type for field in template.fields}
    return [data_label for data_label, types in NEEDED_FIELDS.items() if found.get(data_label) not in types]


def check_choices(classes: Sequence[str]) -> None:
    """Raise `TemplateError` where a name cannot be an item of a menu; it names all of them."""
    problems = [f"'{name}' is listed {n} times" for name, n in Counter(classes).items() if n > 1]
    for name in dict.fromkeys(classes):
        if not name.strip():
            problems.append(f"{name!r} is blank")
        elif name != name.strip():
            problems.append(f"{name!r} has spaces around it")
        elif any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
            problems.append(f"{ascii(name)} holds a line break or another unreadable character")
    if problems:
        raise TemplateError(
            f"Timelapse cannot show all classes in a menu: {'; '.join(problems)}.",
            hint="Rename these classes or their folders. No template was written.",
        )


def _new_database(classes: Sequence[str]) -> bytes:
    """Return the bytes of a new template; a temporary folder serves, since SQLite gives them from memory only later."""
    with tempfile.TemporaryDirectory(prefix="camera-trap-al-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "new.tdb"
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript(SCHEMA)
            database.execute("INSERT INTO TemplateInfo VALUES (?, ?, '')", (VERSION, VERSION))
            for order, field in enumerate(STANDARD_FIELDS + PROJECT_FIELDS, start=1):
                if field.data_label == "Species" and not classes:
                    field = field._replace(type="Note", tooltip="What the image shows; type its name")
                items = _choice_list(classes) if field.type == "FixedChoice" else ""
                database.execute(INSERT_FIELD, _columns(field, order, items))
        return path.read_bytes()


def _columns(field: _NewField, order: int, items: str) -> dict[str, str | int]:
    return {
        "order": order,
        "type": field.type,
        "default": field.default,
        "label": SHOWN_AS.get(field.data_label, field.data_label),
        "data_label": field.data_label,
        "tooltip": field.tooltip,
        "list": items,
        "exported": _flag(field.data_label not in NOT_EXPORTED),
        "width": str(WIDTHS_PX.get(field.type, USUAL_WIDTH_PX)),
        "copyable": _flag(field.data_label in COPYABLE),
    }


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _choice_list(items: Sequence[str]) -> str:
    if not items:
        return ""
    return menu_text({"IncludeEmptyChoice": True, CHOICES: list(items)})


def read_menu(items: str) -> dict[str, Any] | None:
    """Return what a List column holds, an empty one for no text; None for what Timelapse cannot read either."""
    # Timelapse writes a comma after the last item; a comma inside a text (the first alternative) must stay.
    strict = re.sub(r'("(?:\\.|[^"\\])*")|,(?=\s*[\]}])', r"\1", items)
    try:
        menu = json.loads(strict or '{"IncludeEmptyChoice":true}')
    except (ValueError, RecursionError):
        return None
    return menu if isinstance(menu, dict) and isinstance(menu.get(CHOICES, []), list) else None


def menu_text(menu: Mapping[str, Any]) -> str:
    """Return a menu as a List column holds it."""
    return json.dumps(menu, ensure_ascii=False, separators=(",", ":"))


def _choices(items: str) -> tuple[str, ...]:
    """Return the items of a List column; what Timelapse cannot read is an empty menu, as it is there."""
    return tuple(map(str, (read_menu(items) or {}).get(CHOICES, ())))


def _open_to_read(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise TemplateError(f"There is no template {path}.", hint="Check the name, or have one made with `init`.")
    return sqlite_files.connect(path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk raise into words for a person."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if sqlite_files.is_in_use(error):
            raise in_use(path) from error
        if sqlite_files.lacks_repair(error):
            raise TemplateError(
                f"What wrote the template {path} was cut off; {path.name}-journal beside it tells how to mend that.",
                hint="Open it once in Timelapse, which does so, then try again.",
            ) from error
        raise _unusable(path, str(error)) from error


def in_use(path: Path) -> TemplateError:
    """Return the error for a template that another program holds."""
    return TemplateError(
        f"The template {path} is in use by another program.",
        hint="Close it in Timelapse and in the Template Editor, then try again.",
    )


def _unusable(path: Path, reason: str) -> TemplateError:
    return TemplateError(
        f"{path} cannot be read as a Timelapse template: {reason}.",
        hint="Restore it (Timelapse keeps copies in the folder Backups beside it), or move it elsewhere and have a new"
        " one made with `init`.",
    )


def _check_kind(database: sqlite3.Connection, path: Path) -> None:
    """Refuse what Timelapse would refuse, by its own tests."""
    faults = database.execute("PRAGMA quick_check").fetchall()
    if faults != [("ok",)]:
        raise _unusable(path, str(faults[0][0]))
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "TemplateTable" not in tables or "DataTable" in tables:
        raise _unusable(path, "its tables are not those of a template")
    types = {row[0] for row in database.execute("SELECT Type FROM TemplateTable")}
    if "File" not in types:
        raise _unusable(path, "it has no field for the file name")
    if "TemplateInfo" not in tables or "UtcOffset" in types:
        raise TemplateError(
            f"The template {path} is from a Timelapse before 2.3.",
            hint="Open it once in Timelapse 2.3 or later, which offers to upgrade it, then try again.",
        )
