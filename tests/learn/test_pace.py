"""How the fastest way to compute is found, and found again; by a clock that only the work moves on."""

import pytest

from camera_trap_al.learn.pace import (
    AGAIN_S,
    BF16,
    FLOAT32,
    MOST_ROUNDS,
    PAYS,
    SLOWED_AGAIN_S,
    Pace,
    Way,
    measure,
    thread_counts,
)

TWO, ONE, HALF = Way(2), Way(1), Way(2, BF16)


@pytest.fixture(autouse=True)
def the_fastest_pays(monkeypatch):
    """Undo for these tests what all others need, that one way is as good as another."""
    monkeypatch.setattr("camera_trap_al.learn.pace.PAYS", PAYS)
    monkeypatch.setattr("camera_trap_al.learn.pace.MOST_ROUNDS", MOST_ROUNDS)


class Machine:
    """A clock and a processor: `rates` says how many images a second each way computes now."""

    def __init__(self, rates):
        self.rates, self.now, self.tried = dict(rates), 0.0, []

    def clock(self):
        return self.now

    def compute(self, way):
        self.tried.append(way)
        self.now += 4 / self.rates[way]
        return 4


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({TWO: 20.0, ONE: 11.0, HALF: 3.0}, TWO),
        ({TWO: 20.0, ONE: 11.0, HALF: 40.0}, HALF),
        ({TWO: 20.0, ONE: 80.0, HALF: 40.0}, ONE),
        ({TWO: 20.5, ONE: 20.0, HALF: 20.8}, ONE),
        ({TWO: 20.0, HALF: 20.8}, TWO),
    ],
)
def test_more_threads_or_another_precision_are_chosen_where_they_are_faster_by_more_than_chance(rates, best):
    machine = Machine(rates)
    chosen, measured = measure(list(rates), machine.compute, clock=machine.clock)
    assert chosen == best and measured == pytest.approx(rates)


def test_what_is_hopeless_is_tried_once():
    machine = Machine({TWO: 200.0, ONE: 110.0, HALF: 3.0})
    measure([TWO, ONE, HALF], machine.compute, clock=machine.clock)
    assert machine.tried.count(HALF) == 1 and machine.tried.count(TWO) == machine.tried.count(ONE) > 1


def test_slow_networks_are_not_tried_for_long_and_a_single_way_not_at_all():
    machine = Machine({TWO: 2.0, ONE: 1.0})
    measure([TWO, ONE], machine.compute, clock=machine.clock)
    assert machine.tried == [TWO, ONE, TWO, ONE]
    assert measure([TWO], machine.compute, clock=machine.clock) == (TWO, {})
    assert len(machine.tried) == 4


def work(machine, pace, parts, n_images=40):
    for _ in range(parts):
        started = machine.now
        machine.now += n_images / machine.rates[pace.way]
        pace.note(n_images, machine.now - started)


def test_threads_that_a_busy_neighbour_slows_down_are_given_up_and_taken_again_when_it_is_gone(caplog):
    caplog.set_level("INFO")
    machine = Machine({TWO: 20.0, ONE: 11.0})
    pace = Pace("training", [TWO, ONE], machine.compute, clock=machine.clock)
    work(machine, pace, 12)
    assert pace.way == TWO
    machine.rates[TWO] = 5.0
    work(machine, pace, 4)
    assert pace.way == ONE
    machine.rates[TWO] = 20.0
    began = machine.now
    while pace.way == ONE:
        assert machine.now - began < 2 * AGAIN_S
        work(machine, pace, 1)
    assert caplog.text.count("training: 20.0 images/s with 2 threads, float32 (1 thread, float32: 11.0)") == 2


def test_steady_work_is_measured_every_five_minutes_and_slow_work_not_all_the_time():
    machine = Machine({TWO: 20.0, ONE: 11.0})
    pace = Pace("training", [TWO, ONE], machine.compute, clock=machine.clock)
    machine.tried.clear()
    work(machine, pace, int(AGAIN_S / 2) - 5)
    assert machine.tried == []
    work(machine, pace, 10)
    assert machine.tried.count(TWO) == machine.tried.count(ONE) == 4
    machine.tried.clear()
    work(machine, pace, int(SLOWED_AGAIN_S / 2) + 1)
    # Both ways are slow now: it is looked at once, and what is usual is learned anew.
    machine.rates = {TWO: 10.0, ONE: 5.0}
    work(machine, pace, 40)
    assert machine.tried.count(TWO) <= 4


def test_the_precision_stays_what_it_was_at_the_start():
    machine = Machine({TWO: 20.0, ONE: 11.0, HALF: 40.0})
    pace = Pace("training", [TWO, ONE, HALF], machine.compute, clock=machine.clock)
    machine.rates[HALF] = 2.0
    work(machine, pace, 30)
    assert pace.way == HALF


def test_the_environment_may_fix_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_counts() == [3]
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("camera_trap_al.learn.pace.usable_cores", lambda: 12)
    assert thread_counts() == [12, 6, 3, 1]
    assert str(Way(1, FLOAT32)) == "1 thread, float32"
