"""What a benchmark row is, what it measures, and the registry of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from camera_trap_al.registry import Registry


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Parameters
    ----------
    text : what was measured, with sizes
    value, unit : such as 3.2, "s"
    most, least : the target: at most, or at least, this; None where the number only informs
    note : sizes, limits and what else a reader must know
    reference : the same, measured in the same run with the plain reference (`plain.py`); None where there is none
    """

    text: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None
    note: str = ""
    reference: float | None = None

    @property
    def is_missed(self) -> bool:
        """Whether it falls short of its target; a number that is none (nan) does."""
        above = self.most is not None and not self.value <= self.most
        return above or (self.least is not None and not self.value >= self.least)


@dataclass(frozen=True)
class Run:
    """One run of the benchmarks.

    Parameters
    ----------
    folder : empty, on disk; a row may fill it
    long : whether plain references run at full size, however long they take
    tiny : whether sizes are to be so small that the row takes seconds: nothing is measured, only that it still runs
    data : full-resolution photographs, or None where there are none
    """

    folder: Path
    long: bool = False
    tiny: bool = False
    data: Path | None = None


RowFunction = Callable[[Run], Iterable[Figure]]
rows: Registry[RowFunction] = Registry("benchmark row")
