"""How to compute on this machine, by a short measurement: with how many threads, and in which precision. No torch here."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from camera_trap_al.engine import usable_cores

FLOAT32, BF16 = "float32", "bf16"
MEASURE_S = 2.0
MOST_ROUNDS = 3
# Batches that a network computes beside each other, each in one thread: that leaves none waiting for another.
MOST_LANES = 32
# More threads, or bf16, are taken only where they are faster by so much: threads that hardly help would each wait for the
# other as soon as another program runs. A way that is `HOPELESS` times slower is not tried a second time.
PAYS, HOPELESS = 1.05, 3.0
AGAIN_S = 300.0
# Work that got this much slower has a new neighbour: it is measured again at once, but not all the time.
SLOWED, SLOWED_AGAIN_S = 0.6, 20.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """A way to compute: threads of the processor, and `FLOAT32` or `BF16`."""

    threads: int
    precision: str = FLOAT32

    def __str__(self) -> str:
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}, {self.precision}"


Compute = Callable[[Way], int]
"""Computes something small in one way and returns of how many images it was."""


def fixed_threads() -> int:
    """Return the number of threads that `OMP_NUM_THREADS` in the environment asks for, 0 if it asks for none."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() else 0


def thread_counts() -> list[int]:
    """Return the numbers of threads that are worth a try, largest first; only one where the environment fixes it."""
    if fixed := fixed_threads():
        return [fixed]
    counts = [usable_cores()]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    return counts


def measure(
    ways: Sequence[Way], compute: Compute, *, clock: Callable[[], float] = time.perf_counter
) -> tuple[Way, dict[Way, float]]:
    """Try each way for about two seconds in all; a single one is not tried.

    Parameters
    ----------
    ways : at least one

    Returns
    -------
    best : of those about as fast as the fastest (a twentieth), the one with the fewest threads; of these the first
    rates : images a second of each way at its best; empty where there was no choice
    """
    if len(ways) == 1:
        return ways[0], {}

    def rate(way: Way) -> float:
        started = clock()
        n_images = compute(way)
        return n_images / max(clock() - started, 1e-9)

    end = clock() + MEASURE_S
    # The first time of each also makes ready what later ones find there.
    rates = {way: rate(way) for way in ways}
    for _ in range(MOST_ROUNDS):
        fastest = max(rates.values())
        for way in ways:
            if rates[way] * HOPELESS >= fastest:
                rates[way] = max(rates[way], rate(way))
        if clock() >= end:
            break
    near = [way for way in ways if rates[way] * PAYS >= max(rates.values())]
    return min(near, key=lambda way: way.threads), rates


def said(what: str, best: Way, rates: dict[Way, float]) -> str:
    """Return a line for people, such as `training: 9.1 images/s with 2 threads, float32 (1 thread, float32: 6.0)`."""
    if not rates:
        return f"{what}: with {best}, as there is no choice"
    others = "; ".join(f"{way}: {rate:.1f}" for way, rate in rates.items() if way != best)
    return f"{what}: {rates[best]:.1f} images/s with {best} ({others})"


class Pace:
    """The fastest way for work that lasts: measured at its start, every five minutes, and when the work slows down.

    To measure costs about two seconds.

    Two threads that wait for each other at each layer were seen four times slower than one where another program kept
    one of two cores busy, and such programs come and go. Only the number of threads changes on the way: what was begun
    in one precision goes on in it.

    Parameters
    ----------
    what : for the log
    ways : as for `measure`
    compute : something small of the same kind as the work
    """

    def __init__(
        self, what: str, ways: Sequence[Way], compute: Compute, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._compute, self._clock = what, compute, clock
        self.way, rates = measure(ways, compute, clock=clock)
        log.log(logging.INFO if rates else logging.DEBUG, "%s", said(what, self.way, rates))
        self._ways = [way for way in ways if way.precision == self.way.precision]
        self._measured_at, self._usual = clock(), 0.0

    def note(self, n_images: int, seconds: float) -> None:
        """Say how long a part of the work took; where it is time to, measure again and change `way`."""
        if len(self._ways) == 1:
            return
        rate = n_images / max(seconds, 1e-9)
        self._usual = max(self._usual, rate)
        since = self._clock() - self._measured_at
        if since < AGAIN_S and not (rate < SLOWED * self._usual and since >= SLOWED_AGAIN_S):
            return
        before = self.way
        self.way, rates = measure(self._ways, self._compute, clock=self._clock)
        if self.way != before:
            log.info("%s", said(self._what, self.way, rates))
        self._measured_at, self._usual = self._clock(), 0.0
