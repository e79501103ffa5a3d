"""Bytes of a label file → cells, written a second time from docs/reliability.md 2.2: in memory, a character at a time."""

from __future__ import annotations

import re
import unicodedata

UTF8_MARK = b"\xef\xbb\xbf"
NO_TABLES = (  # first bytes: zip and xlsx, xls, gzip, JPEG, PNG, PDF, SQLite, UTF-32
    b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"\xff\xd8\xff", b"\x89PNG", b"%PDF", b"SQLite format 3\0",
    b"\xff\xfe\0\0", b"\0\0\xfe\xff",
)  # fmt: skip


class Refused(Exception):
    """The file has to be refused, for one of these codes."""

    def __init__(self, *codes: str) -> None:
        self.codes = frozenset(codes)


def decoded(data: bytes) -> tuple[str, set[str]]:
    """Return the text, and the codes that a file with such bytes may be refused for instead."""
    body = data.removeprefix(UTF8_MARK)
    if not body.strip(b" \t\r\n\x1a,;\xef\xbb\xbf"):
        raise Refused("empty_file", "missing_column")
    if data.startswith(NO_TABLES):
        raise Refused("not_text", "wrong_encoding")
    for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            text = data[2:].decode(name, "replace")
            if len(data) % 2 or text.endswith("\0"):
                raise Refused("incomplete", "wrong_encoding")
            return text, {"wrong_encoding", "not_text"} if "\ufffd" in text else set()
    instead: set[str] = set()
    if b"\0" in data[:256]:
        instead = {"not_text", "wrong_encoding", "incomplete"}
    if data.endswith(b"\0"):
        raise Refused("incomplete", *instead)
    if body.lstrip()[:1] in (b"<", b"{", b"["):
        raise Refused("not_text", "missing_column", "unknown_delimiter")
    try:
        return body.decode("utf-8"), instead
    except UnicodeDecodeError as error:
        if error.end == len(body):
            instead |= {"incomplete"}
        instead |= {"wrong_encoding", "not_text"}
        return body.decode("utf-8" if len(body) < len(data) else "cp1252", "replace"), instead


def cut(text: str, delimiter: str) -> tuple[list[tuple[int, list[str]]], bool]:
    """Return (first line, cells) of each record, and whether a quote is still open at the end.

    Lines end in LF or CRLF or, where the first one ends in CR alone, in any of the three. A quote opens a cell only where
    the next lone quote stands before a delimiter or line end; on one line, a cell may go on after that lone quote.
    """
    first = re.search("[\r\n]+", text)
    if first and "\n" not in first.group():
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    end = f"[^{delimiter}\n]*"
    quoted = re.compile(f'"([^"]*(?:""[^"]*)*)"(?!")[^\\S\n{delimiter}]*(?=[{delimiter}\n]|\\Z)')
    quoted_in_line = re.compile(f'"[^"\n]*(?:""[^"\n]*)*"(?!"){end}')
    bare, lone = re.compile(end), re.compile('"[^"]*(?:""[^"]*)*"(?!")')
    records: list[tuple[int, list[str]]] = []
    at, line, cells, began, is_open = 0, 1, [], 1, False
    while at < len(text):
        found = quoted.match(text, at)
        cell = found[1].replace('""', '"') if found else ""
        if not found:
            is_open = is_open or (text[at] == '"' and not lone.match(text, at))
            found = quoted_in_line.match(text, at) or bare.match(text, at)
            cell = found[0] if found else ""
        cells = [*cells, cell]
        line += text.count("\n", at, found.end() if found else at)
        at = found.end() if found else at
        if at == len(text) or text[at] == "\n":
            line += 1
            records.append((began, cells))
            cells, began = [], line
        elif at == len(text) - 1:
            records.append((began, [*cells, ""]))
        at += 1
    return records, is_open


def table_of(text: str, column: str) -> tuple[list[str], list[tuple[int, list[str]]], set[str]]:
    """Return the header (trimmed, folded), the records below it, and codes that may be given instead."""
    text = text.rstrip("\x1a")
    needed = ["file", "relativepath", column.casefold()]
    said = re.match(r'\s*"?sep=(.)"?[,;\t ]*[\r\n]', text, re.IGNORECASE)
    if said and said[1] not in ",;\t":
        raise Refused("unknown_delimiter")
    readings = []
    for delimiter in said[1] if said else ",;\t":
        records, is_open = cut(text, delimiter)
        filled = [(line, cells) for line, cells in records if any(cell.strip(" \t\r,;\x1a\ufeff") for cell in cells)]
        while said and filled and filled[0][1][0].strip('"\ufeff').casefold().startswith("sep="):
            filled = filled[1:]
        if filled:
            header = _names(filled[0][1])
            readings.append((len(set(needed) & set(header)), len(header), header, filled[1:], is_open))
    if not readings:
        raise Refused("empty_file", "missing_column")
    _, _, header, rows, is_open = max(readings, key=lambda reading: reading[:2])
    instead = {"not_text"} if any(has_control(cell) for cell in header) else set()
    missing = set(needed) - set(header)
    codes = {"missing_column", "unknown_delimiter", "not_text", "long_line"} if len(header) == 1 else {"missing_column"}
    if missing == {needed[2]} and "selected" in header:
        codes = {"selector"}
    if is_open:
        raise Refused("incomplete", "open_quote", *(codes if missing else ()))
    if missing:
        raise Refused(*codes, *instead)  # to do without RelativePath is allowed, not asked for
    rows = [(line, cells) for line, cells in rows if _names(cells)[: len(header)] != header]
    for name in needed:
        at = [i for i, cell in enumerate(header) if cell == name]
        if any(len({cells[i].strip() for i in at if i < len(cells)}) > 1 for _, cells in rows):
            instead |= {"double_column"}
            if any(len(cells) == len(header) and len({cells[i].strip() for i in at}) > 1 for _, cells in rows):
                raise Refused("double_column", *instead)
    return header, rows, instead


def _names(cells: list[str]) -> list[str]:
    return [cell.strip().strip('"\ufeff').strip().casefold() for cell in cells]


def has_control(text: str) -> bool:
    """Return whether a cell holds a control character."""
    return any(unicodedata.category(char) == "Cc" for char in text)
