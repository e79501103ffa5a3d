"""What one label file decides (docs/reliability.md 2.3 to 2.5, docs/architecture.md 6)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.core.decision import COUNTS, KEPT_REJECTIONS, Decision, Skip, TakenLabel, journal_fields
from camera_trap_al.core.intake import IntakeSettings, decide
from camera_trap_al.core.matching import KnownClasses, KnownImages
from camera_trap_al.core.records import ImageKey, LabelRow, Notice, Rejection
from camera_trap_al.errors import LabelFileError

A, B, C, D = (ImageKey("S1", f"{name}.JPG") for name in "ABCD")
STRANGER = ImageKey("S1", "never_asked.JPG")
CLASSES = ["deer", "fox", "None", "Wild boar"]


def rows(*cells: tuple[str, ...]) -> list[LabelRow]:
    return [LabelRow(line, *cell) for line, cell in enumerate(cells, 2)]


def row(key: ImageKey, species: str = "", **others: str) -> tuple[str, ...]:
    more = {"confirmed": "", "prediction": "", "delete_flag": ""} | others
    return (key.relative_path, key.file, species, more["confirmed"], more["prediction"], more["delete_flag"])


def decided(*cells: tuple[str, ...], **options: Any) -> Decision:
    return decided_of(rows(*cells), **options)


def decided_of(items: Iterable[LabelRow | Rejection | Notice], **options: Any) -> Decision:
    labels = options.pop("labels", {})
    words = {k: options.pop(k) for k in ("skip_words", "reserved", "unlabel_token") if k in options}
    settings = IntakeSettings(
        **{k: options.pop(k) for k in ("unrequested", "auto_add", "auto_add_min") if k in options}
    )
    pool = options.pop("pool", [A, B, C, D, STRANGER])
    given_options: dict[str, Any] = {"requested": {A, B, C, D}, "awaited": [A, B, C], "published": {}} | options
    return decide(
        items,
        images=KnownImages(pool),
        classes=KnownClasses(CLASSES, **words),
        current=labels.get,
        settings=settings,
        **given_options,
    )


def codes(decision: Decision) -> list[tuple[int, str]]:
    return [(r.line, r.code) for r in decision.rejections]


def counts(decision: Decision) -> dict[str, int]:
    return {name: n for name, n in decision.counts.items() if n}


def test_labels_of_requested_images_are_taken() -> None:
    decision = decided(row(A, "deer"), row(B, "fox"))
    assert decision.taken == (TakenLabel(A, "deer", None, "oracle"), TakenLabel(B, "fox", None, "oracle"))
    assert counts(decision) == {"rows": 2, "accepted": 2}
    assert (decision.verdict, decision.is_good, decision.requested_left) == ("accepted", True, 1)


def test_a_class_called_none_is_a_label() -> None:
    assert decided(row(A, "None")).taken[0].species == "None"


def test_blank_rows_say_nothing_even_of_images_that_are_not_there() -> None:
    decision = decided(row(A), row(B, " \u3000"), ("nowhere", "x.avi", ""), ("C:\\", "x.jpg", ""))
    assert counts(decision) == {"rows": 4, "blank": 4}
    assert (decision.verdict, decision.is_good) == ("accepted", False)


def test_a_word_that_is_no_class_rejects_its_row_only() -> None:
    decision = decided(row(A, "dear"), row(B, "fox"))
    assert [t.key for t in decision.taken] == [B]
    assert codes(decision) == [(2, "unknown_species")]
    assert decision.rejections[0].suggest == ("deer",)
    assert (decision.verdict, decision.requested_left) == ("partial", 2)


def test_a_file_of_bad_rows_only_is_rejected() -> None:
    decision = decided(row(A, "dear"))
    assert (decision.verdict, decision.is_good) == ("rejected", False)


def test_several_classes_in_one_cell_get_that_advice() -> None:
    rejection = decided(row(A, "deer,fox")).rejections[0]
    assert "one class for each image" in rejection.text
    assert rejection.suggest == ("deer", "fox")


def test_blanks_and_case_are_forgiven_and_counted_with_examples() -> None:
    decision = decided(row(A, "deer "), row(B, "FOX"), row(C, "fox"))
    assert [t.species for t in decision.taken] == ["deer", "fox", "fox"]
    assert (decision.n_normalised, decision.normalised) == (2, (("deer ", "deer"), ("FOX", "fox")))
    assert decision.warnings == ()


@pytest.mark.parametrize("word", ["unlabelled", "Unlabelled", "todo"])
def test_a_reserved_word_is_no_label(word: str) -> None:
    assert codes(decided(row(A, word), reserved=("unlabelled", "todo"))) == [(2, "reserved_word")]


def test_cannot_tell_skips_the_image() -> None:
    decision = decided(row(A, "Unsure"))
    assert decision.skips == (Skip(A, "cannot_tell"),)
    assert (counts(decision), decision.is_good, decision.requested_left) == ({"rows": 1, "skipped": 1}, True, 2)


def test_the_unlabel_token_takes_a_label_back() -> None:
    decision = decided(row(A, "__unlabel__"), labels={A: "deer"}, unlabel_token="__unlabel__")
    assert (decision.unlabels, counts(decision)) == ((A,), {"rows": 1, "unlabelled": 1})
    assert decision.is_good


def test_rows_that_agree_are_one_label() -> None:
    decision = decided(row(A, "deer"), ("S1\\", "a.jpg", "Deer "), row(A, "deer"))
    assert [t.key for t in decision.taken] == [A]
    assert counts(decision) == {"rows": 3, "accepted": 1, "duplicates": 2}
    assert codes(decision) == []


def test_two_species_for_one_image_skip_it_and_name_all_lines() -> None:
    decision = decided(row(A, "deer"), row(B, "fox"), ("s1/", "A.JPG", "fox"), row(A, "deer"))
    assert [t.key for t in decision.taken] == [B]
    assert decision.skips == (Skip(A, "several_species"),)
    assert codes(decision) == [(2, "several_species")]
    assert "lines 2, 4, 5 say 'deer' and 'fox'" in decision.rejections[0].text
    assert counts(decision) == {"rows": 4, "accepted": 1, "rejected": 3}
    assert (decision.verdict, decision.requested_left) == ("partial", 1)


WEAKER = {
    "a blank row": (row(A), "blank"),
    "a skip word": (row(A, "unsure"), "duplicates"),
    "the unlabel token": (row(A, "__unlabel__"), "duplicates"),
    "a delete flag": (row(A, delete_flag="true"), "duplicates"),
    "a confirmation": (row(A, confirmed="true", prediction="fox"), "duplicates"),
}


@pytest.mark.parametrize(("weaker", "name"), WEAKER.values(), ids=WEAKER.keys())
@pytest.mark.parametrize("is_first", [True, False])
def test_a_label_is_stronger_than(weaker: tuple[str, ...], name: str, is_first: bool) -> None:
    both = [weaker, row(A, "deer")] if is_first else [row(A, "deer"), weaker]
    decision = decided(*both, published={A: {"fox"}}, unlabel_token="__unlabel__")
    assert decision.taken == (TakenLabel(A, "deer", None, "oracle"),)
    assert (decision.skips, decision.unlabels) == ((), ())
    assert counts(decision) == {"rows": 2, "accepted": 1, name: 1}


def test_the_same_label_again_is_unchanged_and_good() -> None:
    decision = decided(row(A, "deer"), labels={A: "deer"})
    assert (counts(decision), decision.taken, decision.is_good) == ({"rows": 1, "unchanged": 1}, (), True)


def test_another_label_is_a_correction() -> None:
    decision = decided(row(D, "fox"), labels={D: "deer"})
    assert decision.taken == (TakenLabel(D, "fox", "deer", "oracle"),)
    assert counts(decision) == {"rows": 1, "corrected": 1}


def test_labels_nobody_asked_for_are_ignored_and_counted_whatever_they_say() -> None:
    decision = decided(row(STRANGER, "deer"), row(STRANGER, "nonsense"), row(A, "deer"))
    assert counts(decision) == {"rows": 3, "accepted": 1, "unrequested": 2}
    assert decision.warnings == ()


def test_a_file_without_a_single_requested_image_says_so() -> None:
    decision = decided(row(STRANGER, "deer"), row(A))
    assert (decision.verdict, decision.is_good) == ("accepted", False)
    assert "asked for" in decision.warnings[0]


def test_labels_nobody_asked_for_are_taken_if_wanted() -> None:
    assert decided(row(STRANGER, "deer"), unrequested="accept").taken[0].key == STRANGER


def test_an_unknown_image_is_rejected_with_the_nearest() -> None:
    decision = decided(("S1", "AA.JPG", "deer"), row(B, "fox"))
    assert codes(decision) == [(2, "unknown_image")]
    assert decision.rejections[0].suggest == ("S1/A.JPG",)
    assert decision.rejections[0].path == "S1/AA.JPG"


@pytest.mark.parametrize("folder", ["/S1", "C:\\S1", "../S1", "~/S1", "\\\\server\\S1"])
def test_a_path_outside_is_rejected(folder: str) -> None:
    assert codes(decided((folder, "A.JPG", "deer"), row(B, "fox"))) == [(2, "bad_path")]


def test_an_image_of_a_training_folder_is_rejected() -> None:
    elsewhere = ImageKey("train/deer", "x.JPG")
    decision = decided(row(A, "deer"), row(elsewhere, "deer"), not_pool=lambda key: key == elsewhere)
    assert codes(decision) == [(3, "not_in_pool")]


def test_a_missing_image_keeps_its_label_with_a_warning() -> None:
    decision = decided(row(A, "deer"), unavailable={A})
    assert decision.taken[0].species == "deer"
    assert "missing or cannot be read" in decision.warnings[0]


def test_a_path_found_by_ignoring_case_is_taken_with_a_warning() -> None:
    decision = decided(("s1", "a.jpg", "deer"))
    assert decision.taken[0].key == A
    assert "s1/a.jpg" in decision.warnings[0]


def test_all_paths_in_the_wrong_folder_refuse_the_file_and_name_the_alias() -> None:
    with pytest.raises(LabelFileError) as caught:
        decided(("Season/S1", "A.JPG", "deer"), ("Season/S1", "B.JPG", "fox"), ("Season/S1", "C.JPG", ""))
    assert caught.value.code == "shifted_root"
    assert "'Season/'" in str(caught.value)
    assert 'labels.path_alias = ["Season="]' in str(caught.value)


def test_a_known_image_without_a_label_shows_that_paths_are_not_shifted() -> None:
    stray = ImageKey("Elsewhere", "root.JPG")
    decision = decided(row(A), row(stray, "deer"), pool=[A, B, ImageKey("", "root.JPG")])
    assert codes(decision) == [(3, "unknown_image")]


def test_some_paths_in_the_wrong_folder_reject_those_rows() -> None:
    decision = decided(("Season/S1", "A.JPG", "deer"), row(B, "fox"))
    assert (codes(decision), len(decision.taken)) == ([(2, "unknown_image")], 1)


def test_a_deleted_image_keeps_the_label_it_has_with_a_note() -> None:
    decision = decided(row(A, "deer", delete_flag="TRUE"))
    assert (decision.taken[0].species, decision.skips) == ("deer", ())
    assert "marked for deletion" in decision.warnings[0]


def test_a_deleted_image_without_a_label_is_withdrawn() -> None:
    decision = decided(row(A, delete_flag="True"), row(STRANGER, delete_flag="true"))
    assert decision.skips == (Skip(A, "withdrawn"),)
    assert counts(decision) == {"rows": 2, "skipped": 1, "unrequested": 1}


class TestConfirmed:
    def confirmed(self, prediction: str = "deer", **options: Any) -> Decision:
        options = {"published": {A: {"deer", "fox"}}} | options
        return decided(row(A, confirmed="True", prediction=prediction), **options)

    @pytest.mark.parametrize("prediction", ["deer", "fox", "Fox "])
    def test_a_confirmed_prediction_of_ours_is_a_label(self, prediction: str) -> None:
        name = prediction.strip().lower()
        assert self.confirmed(prediction).taken == (TakenLabel(A, name, None, "confirmed"),)

    @pytest.mark.parametrize("prediction", ["None", "lynx", ""])
    def test_any_other_prediction_is_stale(self, prediction: str) -> None:
        assert codes(self.confirmed(prediction)) == [(2, "stale_confirmation")]

    def test_a_confirmation_never_corrects(self) -> None:
        assert codes(self.confirmed(labels={A: "fox"})) == [(2, "stale_confirmation")]
        assert counts(self.confirmed(labels={A: "deer"})) == {"rows": 1, "unchanged": 1}

    def test_a_confirmation_nobody_asked_for_is_ignored(self) -> None:
        assert counts(self.confirmed(requested=set())) == {"rows": 1, "unrequested": 1}

    def test_a_species_counts_and_not_the_prediction(self) -> None:
        decision = decided(row(A, "fox", confirmed="true", prediction="deer"), published={A: {"deer"}})
        assert decision.taken == (TakenLabel(A, "fox", None, "oracle"),)

    @pytest.mark.parametrize("flag", ["false", "", "1", "yes"])
    def test_only_true_confirms(self, flag: str) -> None:
        decision = decided(row(A, confirmed=flag, prediction="deer"), published={A: {"deer"}})
        assert counts(decision) == {"rows": 1, "blank": 1}

    def test_two_confirmed_species_are_several(self) -> None:
        two = [row(A, confirmed="true", prediction=name) for name in ("deer", "fox")]
        assert decided(*two, published={A: {"deer", "fox"}}).skips == (Skip(A, "several_species"),)


class TestNewClasses:
    def test_a_word_that_occurs_often_enough_becomes_a_class(self) -> None:
        cells = [row(A, "lynx"), row(B, "Lynx"), row(C, "lynx "), row(D, "owl")]
        decision = decided(*cells, auto_add=True, auto_add_min=3)
        assert decision.new_classes == ("lynx",)
        assert {t.species for t in decision.taken} == {"lynx"}
        assert codes(decision) == [(5, "new_name")]
        assert (decision.n_normalised, decision.counts["accepted"]) == (2, 3)

    def test_blanks_around_the_word_do_no_harm(self) -> None:
        decision = decided(row(A, "lynx\t"), row(B, "\tlynx"), row(C, " lynx"), auto_add=True, auto_add_min=3)
        assert decision.new_classes == ("lynx",)

    def test_images_nobody_asked_for_bring_no_class(self) -> None:
        decision = decided(row(A, "lynx"), row(STRANGER, "lynx"), auto_add=True, auto_add_min=2)
        assert decision.new_classes == ()

    @pytest.mark.parametrize("word", ["x" * 301, "d\ufffder", "deer,fox", "unlabelled", "unsure", "?", "???", "-"])
    def test_what_cannot_be_a_class_stays_none(self, word: str) -> None:
        assert decided(row(A, word), auto_add=True, auto_add_min=1).new_classes == ()

    def test_a_new_class_beside_another_label_is_several_species(self) -> None:
        decision = decided(row(A, "deer"), row(A, "lynx"), auto_add=True, auto_add_min=1)
        assert decision.skips == (Skip(A, "several_species"),)

    def test_it_is_off_by_default(self) -> None:
        assert decided(row(A, "lynx"), row(B, "lynx"), row(C, "lynx")).new_classes == ()


def test_rejections_and_examples_are_listed_up_to_a_bound_and_counted_beyond() -> None:
    bad = [Rejection(line, "p", "l", "short_row", "t") for line in range(2, KEPT_REJECTIONS + 3)]
    spelled = rows(*(row(key, name) for key, name in zip([A, B, C, D], ["DEER", "Deer", "deeR", "FOX"], strict=True)))
    decision = decided_of([*bad, *spelled])
    assert (len(decision.rejections), decision.counts["rejected"]) == (KEPT_REJECTIONS, KEPT_REJECTIONS + 1)
    assert (len(decision.normalised), decision.n_normalised) == (3, 4)


def test_what_the_reader_rejects_and_notes_is_passed_on() -> None:
    items = [Notice("look"), *rows(row(A, "deer")), Rejection(3, "p", "l", "short_row", "t"), Notice("again")]
    decision = decided_of(items)
    assert decision.warnings == ("look", "again")
    assert codes(decision) == [(3, "short_row")]
    assert counts(decision) == {"rows": 2, "accepted": 1, "rejected": 1}


def test_rejections_are_sorted_by_line() -> None:
    decision = decided(row(A, "deer"), row(B, "nonsense"), row(A, "fox"))
    assert [r.line for r in decision.rejections] == [2, 3]


def test_a_million_bad_rows_are_counted_and_not_kept() -> None:
    items = (LabelRow(line, "S1", "A.JPG", "nonsense") for line in range(2, 12_002))
    decision = decided_of(items)
    assert (len(decision.rejections), decision.counts["rejected"]) == (10_000, 12_000)


def test_the_journal_gets_plain_values_that_add_up() -> None:
    decision = decided(
        row(A, "deer"), row(B, "fox"), row(C, "unsure"), row(D, "__unlabel__"), row(A, "dear"),
        labels={B: "deer"}, unlabel_token="__unlabel__",
    )  # fmt: skip
    fields = journal_fields(decision)
    rows = [["S1", "A.JPG", "deer", "oracle"], ["S1", "B.JPG", "fox", "oracle"]]
    assert json.loads(json.dumps(fields)) == {**fields, "rows": rows}
    assert fields["rows"] == [*map(tuple, rows)]
    assert (fields["skips"], fields["unlabels"]) == ([["S1", "C.JPG", "cannot_tell"]], [["S1", "D.JPG"]])
    assert fields["answer"]["was"] == [[1, "deer"]]
    assert fields["answer"]["rejected"][0]["code"] == "unknown_species"


SAYS = st.tuples(
    st.sampled_from([A, B, C, D, STRANGER, ImageKey("S1", "none.JPG"), ImageKey("s1", "a.jpg")]),
    st.sampled_from(["", "deer", "Deer", "fox", "nonsense", "unsure", "__unlabel__", "unlabelled"]),
    st.sampled_from(["", "true"]),
    st.sampled_from(["", "deer", "fox"]),
    st.sampled_from(["", "true"]),
)


@given(st.lists(SAYS, max_size=8), st.booleans(), st.sampled_from(["ignore", "accept"]), st.randoms())
def test_every_row_is_counted_once_and_the_order_of_rows_decides_nothing(
    says: list[tuple[ImageKey, str, str, str, str]], auto_add: bool, unrequested: str, random: Any
) -> None:
    options: dict[str, Any] = {
        "labels": {B: "deer", C: "fox"},
        "published": {A: {"deer"}, B: {"fox"}, C: {"fox"}},
        "unlabel_token": "__unlabel__",
        "auto_add": auto_add,
        "auto_add_min": 2,
        "unrequested": unrequested,
    }
    cells = [(key.relative_path, key.file, *others) for key, *others in says]
    decision = decided(*cells, **options)
    assert sum(decision.counts[name] for name in COUNTS if name != "rows") == decision.counts["rows"] == len(cells)
    assert len({t.key for t in decision.taken}) == len(decision.taken)
    assert not {t.key for t in decision.taken} & ({s.key for s in decision.skips} | set(decision.unlabels))
    assert decision.counts["accepted"] + decision.counts["corrected"] == len(decision.taken)
    mixed = random.sample(cells, len(cells))
    again = decided(*mixed, **options)
    assert sorted(map(str, again.taken)) == sorted(map(str, decision.taken))
    assert (set(again.skips), set(again.unlabels)) == (set(decision.skips), set(decision.unlabels))
    assert (again.counts, again.verdict) == (decision.counts, decision.verdict)
