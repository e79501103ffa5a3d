from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from camera_trap_al_service import watching
from camera_trap_al_service.watching import LEAST_GAP_S, Coalesced, Watch


class Clock:
    """A clock that runs what is due when it is moved."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def later(self, wait_s: float, call: Callable[[], None]) -> None:
        self.due.append((self.now + wait_s, call))

    def move(self, seconds: float) -> None:
        self.now += seconds
        ripe = [entry for entry in self.due if entry[0] <= self.now]
        self.due = [entry for entry in self.due if entry[0] > self.now]
        for _, call in ripe:
            call()


@pytest.mark.parametrize("copies", [1, 2, 100])
def test_events_however_many_wake_at_most_twice_a_second_and_the_last_one_is_not_lost(copies: int) -> None:
    clock, woken = Clock(), []
    event = Coalesced(lambda: woken.append(clock.now), clock=clock, later=clock.later)
    rng = random.Random(copies)
    last = 0.0
    for _ in range(200):
        for _ in range(copies):
            event()
        last = clock.now
        clock.move(rng.random() * 0.1)
    clock.move(LEAST_GAP_S)
    gaps = [after - before for before, after in zip(woken, woken[1:], strict=False)]
    assert woken[0] == 100.0, "the first one at once"
    assert min(gaps) >= LEAST_GAP_S - 1e-9 and woken[-1] >= last and not clock.due


def test_a_real_change_wakes(tmp_path: Path) -> None:
    woken = threading.Event()
    watch = Watch(tmp_path, woken.set)
    try:
        assert watch.check()
        (tmp_path / "1.csv").write_text("x", encoding="utf-8")
        assert woken.wait(20)
    finally:
        watch.stop()
    assert not watch.check()


def test_no_watches_left_is_said_once_and_left_to_polling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        def schedule(self, *args: object, **kwargs: object) -> None:
            pass

        def start(self) -> None:
            raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(watching, "Observer", Full)
    watch = Watch(tmp_path, lambda: None)
    assert not watch.check() and not watch.check()
    watch.stop()
    assert caplog.text.count("does not work here") == 1 and "inotify watch limit" in caplog.text


def test_a_watch_that_dies_is_noted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(tmp_path, lambda: None)
    assert watch._observer is not None
    watch._observer.stop()
    watch._observer.join(10)
    assert not watch.check() and not watch.check()
    watch.stop()
    assert caplog.text.count("it ended by itself") == 1


def test_a_network_is_not_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "is_network", lambda path: True)
    monkeypatch.setattr(watching, "Observer", lambda: pytest.fail("watched"))
    assert not Watch(tmp_path, lambda: None).check()
