"""Spans of time in a person's words."""

from __future__ import annotations


def in_time(seconds: float) -> str:
    """Return how long something took: "4.2 s", "12 min 5 s", "3 h 20 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def time_left(seconds: float) -> str:
    """Return how long something still takes, as a guess: "about 12 min left"."""
    if seconds < 60:
        return "less than a minute left"
    if seconds < 90 * 60:
        return f"about {seconds / 60:.0f} min left"
    if seconds < 36 * 3600:
        return f"about {round(seconds / 1800) / 2:g} h left"
    return f"about {seconds / 86400:.0f} days left"
