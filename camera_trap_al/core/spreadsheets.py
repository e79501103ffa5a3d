"""What a spreadsheet would run when it opens a CSV of ours: cells are made safe, keys that cannot be are left out."""

from __future__ import annotations

import unicodedata

FORMULA_STARTS = ("=", "+", "-", "@")
NEEDED_TO_HARM = "(|!"
CELL_STARTS = (*FORMULA_STARTS, "\t", "\r", "\0")
GUARD = "'"
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def safe_cell(text: str) -> str:
    """Return free text that no spreadsheet takes for a formula: with a leading `'` where it would."""
    return f"{GUARD}{text}" if text.startswith(CELL_STARTS) else text


def unguarded(text: str) -> str:
    """Return the text that `safe_cell` made this of."""
    return text[1:] if text.startswith(GUARD) and text[1:].startswith(CELL_STARTS) else text


def is_safe_name(path: str, *, allow_formula: bool = False) -> bool:
    """Return whether spreadsheets cannot take the path for a formula, and no line break or control character is in it.

    A path is a key, so it is written as it is or not at all. `allow_formula` lifts the first.
    """
    may_harm = not allow_formula and any(c in path for c in NEEDED_TO_HARM)
    if may_harm and any(part.startswith(FORMULA_STARTS) for part in path.split("/")):
        return False
    return path.isprintable() or not any(unicodedata.category(c) in UNPRINTABLE for c in path)
