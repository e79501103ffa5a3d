"""How a program ends when it is told to: signals become events, and what does not heed them is ended after 8 s."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

END_S, LAST_S = 8.0, 1.0
SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")
log = logging.getLogger(__name__)


class Stopping:
    """Two events: `stop` is set for good once the program is told to end, `wake` cuts a wait short.

    `also` are functions to call then, from a thread; `at_last` is called if the program has not ended 8 s later.
    Nothing that is cut off there is lost: whatever is durable is whole, and all else is done again.
    """

    def __init__(self) -> None:
        self.stop, self.wake = threading.Event(), threading.Event()
        self.also: list[Callable[[], None]] = []
        self.at_last: Callable[[], None] = lambda: None
        self._ended = threading.Event()
        self._before: dict[int, object] = {}
        self._wakeup_before = -1
        self._pipe: tuple[int, int] | None = None

    def listen(self) -> None:
        """Take over the signals that end a program. To be called in the main thread."""
        reading, writing = self._pipe = os.pipe()
        with contextlib.suppress(OSError, AttributeError):
            os.set_blocking(writing, False)
        # A handler runs between two instructions of the main thread, which may hold the lock of an event just then or
        # sit in a long computation; so the system itself writes the number of the signal into a pipe.
        self._wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            self._before[number] = signal.signal(number, _nothing)
        threading.Thread(target=self._hear, args=(reading,), daemon=True, name="signals").start()

    def tell(self) -> None:
        """Tell the program to end."""
        self.stop.set()
        self.wake.set()
        for call in list(self.also):
            call()

    def close(self) -> None:
        """Give the signals back: the program ended what it was at, or is about to."""
        self._ended.set()
        if self._pipe is None:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._pipe[1])
        self._pipe = None

    def _hear(self, reading: int) -> None:
        ours = frozenset(self._before)
        while numbers := os.read(reading, 16):
            if not self.stop.is_set() and not ours.isdisjoint(numbers):
                threading.Thread(target=self._end_at_last, daemon=True, name="last resort").start()
                log.info("stopping")
                self.tell()
        os.close(reading)

    def _end_at_last(self) -> None:
        if self._ended.wait(END_S):
            return
        log.warning("stopped amid a long step; it is done again at the next start")
        last = threading.Thread(target=self.at_last, daemon=True, name="last words")
        last.start()
        last.join(LAST_S)
        os._exit(0)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Let a signal pass that the pipe reports."""
