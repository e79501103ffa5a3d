"""Which text a file holds: its encoding and line ends, or why it is no text. Reads it in blocks."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from camera_trap_al.errors import LabelFileError

BLOCK_BYTES = 1 << 20
HEAD_BYTES = 1 << 16
UTF16_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_UTF32_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_EXPORT = "In Timelapse use File > Export or import data > Export image/video data in the current selection."
_SAVE_AS = "Open it there, save it as 'CSV UTF-8' and put that file in."
_SAVE_AS_UTF8 = "Save it as UTF-8."
_SIGNATURES = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook (.xlsx)", _SAVE_AS),
    (b"PK\x05\x06", "an empty zip archive", _EXPORT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)", _SAVE_AS),
    (b"\xff\xd8\xff", "a JPEG image", _EXPORT),
    (b"\x89PNG", "a PNG image", _EXPORT),
    (b"GIF8", "a GIF image", _EXPORT),
    (b"SQLite format 3\x00", "a SQLite database, such as Timelapse's .ddb and .tdb files", _EXPORT),
    (b"%PDF", "a PDF document", _EXPORT),
    (b"\x1f\x8b", "a gzip archive", _EXPORT),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _EXPORT),
    (b"Rar!\x1a", "a RAR archive", _EXPORT),
    (b"{\\rtf", "a rich text document", _SAVE_AS),
)
_MARKUP = re.compile(rb"\s*<(!doctype|html|head|body|table|\?xml|!--|script|svg)", re.IGNORECASE)
_JSON = re.compile(rb'\s*(\{\s*["}]|\[\s*[\[{"\]\d])')
_FIRST_BREAK = re.compile(r"\r+\n|\n|\r")


@dataclass(frozen=True)
class TextForm:
    """How to open a text file.

    `newline` is as for `open`: "\\n" where lines end in LF or CRLF, None where the first one ends in a lone CR.
    `is_fallback`: it is no UTF-8, and `encoding` is a guess.
    """

    encoding: str
    errors: str
    newline: str | None
    is_fallback: bool = False


def text_form(path: Path, fallback: str) -> TextForm:
    """Return how to open `path` as text.

    Raises `LabelFileError`, whose code is `empty_file`, `not_text`, `wrong_encoding` or `incomplete`.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        size = file.seek(0, 2)
        file.seek(max(0, size - 2))
        tail = file.read(2)
    if not head:
        raise LabelFileError("The file is empty.", code="empty_file", hint=_EXPORT)
    _refuse_what_is_no_text(head)
    if head[:2] in UTF16_MARKS:
        if size % 2 or tail == b"\0\0":
            raise incomplete("it ends in the middle of a character" if size % 2 else "it ends in empty bytes")
        form = TextForm("utf-16", "replace", _newline(head.decode("utf-16", "replace")))
    else:
        _refuse_utf16_without_mark(head)
        if tail.endswith(b"\0"):
            raise incomplete("it ends in empty bytes")
        form = _eight_bit_form(path, head, fallback)
    return form


def incomplete(why: str) -> LabelFileError:
    """Return the error for a file that looks like a copy that was cut short."""
    return LabelFileError(
        f"The file is not whole: {why}. It looks like a copy or an export that was cut short.",
        code="incomplete",
        hint="Copy or export it again.",
    )


def _refuse_what_is_no_text(head: bytes) -> None:
    for signature, what, advice in _SIGNATURES:
        if head.startswith(signature):
            raise LabelFileError(f"This is {what}, not a CSV file.", code="not_text", hint=advice)
    if head.startswith(_UTF32_MARKS):
        raise LabelFileError("The text is in UTF-32.", code="wrong_encoding", hint=_SAVE_AS_UTF8)
    start = head.removeprefix(codecs.BOM_UTF8)
    if _MARKUP.match(start):
        raise LabelFileError("This is a web page or XML, not a CSV file.", code="not_text", hint=_EXPORT)
    if _JSON.match(start):
        raise LabelFileError("This is JSON, not a CSV file.", code="not_text", hint=_EXPORT)


def _refuse_utf16_without_mark(head: bytes) -> None:
    sample = head[:256]
    half = max(1, len(sample) // 2)
    zeros = sorted((sample[0::2].count(0) / half, sample[1::2].count(0) / half))
    if zeros[0] < 0.2 and zeros[1] > 0.6:
        raise LabelFileError("The text is in UTF-16 and does not say so.", code="wrong_encoding", hint=_SAVE_AS_UTF8)
    if zeros[1] > 0.9 and 0.3 < zeros[0] < 0.7 and sample.count(b"\0\0\0") > len(sample) // 5:
        raise LabelFileError("The text is in UTF-32.", code="wrong_encoding", hint=_SAVE_AS_UTF8)


def _eight_bit_form(path: Path, head: bytes, fallback: str) -> TextForm:
    has_mark = head.startswith(codecs.BOM_UTF8)
    newline = _newline(head.decode("utf-8", "replace"))
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_ascii = not has_mark
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                is_ascii = decoder.decode(block).isascii() and is_ascii
    except UnicodeDecodeError:
        return TextForm("utf-8-sig", "replace", newline) if has_mark else TextForm(fallback, "replace", newline, True)
    if decoder.getstate()[0]:
        if not is_ascii:
            raise incomplete("it ends in the middle of a character")
        return TextForm(fallback, "replace", newline, True)
    return TextForm("utf-8-sig", "strict", newline)


def _newline(start: str) -> str | None:
    found = _FIRST_BREAK.search(start)
    return None if found and found.group() == "\r" else "\n"
