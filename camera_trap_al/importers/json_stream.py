"""A large JSON object read in parts: one long list of it entry by entry, the rest as usual."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

CHARS = 1 << 20
# No entry of a list that is meant to be read in parts is longer.
MOST_CHARS = 1 << 26
NUMBER_GOES_ON = 3
SPACE = " \t\r\n"
_decoder = json.JSONDecoder()


class NotJson(ValueError):
    """The text is not JSON, or ends too early; says what and where."""


class JsonStream:
    """Reads one JSON object from a text file, whose memory is that of one entry and a megabyte."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._at, self._begin = "", 0, 0
        self._is_over = False

    def members(self, *long_lists: str) -> Iterator[tuple[str, Any]]:
        """Yield the keys and values of the object; of a list under one of `long_lists` each entry as a member of its own.

        An empty such list yields nothing. Raises `NotJson`.
        """
        self._expect("{")
        if self._next_is("}"):
            return self._end()
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise self._wrong("a name in quotation marks")
            self._expect(":")
            if key in long_lists and self._next_is("["):
                for entry in self._entries():
                    yield key, entry
            else:
                yield key, self._value()
            if self._next_is("}"):
                return self._end()
            self._expect(",")

    def _entries(self) -> Iterator[Any]:
        if self._next_is("]"):
            return
        while True:
            yield self._value()
            if self._next_is("]"):
                return
            self._expect(",")

    def _end(self) -> None:
        if self._peek():
            raise self._wrong("nothing more")

    def _peek(self) -> str:
        """Return the next character that is no space, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._is_over or not self._read_more():
                return ""

    def _next_is(self, wanted: str) -> bool:
        if self._peek() != wanted:
            return False
        self._at += 1
        return True

    def _expect(self, wanted: str) -> None:
        if not self._next_is(wanted):
            raise self._wrong(f"'{wanted}'")

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
                # A number near the end of the text read so far may go on: with `.5`, `e+9`.
                if end + NUMBER_GOES_ON <= len(self._text) or self._is_over:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if self._is_over:
                    is_cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text.rstrip(SPACE))
                    self._at = len(self._text) if is_cut else error.pos
                    raise self._wrong("a value") from None
            except ValueError:
                raise self._wrong("a shorter number") from None
            except RecursionError:
                raise self._wrong("an end of brackets within brackets") from None
            self._read_more()

    def _read_more(self) -> bool:
        """Read on, as much again as an unfinished value has already; return whether there was more."""
        left = len(self._text) - self._at
        if left > MOST_CHARS:
            raise self._wrong("an end of this entry")
        more = self._file.read(max(CHARS, left))
        self._begin += self._at
        self._text, self._at = self._text[self._at :] + more, 0
        self._is_over = not more
        return bool(more)

    def _wrong(self, wanted: str) -> NotJson:
        where = f"after {self._begin + self._at:,} characters"
        if not self._text[self._at :].strip() and self._is_over:
            return NotJson(f"it ends {where}, where {wanted} should follow: it is cut short")
        return NotJson(f"{wanted} is missing {where}")
