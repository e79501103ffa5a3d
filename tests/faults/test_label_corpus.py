"""Label files made by hand, one by one, and what the contract says of each (docs/reliability.md 2.2 to 2.5).

The program and the oracle have to agree with what was written by hand.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract_oracle import Outcome, World, differences, judge
from intake_world import answer_of, receipt_of
from label_corpus_bytes import COLUMNS, FORMS, LINES
from label_corpus_rows import PATHS, ROWS, SETTINGS, WORDS

from camera_trap_al.core.records import ImageKey
from camera_trap_al.labels.receipts import report_text

pytestmark = pytest.mark.faults

SHORT = {name: f"S1/{name}.JPG" for name in "abcden"} | {"r": "r.JPG"}
PATHS_OF_POOL = (
    *SHORT.values(), "S1/D2/a.JPG", "2023/y.JPG", "007/x.JPG", "NA/x.JPG", "Forêt/été.JPG", "Case/x.JPG", "Case/X.JPG",
    unicodedata.normalize("NFD", "Zoë") + "/a.JPG", "S 1/IMG 1.JPG", "=cmd/-1.JPG", "semi;colon/x,y.JPG", "鹿/写真.JPG",
)  # fmt: skip
CLASSES = (
    "deer", "fox", "Wild boar", "None", "NA", "null", "nan", "1", "7", "007", "True", "café", "鹿", "Bird", "Bird of prey",
    "=boar", "N/A", "-", "2024-01-01", "1e5", 'say "moo"', "cat, wild",
)  # fmt: skip
POOL = frozenset(tuple(ImageKey.of(path)) for path in PATHS_OF_POOL)
A, B, D, E, N = (tuple(ImageKey.of(SHORT[name])) for name in "abden")
WORLD: dict[str, Any] = {
    "pool": POOL,
    "classes": CLASSES,
    "requested": POOL - {N},
    "held": frozenset({"training", "validation"}),
    "labels": {D: "fox", E: "deer"},
    "published": {
        A: frozenset({"deer"}),
        B: frozenset({"deer", "fox"}),
        D: frozenset({"deer"}),
        N: frozenset({"deer"}),
    },
}
CASES = [(*case, {}) for part in (FORMS, LINES, COLUMNS, PATHS, WORDS, ROWS) for case in part] + SETTINGS


def expected_images(text: str) -> dict[tuple[str, ...], Outcome]:
    """Return image → outcome of a text such as "a=deer|b?withdrawn|d!"."""
    found: dict[tuple[str, ...], Outcome] = {}
    for part in filter(None, text.split("|")):
        at = next(i for i, char in enumerate(part) if char in "=?!" and i)
        key = tuple(ImageKey.of(SHORT.get(part[:at], part[:at])))
        rest = part[at + 1 :]
        found[key] = {"=": ("label", rest), "?": ("skip", rest), "!": ("unlabel",)}[part[at]]
    return found


def expected_codes(text: str) -> list[tuple[int, str]]:
    """Return (line, code) of a text such as "2:bad_path 4:short_row"."""
    return [(int(line), code) for line, _, code in (part.partition(":") for part in text.split())]


@pytest.mark.parametrize(
    "case", CASES, ids=[case[0][:60].encode("ascii", "backslashreplace").decode() for case in CASES]
)
def test_a_label_file_gets_the_answer_that_the_contract_gives(case: tuple[Any, ...], tmp_path: Path) -> None:
    _, given, verdict, images, codes, settings = case
    data = given if isinstance(given, bytes) else given.encode("utf-8")
    world = World(**WORLD | settings)
    path = tmp_path / "labels.csv"
    path.write_bytes(data)
    receipt = receipt_of(path, world)
    answer = answer_of(receipt)
    assert (answer.verdict, sorted(answer.rejected)) == (verdict, sorted(expected_codes(codes)))
    assert {key: said[:2] for key, said in answer.images.items()} == expected_images(images)
    assert differences(judge(data, world), answer) == []
    report = report_text(receipt) or ""
    assert len(report.splitlines()) <= 200
    assert all(code in report for _, code in answer.rejected)


def test_the_corpus_is_large_and_no_two_files_have_one_name(figure: Callable[[str, str], None]) -> None:
    assert len(CASES) >= 250
    assert len({case[0] for case in CASES}) == len(CASES)
    figure("label corpus", f"{len(CASES)} label files made by hand, as the contract and its second reading say")
