"""Wakes the loop when the bin or the wishes change. Only a help: the listing decides, and comes round anyway."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from camera_trap_al.places import is_network

LEAST_GAP_S = 0.5
STOP_S = 2.0
log = logging.getLogger(__name__)


class Coalesced:
    """Calls `wake` for the first event at once, and for all others of the next half second once, at its end.

    Parameters
    ----------
    clock : monotonic seconds
    later : calls a function after so many seconds
    """

    def __init__(
        self,
        wake: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], None] | None = None,
    ) -> None:
        self._wake = wake
        self._clock = clock
        self._later = later or _later
        self._lock = threading.Lock()
        self._last_s = float("-inf")
        self._is_pending = False

    def __call__(self) -> None:
        """Take note of an event."""
        with self._lock:
            if self._is_pending:
                return
            wait_s = self._last_s + LEAST_GAP_S - self._clock()
            self._is_pending = wait_s > 0
            if not self._is_pending:
                self._last_s = self._clock()
        if wait_s > 0:
            self._later(wait_s, self._fire)
        else:
            self._wake()

    def _fire(self) -> None:
        with self._lock:
            self._is_pending = False
            self._last_s = self._clock()
        self._wake()


def _later(wait_s: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(wait_s, call)
    timer.daemon = True
    timer.start()


class _Waker(FileSystemEventHandler):
    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in ("opened", "closed_no_write"):
            self._wake()


class Watch:
    """Watches a folder until it is stopped; where that does not work, says so once and leaves it to polling.

    Parameters
    ----------
    also : further folders on the same disk
    wake : called at each change, at most twice a second, from another thread
    """

    def __init__(self, folder: Path, wake: Callable[[], None], also: Iterable[Path] = ()) -> None:
        self._folder = folder
        self._observer = None
        if is_network(folder):
            log.info("%s is on a network: it is looked into every few seconds", folder)
            return
        try:
            observer = Observer()
            observer.daemon = True
            waker = _Waker(Coalesced(wake))
            for watched in (folder, *also):
                observer.schedule(waker, str(watched), recursive=False)
            observer.start()
        # The back ends raise OSError (no watches left), and whatever their system libraries do.
        except Exception as error:
            self._give_up(str(error))
            return
        self._observer = observer

    def check(self) -> bool:
        """Return whether changes are noticed; that a watch has died is said once."""
        observer = self._observer
        if observer is not None and not (observer.is_alive() and all(e.is_alive() for e in observer.emitters)):
            self._observer = None
            observer.stop()
            self._give_up("it ended by itself")
        return self._observer is not None

    def stop(self) -> None:
        """End watching."""
        if self._observer is not None:
            # It calls an event that comes while it ends an error.
            logging.getLogger("watchdog").setLevel(logging.CRITICAL)
            self._observer.stop()
            self._observer.join(STOP_S)
            self._observer = None

    def _give_up(self, why: str) -> None:
        log.warning(
            "watching %s does not work here (%s); it is looked into every few seconds instead", self._folder, why
        )
