"""Progress bars on a terminal, nothing elsewhere; and log lines that do not tear them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from camera_trap_al_service.logs import LineFormatter

SHOW_AFTER_S = 2.0


class Bars:
    """One bar at a time on standard error, shown for what takes more than two seconds."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None
        self._phase = ""
        self._began = 0.0

    def show(self, phase: str, done: int, total: int | None = None) -> None:
        """Show how far a phase is, of a total if that is known; a new phase ends the bar before."""
        if not sys.stderr.isatty():
            return
        if phase != self._phase or (self._bar is not None and done < self._bar.n):
            self.close()
            self._phase, self._began = phase, time.monotonic()
        if self._bar is None and time.monotonic() - self._began > SHOW_AFTER_S and done != total:
            self._bar = tqdm(total=total, initial=done, desc=phase, unit="", leave=False, file=sys.stderr)
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._phase = None, ""

    def reporter(self, phase: str) -> Callable[[int, int], None]:
        """Return a function of (done, total) that shows one phase."""
        return lambda done, total: self.show(phase, done, total)


class _BarHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            # A closed terminal or a full disk under the log must not end the work.
            logging.raiseExceptions = False
            self.handleError(record)


def log_to_terminal(level: int = logging.INFO) -> None:
    """Write the program's log to standard error, one line for each thing that happened."""
    handler = _BarHandler()
    handler.setFormatter(LineFormatter(datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("camera_trap_al").setLevel(level)
    logging.getLogger("camera_trap_al_service").setLevel(level)
