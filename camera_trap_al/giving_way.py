"""How a long step gives way to whoever waits for an answer: it ends without a result and is due again."""

from __future__ import annotations

from collections.abc import Callable

from camera_trap_al.errors import StopRequested
from camera_trap_al.taking import bin_files
from camera_trap_al.wishes import pending
from camera_trap_al.work import Work


class GaveWay(Exception):
    """A long step ended without a result; it is due again after what came in between. No failure."""


def give_way(work: Work) -> Callable[[], None]:
    """Return a function for a long step to call now and then.

    It raises `GaveWay` once a label file or a wish has come since then, `StopRequested` once the program is told to end.
    What waited before cannot be taken now, or the step would not have its turn: for that nobody gives way.
    """
    before = _asking(work)

    def tick() -> None:
        if work.stop.is_set():
            raise StopRequested
        if not _asking(work) <= before:
            raise GaveWay

    return tick


def _asking(work: Work) -> frozenset[str]:
    files = bin_files(work)
    return frozenset([*files.unanswered, *files.untaken, *pending(work.folder.wishes)])
