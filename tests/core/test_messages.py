"""A person is told each thing once, and not too often of one kind."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.core.messages import (
    FINISHED,
    LABELS_WANTED,
    PROBLEM,
    Message,
    Told,
    Trouble,
    announce,
    as_json,
    complain,
    from_json,
)

HOUR = 3600.0


def test_a_round_is_announced_once_and_the_next_one_again() -> None:
    said, told = announce(Told(), 1, "Import it.")
    assert said == [Message(LABELS_WANTED, "Import it.")]
    assert announce(told, 1, "Import it.")[0] == [] == announce(told, 0, "")[0]
    assert announce(announce(told, 0, "")[1], 1, "")[0] == []
    assert announce(told, 2, "")[0] == [Message(LABELS_WANTED, "")]


def test_the_end_is_announced_again_only_after_another_round() -> None:
    said, told = announce(Told(shown=4), FINISHED, "Nothing is asked for now.")
    assert [message.event for message in said] == [FINISHED] and announce(told, FINISHED, "")[0] == []
    assert [message.event for message in announce(announce(told, 5, "")[1], FINISHED, "")[0]] == [FINISHED]


def test_a_trouble_is_told_once_as_long_as_it_lasts() -> None:
    disk = Trouble("disk", "disk", "The disk is full.")
    said, told = complain(Told(), [disk], (), 0.0, HOUR)
    assert said == [Message(PROBLEM, "The disk is full.")]
    for now_s in (1.0, HOUR, 50 * HOUR):
        assert complain(told, [disk], (), now_s, HOUR) == ([], told)


def test_a_trouble_that_was_over_is_told_again_but_not_within_the_hour() -> None:
    disk = Trouble("disk", "disk", "The disk is full.")
    told = complain(Told(), [disk], (), 0.0, HOUR)[1]
    said, told = complain(told, [disk], {"disk"}, HOUR / 2, HOUR)
    assert said == [] and not told.keys
    assert complain(told, [disk], (), HOUR - 1, HOUR)[0] == []
    assert complain(told, [disk], (), HOUR, HOUR)[0]


def test_troubles_of_one_kind_are_told_together_and_other_kinds_apart() -> None:
    troubles = [Trouble("a", "file", "A."), Trouble("disk", "disk", "Full."), Trouble("b", "file", "B.")]
    said, told = complain(Told(), troubles, (), 0.0, HOUR)
    assert [message.text for message in said] == ["A. B.", "Full."]
    assert complain(told, [*troubles, Trouble("c", "file", "C.")], (), 9.0, HOUR)[0] == []
    assert complain(told, [*troubles, Trouble("c", "file", "C.")], (), HOUR, HOUR)[0] == [Message(PROBLEM, "C.")]


def test_a_clock_that_was_set_back_a_year_silences_nothing() -> None:
    told = Told(last={"disk": 365 * 24 * HOUR})
    assert complain(told, [Trouble("disk", "disk", "Full.")], (), 0.0, HOUR)[0]


def test_what_was_kept_comes_back_and_what_is_odd_is_nothing() -> None:
    told = Told(3, frozenset({"a"}), {"disk": 12.5})
    assert from_json(json.loads(json.dumps(as_json(told)))) == told
    assert from_json({"format": 1, "shown": 3, "keys": ["a", 7], "last": {"disk": 12.5, "x": 10**400}}) == told


TROUBLES = st.sampled_from([Trouble(f"{kind}:{n}", kind, f"{n}") for kind in "xy" for n in range(4)])


@given(st.lists(st.tuples(st.lists(TROUBLES, max_size=4), st.integers(0, 20_000)), max_size=12))
def test_of_one_kind_no_two_messages_are_less_than_an_hour_apart(turns: list[tuple[list[Trouble], int]]) -> None:
    told, now_s, last, n_told = Told(), 0.0, dict[str, float](), 0
    for troubles, passed in turns:
        now_s += passed
        before = told.last
        said, told = complain(from_json(json.loads(json.dumps(as_json(told)))), troubles, (), now_s, HOUR)
        changed = {kind for kind, at in told.last.items() if before.get(kind) != at}
        assert len(said) == len(changed)
        assert all(now_s - last.get(kind, -HOUR) >= HOUR for kind in changed)
        last |= dict.fromkeys(changed, now_s)
        n_told += len(said)
    assert n_told <= len(told.keys)


@given(st.dictionaries(st.text(max_size=6), st.none() | st.integers() | st.lists(st.integers()) | st.text()))
def test_what_lies_there_of_another_program_counts_as_nothing(value: dict[str, object]) -> None:
    assert from_json(value | {"format": 2}) == Told()
    from_json(value | {"format": 1})
