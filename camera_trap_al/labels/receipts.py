"""Receipt and report beside each label file: what was taken, what was not, and what to do about it."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from camera_trap_al.core.decision import COUNTS, KEPT_REJECTIONS, Decision, journal_fields, rejection_fields
from camera_trap_al.core.matching import shown
from camera_trap_al.core.records import Rejection
from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.inbox import PrivateCopy, printable_name
from camera_trap_al.store import atomic
from camera_trap_al.store.json_files import read_object

SCHEMA = "receipt/1"
LIST_CUT_AT = KEPT_REJECTIONS
REPORT_LINES = 200
MAX_NAME_BYTES = 255
KEPT = 32_768
RECEIPT, REPORT = ".receipt.json", ".report.txt"

CODES: dict[str, str] = {
    "ambiguous_image": "Write folder and file name just as the image has them, upper and lower case too.",
    "bad_path": "Give the path from the folder of images on, without drive, and with no '..'.",
    "control_character": "Remove the line break or hidden character from that cell.",
    "double_column": "Remove one of the two columns.",
    "empty_file": "Export again; the file holds nothing.",
    "extra_cells": "Put text that holds the separator in quotation marks, or export again.",
    "incomplete": "Copy or export the file again.",
    "long_cell": "Shorten that cell.",
    "long_line": "Export again; this is no table of labels.",
    "missing_column": "Export with the columns File, RelativePath and the label column, spelled so.",
    "new_name": "If the name is meant, give it to another image too, in a later file, or add it to classes.names: then these"
    " labels count by themselves. If not, correct it in Timelapse and export again. The images wait meanwhile.",
    "not_in_pool": "Nothing to do: the folder that a training or validation image lies in gives its class.",
    "not_text": "Export from Timelapse as CSV, or save the table as 'CSV UTF-8'.",
    "open_quote": "Remove the stray quotation mark, or export again.",
    "reserved_word": "Choose a class; an image without a label needs no row.",
    "restored": "If these labels shall be taken once more, take the CSV out of the folder and put it back alone.",
    "selector": "Import the selector into Timelapse, label there, and export from Timelapse.",
    "several_species": "Give the image one class and export again; until then it counts as skipped.",
    "shifted_root": "Set labels.path_alias as shown, or save the Timelapse template in the folder of images.",
    "short_row": "Export again, or add the missing cells.",
    "stale_confirmation": "Set the Species of that image; a confirmation counts only for a prediction of ours.",
    "too_big": "Export a selection instead of all images.",
    "too_many_rows": "Export a selection instead of all images.",
    "unknown_delimiter": "Save the table with comma, semicolon or tab between the columns.",
    "unknown_image": "Check folder and file name; was the image renamed, moved or not found yet?",
    "unknown_species": "Correct the word in Timelapse and export again, or add it to classes.names.",
    "wrong_encoding": "Save the table as UTF-8.",
}
"""Every code that a rejection can have, and how to mend it."""

_FORMULA = re.compile(r"(^|[,;\t]\s*)([=+\-@])")
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR)


_REMARKS = {
    "undone": "Undone by number {seq}: the labels of this file count no more (`labels --undo {seq}` brings them back).",
    "overruled": "{images} in this file got another label from a later file (number {seq}) of the same round, which"
    " counts; see data/conflicts.csv.",
    "overrules": "{images} in this file had another label from an earlier file (number {seq}) of the same round; the"
    " labels of this one count; see data/conflicts.csv.",
    "named": "{images} in this file waited for a new name, which is a class now (number {seq}): the labels count.",
}


def receipt_from_line(line: Mapping[str, Any], remarks: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the receipt of a file that was taken, from the journal alone.

    Parameters
    ----------
    line : its `labels` line: `seq`, `at`, `name`, `sha256`, `mtime_ns` and what `core.decision.journal_fields` returns
    remarks : what later lines say of it (`History.remarks`)
    """
    file = {"file": line["name"], "sha256": line["sha256"], "mtime_ns": line["mtime_ns"]}
    receipt = _receipt(file, line["at"], line["answer"], line, seq=line["seq"])
    receipt["remarks"] = [dict(remark) for remark in remarks]
    for remark in receipt["remarks"]:
        n = remark["images"]
        text = _REMARKS[remark["what"]].format(seq=remark["seq"], images="1 image" if n == 1 else f"{n} images")
        receipt["warnings"].append(text)
    return receipt


def receipt_of_decision(copy: PrivateCopy, decision: Decision, at: str) -> dict[str, Any]:
    """Return the receipt of a file without a good row, which gets no journal line. `at` is the time, in UTC."""
    fields = journal_fields(decision)
    receipt = _receipt(_file(copy), at, fields["answer"], fields)
    receipt["rejected"] = [rejection_fields(rejection) for rejection in decision.rejections]
    return receipt


