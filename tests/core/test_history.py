from __future__ import annotations

from camera_trap_al.core.history import History
from camera_trap_al.core.records import ImageKey

A, B, C = ImageKey("s", "a.jpg"), ImageKey("s", "b.jpg"), ImageKey("", "c.jpg")


def request(seq: int, number: int, *keys: ImageKey) -> dict[str, object]:
    predictions = [["fox", 0.5]] * len(keys)
    facts = {"strategy": "margin", "seed": 1, "learner": 1, "checkpoint": 1}
    return {"seq": seq, "kind": "request", "round": number, "keys": keys, "predictions": predictions, **facts}


def labels(seq: int, *rows: tuple[ImageKey, str], **more: object) -> dict[str, object]:
    facts = {"name": f"{seq}.csv", "sha256": "x", "mtime_ns": seq}
    return {"seq": seq, "kind": "labels", "rows": [[*key, species, "oracle"] for key, species in rows], **facts, **more}


def test_a_round_is_open_until_enough_is_answered() -> None:
    history = History.of([request(1, 1, A, B, C)])
    assert history.open_round(0.9) == 1 and history.awaited() == [A, B, C]
    history.apply(labels(2, (A, "fox")))
    assert history.open_round(0.9) == 1 and history.awaited() == [B, C]
    history.apply({"seq": 3, "kind": "skip", "skips": [[*B, "missing"]]})
    assert history.open_round(0.6) == 0 and history.open_round(0.9) == 1
    history.apply(labels(4, skips=[[*C, "cannot_tell"]]))
    assert history.open_round(1.0) == 0 and history.spent() == 1


def test_a_later_label_corrects_and_a_label_ends_a_skip() -> None:
    history = History.of(
        [labels(1, (A, "fox")), labels(2, (A, "deer"), skips=[[*B, "cannot_tell"]]), labels(3, (B, "fox"))]
    )
    assert history.label_of(A) == "deer" and history.label_of(B) == "fox" and not history.skips
    assert history.labels_since(1) == 2


def test_images_of_which_a_line_says_the_same_share_one_label_in_memory() -> None:
    history = History.of([labels(1, (A, "fox"), (B, "fox"), (C, "deer")), labels(2, (C, "fox"))])
    assert history.labels[A] is history.labels[B] and history.labels[C] == ("fox", "oracle", 2)


def test_an_unlabel_takes_label_and_skip_away() -> None:
    history = History.of([labels(1, (A, "fox")), labels(2, unlabels=[[*A]])])
    assert history.label_of(A) is None and not history.is_answered(A)


def test_a_later_request_and_a_close_end_an_earlier_round() -> None:
    history = History.of([request(1, 1, A), request(2, 2, B)])
    assert history.open_round(0.9) == 2 and history.requested == {A, B} and history.published[A] == {"fox"}
    history.apply({"seq": 3, "kind": "close", "round": 2})
    assert history.open_round(0.9) == 0


def test_classes_grow_sorted_from_lines_of_both_kinds() -> None:
    history = History.of([{"seq": 1, "kind": "classes", "names": ["fox", "Élan"]}, labels(2, new_classes=["deer"])])
    assert history.classes == ["deer", "fox", "Élan"]


def undo(seq: int, withdraws: int) -> dict[str, object]:
    return {"seq": seq, "kind": "undo", "withdraws": withdraws, "wish": f"w{seq}"}


def test_an_undo_brings_earlier_labels_back_and_can_itself_be_undone() -> None:
    history = History.of(
        [
            labels(1, (A, "fox")),
            labels(2, (A, "deer"), (B, "elk"), new_classes=["elk"], skips=[[*C, "cannot_tell"]]),
        ]
    )
    assert sorted(history.apply(undo(3, 2))) == sorted([A, B, C])
    assert history.label_of(A) == "fox" and history.label_of(B) is None and not history.skips
    assert "elk" not in history.classes and history.withdrawn == {2: 3} and history.granted == {"w3": 3}
    assert len(history.taken) == 2, "the file in the bin is not taken again"
    assert sorted(history.apply(undo(4, 3))) == sorted([A, B, C])
    assert history.label_of(A) == "deer" and history.label_of(B) == "elk" and C in history.skips
    assert history.classes == ["elk", "fox"] or "elk" in history.classes
    assert history.withdrawn == {3: 4}


