"""Typed names that are no class yet: which become one, which wait, and what is asked about them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.core.decision import Decision, Skip, journal_fields
from camera_trap_al.core.history import History
from camera_trap_al.core.intake import IntakeSettings, decide
from camera_trap_al.core.matching import KnownClasses, KnownImages, folded
from camera_trap_al.core.new_names import NewName, spelled_alike, weigh_names
from camera_trap_al.core.records import ImageKey, LabelRow

KEYS = [ImageKey("S1", f"{i}.JPG") for i in range(9)]
A, B, C, D, *_ = KEYS


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Deer", "deer"),
        (" deer ", "deer"),
        ("Lièvre", "lievre"),
        ("wild boar", "Wild-Boar"),
        ("wild  boar", "wildboar"),
        ("de\u200ber", "deer"),
        ("dеer", "deer"),  # the second letter is Cyrillic
        ("=deer", "deer"),
        ("dear", "deer"),
        ("foxx", "fox"),
        ("mountain loin", "mountain lion"),
        ("hedgehgo", "hedgehog"),
        ("species 1", "Species-1"),
        ("고라니", "고라이"),
    ],
)
def test_other_spellings_are_noticed_either_way_round(one: str, other: str) -> None:
    assert spelled_alike(one, other) and spelled_alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "rat"),
        ("red deer", "roe deer"),
        ("deer", "deer fox"),
        ("goat", "boar"),
        ("species 1", "species 2"),
        ("7", "007"),
        ("7.0", "7"),
        ("?", "deer"),
        ("?", "!"),
        ("", "deer"),
        ("鹿", "虎"),
        ("black bear", "brown bear"),
    ],
)
def test_other_names_are_not_taken_for_spellings(one: str, other: str) -> None:
    assert not spelled_alike(one, other) and not spelled_alike(other, one)


@settings(max_examples=40)
@given(st.text(max_size=12), st.text(max_size=12))
def test_likeness_is_mutual_and_every_name_is_like_itself(one: str, other: str) -> None:
    assert spelled_alike(one, one) and spelled_alike(one, other) == spelled_alike(other, one)


def weighed(*typed: tuple[ImageKey, str], least: int = 1, **waiting: Any) -> dict[str, NewName]:
    return weigh_names(typed, waiting.get("waiting", {}), ("deer",), least=least)


def test_the_commoner_of_two_spellings_becomes_the_class_and_the_other_is_asked_about() -> None:
    found = weighed((A, "lynks"), (B, "lynx"), (C, "lynx"))
    assert found["lynx"] == NewName("lynx", 2, (), True)
    assert found["lynks"] == NewName("lynks", 1, (), True), "two letters differ"
    found = weighed((A, "wolff"), (B, "wolf"), (C, "Wolf"))
    assert found["wolf"].is_class and found["wolff"] == NewName("wolff", 1, (found["wolf"].name,), False)


def test_rows_that_wait_count_together_over_files() -> None:
    assert not weighed((A, "lynx"), (B, "lynx"), least=3)["lynx"].is_class
    waiting = {A: "Lynx", B: "lynx"}
    assert not weighed((A, "lynx"), (B, "lynx"), least=3, waiting=waiting)["lynx"].is_class, "the same images again"
    assert weighed((B, "lynx"), (C, "lynx"), least=3, waiting=waiting)["lynx"] == NewName("lynx", 3, (), True)


def test_another_spelling_becomes_a_class_when_it_is_typed_again_for_another_image() -> None:
    assert not weighed((A, "dear"), (B, "dear"))["dear"].is_class, "twice in one file may be one slip"
    again = weighed((A, "dear"), waiting={A: "dear"})
    assert not again["dear"].is_class, "a file that holds the same rows once more says nothing new"
    assert weighed((A, "dear"), (B, "dear"), waiting={A: "dear", C: "dear"})["dear"].is_class
    assert weighed((B, "dear"), waiting={A: "dear"})["dear"] == NewName("dear", 2, ("deer",), True)


def test_the_same_letters_are_no_new_class_however_often_they_are_typed() -> None:
    for name in ("de er", "Déer", "deer-"):
        assert weighed((B, name), waiting={A: name})[folded(name)].like == ("deer",)
        assert not weighed((B, name), waiting={A: name})[folded(name)].is_class


def test_an_export_of_all_images_is_a_later_file_too() -> None:
    assert weighed((A, "dear"), (B, "dear"), waiting={A: "dear"})["dear"].is_class
    assert not weighed((A, "dear"), (A, "dear"), waiting={A: "dear"})["dear"].is_class


def test_an_image_that_is_named_in_three_rows_counts_once() -> None:
    assert weighed((A, "lynx"), (A, "lynx"), (A, "lynx"), least=2)["lynx"] == NewName("lynx", 1)


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(["dear", "lynx", "Lynx ", "lynxx", "owl"]))),
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["dear", "lynx", "bat"])),
    st.integers(1, 3),
    st.randoms(),
)
def test_the_order_of_rows_decides_nothing(
    typed: list[tuple[ImageKey, str]], waiting: dict[ImageKey, str], least: int, random: Any
) -> None:
    mixed, turned = random.sample(typed, len(typed)), dict(reversed(waiting.items()))
    assert weigh_names(mixed, turned, ("deer",), least=least) == weigh_names(typed, waiting, ("deer",), least=least)


def test_a_file_of_a_thousand_names_is_weighed_and_not_compared_to_the_end() -> None:
    typed = [(ImageKey("", f"{i}.jpg"), f"note number {chr(97 + i % 26)}{i}") for i in range(3000)]
    assert len(weigh_names(typed, {}, ("deer",), least=1)) == 3000


def decided(history: History, rows: list[tuple[ImageKey, str]], least: int = 3) -> Decision:
    return decide(
        [LabelRow(line, *key, species) for line, (key, species) in enumerate(rows, 2)],
        images=KnownImages(KEYS),
        classes=KnownClasses(history.classes),
        requested=set(KEYS),
        awaited=history.awaited(),
        current=history.label_of,
        published={},
        settings=IntakeSettings(auto_add=True, auto_add_min=least),
        waiting=history.waiting,
    )


def take(history: History, rows: list[tuple[ImageKey, str]], least: int = 3) -> tuple[Decision, list[ImageKey]]:
    """Let a file be taken as the program does; return what was decided, and which images changed."""
    decision, seq = decided(history, rows, least), history.end + 1
    file = {"name": f"{seq}.csv", "sha256": str(seq), "mtime_ns": seq, "round": 1}
    return decision, history.apply({"seq": seq, "kind": "labels", **file, **journal_fields(decision)})


@pytest.fixture
def history() -> History:
    classes = {"seq": 1, "kind": "classes", "names": ["deer"]}
    facts = {"strategy": "uniform", "seed": 1, "learner": 0, "checkpoint": 0, "predictions": []}
    return History.of([classes, {"seq": 2, "kind": "request", "round": 1, "keys": [[*key] for key in KEYS], **facts}])


def test_an_image_with_a_new_name_needs_no_other_answer_and_has_its_label_once_the_name_is_a_class(
    history: History,
) -> None:
    decision, _ = take(history, [(A, "lynx"), (B, "deer")])
    assert (decision.waiting, decision.skips) == (((A, "lynx"),), (Skip(A, "new_name"),))
    (refused,) = decision.rejections
    assert (refused.line, refused.code, refused.suggest) == (2, "new_name", ())
    assert "1 of the 3 images" in refused.text and decision.verdict == "partial"
    assert A not in history.awaited() and history.label_of(A) is None
    _, changed = take(history, [(C, "lynx"), (D, " LYNX")])
    assert history.classes == ["deer", "lynx"] and set(changed) == {A, C, D} and not history.waiting
    assert {history.label_of(key) for key in (A, C, D)} == {"lynx"} and A not in history.skips
    assert history.labels_since(3) == 3, "it is a label of the file that made the class"
    assert history.remarks() == {3: [{"what": "named", "seq": 4, "images": 1}]}


@pytest.mark.parametrize(("word", "meant"), [("unsur", "unsure"), ("Unlabeled", "unlabelled")])
def test_a_slip_in_a_word_that_is_no_class_makes_none(history: History, word: str, meant: str) -> None:
    decision, _ = take(history, [(A, word), (B, word)], least=1)
    assert decision.new_classes == () and decision.rejections[0].suggest == (meant,)


def test_two_new_names_in_one_cell_are_no_class_of_their_own(history: History) -> None:
    decision, _ = take(history, [(A, "lynx / owl"), (B, "lynx"), (C, "Owl")], least=1)
    assert set(decision.new_classes) == {"Owl", "lynx"} and [t.key for t in decision.taken] == [B, C]
    (refused,) = decision.rejections
    assert (refused.code, refused.suggest) == ("unknown_species", ("lynx", "Owl")) and "one class for" in refused.text
    assert A in history.awaited()


def test_a_file_that_holds_nothing_but_new_names_is_remembered(history: History) -> None:
    decision, _ = take(history, [(A, "lynx"), (B, "lynx")])
    assert decision.is_good and decision.requested_left == len(KEYS) - 2
    take(history, [(C, "lynx")])
    assert {history.label_of(key) for key in (A, B, C)} == {"lynx"}


def test_a_class_of_the_configuration_lets_what_waits_count(history: History) -> None:
    take(history, [(A, "Dear")], least=1)
    changed = history.apply({"seq": 4, "kind": "classes", "names": ["dear"]})
    assert changed == [A] and history.label_of(A) == "dear"


def test_a_correction_ends_the_waiting_and_counts_for_no_new_class(history: History) -> None:
    take(history, [(A, "dear")], least=1)
    decision, _ = take(history, [(A, "deer"), (B, "dear")], least=1)
    assert history.label_of(A) == "deer" and decision.new_classes == ()
    assert list(history.waiting) == [B] and decision.rejections[0].suggest == ("deer",)


def test_a_skip_or_a_label_taken_back_ends_the_waiting(history: History) -> None:
    take(history, [(A, "lynx"), (B, "lynx")])
    take(history, [(A, "unsure")])
    assert list(history.waiting) == [B] and history.skips[A] == ("cannot_tell", 4)
    history.apply({"seq": 5, "kind": "labels", "name": "5.csv", "sha256": "5", "mtime_ns": 5, "unlabels": [[*B]]})
    assert not history.waiting and B in history.awaited()


def test_a_labelled_image_keeps_its_label_whatever_new_name_it_is_given(history: History) -> None:
    take(history, [(A, "deer")])
    decision, _ = take(history, [(A, "lynx")])
    assert decision.waiting == () and history.label_of(A) == "deer" and A not in history.skips


def test_two_new_names_for_one_image_leave_it_asked_for(history: History) -> None:
    decision, _ = take(history, [(A, "lynx"), (A, "owl"), (B, "deer")])
    assert decision.waiting == () and A in history.awaited()


def test_an_undo_of_the_file_that_made_the_class_lets_the_others_wait_again(history: History) -> None:
    take(history, [(A, "lynx")])
    take(history, [(B, "lynx"), (C, "lynx")])
    assert set(history.apply({"seq": 5, "kind": "undo", "withdraws": 4, "wish": "w"})) >= {A, B, C}
    assert history.waiting == {A: "lynx"} and history.label_of(A) is None and history.skips[A][0] == "new_name"
    assert history.classes == ["deer"] and history.remarks() == {4: [{"what": "undone", "seq": 5, "images": 2}]}
    history.apply({"seq": 6, "kind": "undo", "withdraws": 5, "wish": "v"})
    assert {history.label_of(key) for key in (A, B, C)} == {"lynx"}


WORDS = ["lynx", "Lynx", "owl", "dear", "deer", "unsure"]
SAYS = st.lists(st.tuples(st.sampled_from(KEYS[:5]), st.sampled_from(WORDS)))


@given(st.lists(SAYS, max_size=5), st.integers(1, 3), st.integers(0, 4))
def test_a_restart_comes_to_the_same_and_nothing_both_waits_and_has_a_label(
    files: list[list[tuple[ImageKey, str]]], least: int, undone: int
) -> None:
    lines: list[dict[str, Any]] = [{"seq": 1, "kind": "classes", "names": ["deer"]}]
    running = History.of(lines)
    for rows in files:
        fields = journal_fields(decided(running, rows, least))
        seq = len(lines) + 1
        lines.append({"seq": seq, "kind": "labels", "name": f"{seq}", "sha256": "", "mtime_ns": seq, **fields})
        before = dict(running.labels), dict(running.skips)
        changed = set(running.apply(lines[-1]))
        after = running.labels, running.skips
        differs = {k for was, now in zip(before, after, strict=True) for k in {*was, *now} if was.get(k) != now.get(k)}
        assert differs <= changed
    if 2 <= undone <= len(lines):
        lines.append({"seq": len(lines) + 1, "kind": "undo", "withdraws": undone, "wish": "w"})
        before = dict(running.labels), dict(running.skips)
        changed = set(running.apply(lines[-1]))
        assert {k for k in KEYS if before[0].get(k) != running.labels.get(k)} <= changed
        assert {k for k in KEYS if before[1].get(k) != running.skips.get(k)} <= changed
    again = History.of(lines)
    assert (again.labels, again.skips, again.waiting) == (running.labels, running.skips, running.waiting)
    assert not set(running.waiting) & set(running.labels)
    assert all(running.skips[key][0] == "new_name" for key in running.waiting)


def test_names_of_a_list_of_classes_are_not_asked_about() -> None:
    found = weigh_names([(A, "dear"), (B, "bear"), (C, "Bear")], {}, ("deer",), least=1, asks=False)
    assert {name.name for name in found.values() if name.is_class} == {"dear", "bear"}