def receipt_of_error(copy: PrivateCopy, error: LabelFileError, at: str, requested_left: int = 0) -> dict[str, Any]:
    """Return the receipt of a file that cannot be used at all."""
    answer = {
        "verdict": "incomplete" if error.code == "incomplete" else "rejected",
        "rejected": [rejection_fields(Rejection(0, "", "", error.code, str(error)))],
        "warnings": [notice.text for notice in copy.notices],
        "requested_left": requested_left,
    }
    return _receipt(_file(copy), at, answer, {})


def receipt_of_known(copy: PrivateCopy, line: Mapping[str, Any], at: str) -> dict[str, Any]:
    """Return the receipt of a file that is in the journal under another name; `line` is its line there."""
    text = f"The same file was taken in before, as {line['name']}, at {line['at']} (number {line['seq']})."
    answer = {"verdict": "already_known", "warnings": [text]}
    return _receipt(_file(copy), at, answer, {}, seq=line["seq"])


def receipt_of_restored(
    copy: PrivateCopy, line: Mapping[str, Any], at: str, others: Iterable[list[Any]] = ()
) -> dict[str, Any]:
    """Return the receipt of one of several known files that came with new times at once: a copied folder.

    `others` are name and time of those that came with it, by which they are known when their turn comes.
    """
    text = (
        f"Several files that were taken in before came back at once, so this looks like a copied or restored folder and"
        f" none of them was read. This one was taken in at {line['at']} (number {line['seq']}). {CODES['restored']}"
    )
    answer = {"verdict": "already_known", "warnings": [text]}
    restored_with = [list(other) for other in others]
    return _receipt(_file(copy), at, answer, {}, seq=line["seq"]) | {"restored_with": restored_with}


def _rejected(line: int, path: str, label: str, code: str, text: str, suggest: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"line": line, "path": path, "label": label, "code": code, "text": text, "suggest": list(suggest)}


def _file(copy: PrivateCopy) -> dict[str, Any]:
    return {"file": copy.name, "sha256": copy.sha256, "mtime_ns": copy.mtime_ns}


def _receipt(
    file: Mapping[str, Any],
    at: str,
    answer: Mapping[str, Any],
    decided: Mapping[str, Any],
    seq: int | None = None,
) -> dict[str, Any]:
    """Return a receipt; `answer` and `decided` are parts of what `journal_fields` returns."""
    was = dict(answer.get("was", ()))
    rows = decided.get("rows", ())[:LIST_CUT_AT]
    return {
        "schema": SCHEMA,
        **file,
        "seq": seq,
        "time": at,
        "verdict": answer["verdict"],
        "counts": dict.fromkeys(COUNTS, 0) | dict(answer.get("counts", {})),
        "accepted": [
            {"path": _path(*row[:2]), "label": row[2], "was": was.get(i), "provenance": row[3]}
            for i, row in enumerate(rows)
        ],
        "rejected": list(answer.get("rejected", ())),
        "skipped": [
            {"path": _path(folder, name), "reason": reason}
            for folder, name, reason in decided.get("skips", ())[:LIST_CUT_AT]
        ],
        "unlabelled": [_path(*key) for key in decided.get("unlabels", ())[:LIST_CUT_AT]],
        "new_classes": list(decided.get("new_classes", ())),
        "normalised": answer.get("normalised", {"count": 0, "examples": []}),
        "warnings": list(answer.get("warnings", ())),
        "requested_left": answer.get("requested_left", 0),
        "list_cut_at": LIST_CUT_AT,
    }


def _path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def report_text(receipt: Mapping[str, Any]) -> str | None:
    """Return the report that goes with a receipt, or None if nothing was rejected, warned of or is awaited.

    At most 200 lines, the first one the verdict in words; LF line ends.
    """
    if not (receipt["rejected"] or receipt["warnings"] or receipt["requested_left"]):
        return None
    lines = [_guarded(shown(line, 1000)) for line in _report_lines(receipt)]
    if len(lines) > REPORT_LINES:
        rest = f"… and {len(lines) - REPORT_LINES + 1} more lines; see {receipt['file']}{RECEIPT}."
        lines = [*lines[: REPORT_LINES - 1], _guarded(rest)]
    return "\n".join(lines) + "\n"


def _report_lines(receipt: Mapping[str, Any]) -> Iterator[str]:
    yield f"{receipt['file']}: {verdict_in_words(receipt)}"
    if receipt["requested_left"]:
        yield f"Requested images that still wait for a label: {receipt['requested_left']}."
    yield from receipt["warnings"]
    by_code: dict[str, list[Mapping[str, Any]]] = {}
    for rejected in receipt["rejected"]:
        by_code.setdefault(rejected["code"], []).append(rejected)
    for code, rows in by_code.items():
        yield ""
        yield f"{code}: {CODES.get(code, '')}"
        for row in rows:
            where = f"line {row['line']} {row['path']}: ".replace(" :", ":") if row["line"] else ""
            text = row["text"] if row["text"].endswith((".", "?")) else row["text"] + "."
            suggest = f" Did you mean {' or '.join(row['suggest'])}?" if row["suggest"] else ""
            yield f"  {where}{text}{suggest}"
    n_unlisted = receipt["counts"]["rejected"] - sum(row["line"] > 0 for row in receipt["rejected"])
    if n_unlisted > 0 and "several_species" not in by_code:
        yield f"… and {n_unlisted} more rows that were not taken."