def test_an_undo_leaves_what_later_files_said() -> None:
    history = History.of([labels(1, (A, "fox"), (B, "fox")), labels(2, (A, "deer")), undo(3, 1)])
    assert history.label_of(A) == "deer" and history.label_of(B) is None
    history.apply(undo(4, 2))
    assert history.label_of(A) is None and not history.is_answered(A)
    history.apply(undo(5, 3))
    assert history.label_of(A) == "fox"


def test_a_class_of_a_withdrawn_file_stays_while_another_file_uses_it() -> None:
    history = History.of([labels(1, (A, "elk"), new_classes=["elk"]), labels(2, (B, "elk")), undo(3, 1)])
    assert history.classes == ["elk"] and history.label_of(B) == "elk"


def test_only_what_counts_and_brought_labels_can_be_undone() -> None:
    history = History.of([request(1, 1, A), labels(2, (A, "fox")), undo(3, 2)])
    assert "no label file" in history.undo_problem(1) and "no label file" in history.undo_problem(9)
    assert "undo number 3" in history.undo_problem(2)
    assert history.undo_problem(3) == ""


def test_a_round_that_was_closed_by_a_file_opens_again_with_its_undo() -> None:
    history = History.of([request(1, 1, A, B), labels(2, (A, "fox"), (B, "fox"))])
    assert history.open_round(0.9) == 0
    history.apply(undo(3, 2))
    assert history.open_round(0.9) == 1 and history.awaited() == [A, B]


def test_files_of_one_round_that_disagree_are_remarked_on_both() -> None:
    history = History.of([labels(1, (A, "fox"), (B, "fox"), round=1), labels(2, (A, "deer"), (B, "fox"), round=1)])
    assert history.overruled == {1: {2: [(A, "fox")]}}
    assert history.remarks() == {
        1: [{"what": "overruled", "seq": 2, "images": 1}],
        2: [{"what": "overrules", "seq": 1, "images": 1}],
    }
    history.apply(undo(3, 2))
    assert history.remarks() == {2: [{"what": "undone", "seq": 3, "images": 2}]}


def test_a_correction_in_a_later_round_or_of_the_same_file_is_no_disagreement() -> None:
    again = labels(2, (A, "deer"), round=1) | {"name": "1.csv"}
    history = History.of([labels(1, (A, "fox"), round=1), again, labels(3, (A, "elk"), round=2)])
    assert not history.overruled


def test_an_image_that_was_missing_is_awaited_when_it_is_asked_for_again() -> None:
    history = History.of(
        [request(1, 1, A, B), {"seq": 2, "kind": "skip", "skips": [[*A, "missing"], [*B, "cannot_tell"]]}]
    )
    assert history.awaited() == []
    assert history.apply(request(3, 2, A)) == [A]
    assert history.awaited() == [A] and history.is_answered(B)
    history.apply(labels(4, (C, "fox")))
    history.apply(undo(5, 4))
    assert history.awaited() == [A] and history.is_answered(B), "a replay comes to the same"


def test_a_request_knows_which_images_were_drawn_at_random_and_an_older_one_by_its_strategy() -> None:
    lines = [
        {**request(1, 1, A, B, C), "random": [0, 2]},
        {**request(2, 2, A, B), "random": []},
        {**request(3, 3, A, B), "strategy": "uniform"},
        request(4, 4, A, B),
    ]
    assert [found.random for found in History.of(lines).requests] == [{A, C}, set(), {A, B}, set()]
