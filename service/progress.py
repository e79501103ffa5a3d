"""How far a long phase is and how long it still takes: a bar on a terminal, now and then a log line elsewhere.

Also the log lines of a terminal, which do not tear a bar.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from camera_trap_al.core.durations import time_left
from camera_trap_al_service.logs import LineFormatter

if TYPE_CHECKING:
    from tqdm import tqdm  # imported where a bar is drawn: half of what the verb `status` would take

SHOW_AFTER_S = 2.0
LINE_EVERY_S = 60.0
RATE_OVER_S = 180.0
SAMPLE_EVERY_S = 1.0
LEAST_SPAN_S = 10.0
WITH_TOTAL = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
WITHOUT_TOTAL = "{desc}: {n_fmt}{postfix}"
WORDS = {
    "downloading": ("fetching start weights", "bytes"),
    "measuring": ("measuring mean and standard deviation", "images"),
    "training": ("training the network", "mini-batches"),
    "embedding": ("embedding", "images"),
    "finishing": ("saving the network", "parts"),
    "comparing": ("comparing it with the network before", "fits"),
    "looking for images": ("looking for images", "seen"),
    "classifying": ("classifying", "images"),
}
log = logging.getLogger(__name__)


def how_far(phase: str, done: int, total: int | None, left_s: float | None) -> str:
    """Return how far a phase is, such as "embedding: 1,200 of 30,000 images, about 12 min left"."""
    name, unit = WORDS.get(phase, (phase, ""))
    text = f"{name}: {done:,}" + (f" of {total:,}" if total else "") + (f" {unit}" if unit else "")
    return text if left_s is None else f"{text}, {time_left(left_s)}"


def _is_watched() -> bool:
    """Return whether standard error is a terminal; a program without a window has none at all."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


class Pace:
    """How long one phase still takes, by what the last three minutes of it brought.

    What was before a pause, such as a computer that slept, counts no more than what is older.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, done: int) -> None:
        """Take note of how much is done now."""
        now = self._clock()
        while self._seen and now - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()
        if len(self._seen) > 1 and now - self._seen[-2][0] < SAMPLE_EVERY_S:
            self._seen.pop()
        self._seen.append((now, done))

    def left_s(self, total: int | None) -> float | None:
        """Return the seconds until `total` is done, or None where that cannot be known."""
        if not total or not self._seen:
            return None
        (began, first), (now, done) = self._seen[0], self._seen[-1]
        if now - began < LEAST_SPAN_S or done <= first or done >= total:
            return None
        return (total - done) * (now - began) / (done - first)


class Bars:
    """One phase at a time. On a terminal a bar for what takes over two seconds; elsewhere a log line a minute.

    `clock` returns seconds that only grow; its value when a phase began means nothing to others.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bar: tqdm[None] | None = None
        self._phase, self._done = "", 0
        self._total: int | None = None
        self._pace = Pace(clock)
        self._began = self._said = 0.0
        self._started = ""

    def show(self, phase: str, done: int, total: int | None = None) -> None:
        """Show how far a phase is, of a total if that is known; a new phase ends the one before."""
        if phase != self._phase or done < self._done:
            self.close()
            self._phase, self._pace = phase, Pace(self._clock)
            self._began = self._said = self._clock()
            self._started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._done, self._total = done, total
        self._pace.note(done)
        if _is_watched():
            # A terminal that was closed must not end the work.
            with contextlib.suppress(OSError, ValueError):
                self._draw()
        elif self._clock() - self._said > LINE_EVERY_S and done != total:
            self._said = self._clock()
            log.info("%s", how_far(phase, done, total, self._pace.left_s(total)))

    def facts(self) -> dict[str, Any]:
        """Return the phase for `status.json`: its name, done, total, since when, and the seconds left if known.

        Nothing between phases, and of one that is done.
        """
        if not self._phase or self._done == self._total:
            return {}
        facts = {"phase": self._phase, "done": self._done, "total": self._total, "started": self._started}
        left_s = self._pace.left_s(self._total)
        return facts if left_s is None else {**facts, "left_s": round(left_s)}

    def close(self) -> None:
        """End the phase, and take its bar away."""
        if self._bar is not None:
            with contextlib.suppress(OSError, ValueError):
                self._bar.close()
        self._bar, self._phase, self._done = None, "", 0

    def reporter(self, phase: str) -> Callable[[int, int], None]:
        """Return a function of (done, total) that shows one phase."""
        return lambda done, total: self.show(phase, done, total)

    def _draw(self) -> None:
        if self._bar is None and self._clock() - self._began > SHOW_AFTER_S and self._done != self._total:
            name = WORDS.get(self._phase, (self._phase, ""))[0]
            from tqdm import tqdm

            form = WITH_TOTAL if self._total else WITHOUT_TOTAL
            self._bar = tqdm(total=self._total, desc=name, bar_format=form, leave=False, file=sys.stderr)
        if self._bar is not None:
            left_s = self._pace.left_s(self._total)
            self._bar.total, self._bar.bar_format = self._total, WITH_TOTAL if self._total else WITHOUT_TOTAL
            self._bar.set_postfix_str("" if left_s is None else time_left(left_s), refresh=False)
            self._bar.update(self._done - self._bar.n)


class _BarHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            from tqdm import tqdm

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