def verdict_in_words(receipt: Mapping[str, Any]) -> str:
    """Return what became of a file as one or two sentences."""
    counts, verdict = receipt["counts"], receipt["verdict"]
    if verdict == "already_known":
        return "not read, it is known."
    if verdict in ("rejected", "incomplete") and not counts["rows"]:
        return "nothing was taken. " + " ".join(row["text"] for row in receipt["rejected"])
    said = counts | {"taken": counts["accepted"] + counts["corrected"]}
    parts = [
        text.format(n=said[name], s="" if said[name] == 1 else "s")
        for name, text in _COUNT_TEXTS.items()
        if said[name] or name == "taken"
    ]
    return ", ".join(parts) + "."


_COUNT_TEXTS = {
    "taken": "{n} label{s} taken",
    "corrected": "{n} of them corrected",
    "unchanged": "{n} unchanged",
    "skipped": "{n} image{s} skipped",
    "unlabelled": "{n} label{s} taken back",
    "unrequested": "{n} not asked for and ignored",
    "rejected": "{n} row{s} not taken",
}


def _guarded(text: str) -> str:
    """Return a line that a spreadsheet does not take for a formula."""
    return _FORMULA.sub(r"\1'\2", text)


@functools.lru_cache(maxsize=KEPT)
def receipt_names(name: str) -> tuple[str, str]:
    """Return the file names of receipt and report for the label file `name`.

    A name that would exceed 255 bytes, counting the name under which it is written first, is cut to 100 bytes and a
    hash of the whole.
    """
    raw = os.fsencode(name)
    longest = atomic.partial_of(Path(name + RECEIPT)).name
    if len(os.fsencode(longest)) > MAX_NAME_BYTES:
        start = raw[:100].decode("utf-8", "ignore")
        name = f"{start}~{hashlib.sha256(raw).hexdigest()[:8]}"
    return name + RECEIPT, name + REPORT


def write_receipt(bin_folder: Path, fallback_folder: Path, name: str, receipt: Mapping[str, Any]) -> Path:
    """Write receipt and report for the label file `name` (as the folder spells it) and return where the receipt is.

    They go beside the file or, where nothing can be written there, into `fallback_folder`. The receipt is written
    last; both are durable on return. Raises `OSError` if neither place works.
    """
    try:
        path = _write(bin_folder, name, receipt)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        atomic.make_folder(fallback_folder)
        return _write(fallback_folder, name, receipt)
    for old in receipt_names(name):
        if (fallback_folder / old).is_file():
            atomic.discard_file(fallback_folder / old)
    return path


def _write(folder: Path, name: str, receipt: Mapping[str, Any]) -> Path:
    receipt_path, report_path = (folder / file for file in receipt_names(name))
    text = report_text(receipt)
    if text is not None:
        atomic.replace_bytes(report_path, text.replace("\n", "\r\n").encode("utf-8-sig"))
    elif report_path.is_file():
        atomic.discard_file(report_path)
    atomic.replace_json(receipt_path, receipt)
    return receipt_path


def read_receipt(bin_folder: Path, fallback_folder: Path | None, name: str) -> dict[str, Any] | None:
    """Return which file and which journal line the newest receipt for the label file `name` is of.

    That is `file`, `sha256`, `mtime_ns`, `seq`, `time`, `verdict`, `remarks` and `restored_with`; None if there is no
    receipt that is ours and whole. Without a `fallback_folder` it can only be beside the file.
    """
    file = receipt_names(name)[0]
    # As text: a turn of the loop looks for hundreds.
    found = [_read(os.fspath(folder) + os.sep + file) for folder in (bin_folder, fallback_folder) if folder is not None]
    ours = [receipt for receipt in found if receipt is not None and receipt["file"] == printable_name(name)]
    return max(ours, key=lambda receipt: str(receipt["time"])) if ours else None


def _read(path: str) -> dict[str, Any] | None:
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    return _read_once(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)


@functools.lru_cache(maxsize=KEPT)
def _read_once(path: str, size: int, mtime_ns: int, inode: int) -> dict[str, Any] | None:
    """Read what a receipt is of; it is looked up at each turn of the loop, so it is kept while the file is the same."""
    try:
        receipt = read_object(Path(path))
    except (OSError, ValueError):
        return None
    if receipt.get("schema") != SCHEMA:
        return None
    # Somebody else may have written it, so nothing is taken on trust that is compared later.
    if not all(isinstance(receipt.get(name, ...), kinds) for name, kinds in _OF.items()):
        return None
    lists = {name: receipt.get(name, []) for name in ("remarks", "restored_with")}
    if not all(isinstance(value, list) for value in lists.values()):
        return None
    return {name: receipt[name] for name in _OF} | lists


_OF: dict[str, type | tuple[type, ...]] = {
    "file": str,
    "sha256": str,
    "mtime_ns": int,
    "seq": (int, type(None)),
    "time": str,
    "verdict": str,
}
