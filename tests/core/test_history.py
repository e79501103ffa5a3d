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
