"""What is written back beside a label file (docs/reliability.md 2.6 and 2.8)."""

from __future__ import annotations

import ast
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

import camera_trap_al
from camera_trap_al.core.decision import COUNTS, Decision, Skip, TakenLabel, journal_fields
from camera_trap_al.core.records import ImageKey, Notice, Rejection
from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.inbox import PrivateCopy
from camera_trap_al.labels.receipts import (
    CODES,
    read_receipt,
    receipt_from_line,
    receipt_names,
    receipt_of_decision,
    receipt_of_error,
    receipt_of_known,
    receipt_of_restored,
    report_text,
    write_receipt,
)
from camera_trap_al.store import atomic

AT = "2024-05-01T10:00:00Z"
COPY = PrivateCopy(Path("intake/ab.csv"), "week3.csv", "ab" * 32, 1_714_557_600_000_000_000)
DEAR = Rejection(12, "site/IMG_0007.JPG", "dear", "unknown_species", "'dear' is not a class", ("deer",))
PARTIAL = Decision(
    taken=(
        TakenLabel(ImageKey("site", "IMG_0001.JPG"), "deer", None, "oracle"),
        TakenLabel(ImageKey("", "IMG_0002.JPG"), "fox", "deer", "confirmed"),
    ),
    skips=(Skip(ImageKey("site", "IMG_0003.JPG"), "cannot_tell"),),
    unlabels=(ImageKey("site", "IMG_0004.JPG"),),
    new_classes=("fox",),
    rejections=(DEAR,),
    warnings=("look here",),
    normalised=(("Deer ", "deer"),),
    n_normalised=1,
    counts=dict.fromkeys(COUNTS, 0) | {"rows": 5, "accepted": 1, "corrected": 1, "skipped": 1, "rejected": 1},
    requested_left=38,
)


def line_of(decision: Decision, **fields: Any) -> dict[str, Any]:
    facts = {"seq": 418, "at": AT, "kind": "labels", "name": COPY.name, "sha256": COPY.sha256, "round": 7}
    line = facts | {"mtime_ns": COPY.mtime_ns} | journal_fields(decision) | fields
    return dict(json.loads(json.dumps(line)))


def all_good(n: int = 1) -> Decision:
    taken = tuple(TakenLabel(ImageKey("S1", f"{i}.JPG"), "deer", None, "oracle") for i in range(n))
    return Decision(taken=taken, counts=dict.fromkeys(COUNTS, 0) | {"rows": n, "accepted": n})


def rejected(*rejections: Rejection) -> Decision:
    counts = dict.fromkeys(COUNTS, 0) | {"rows": len(rejections), "rejected": len(rejections)}
    return Decision(rejections=rejections, counts=counts)


def test_the_receipt_of_a_taken_file_follows_from_its_journal_line() -> None:
    receipt = receipt_from_line(line_of(PARTIAL))
    assert {k: receipt[k] for k in ("schema", "file", "sha256", "mtime_ns", "seq", "time", "verdict")} == {
        "schema": "receipt/1",
        "file": "week3.csv",
        "sha256": COPY.sha256,
        "mtime_ns": COPY.mtime_ns,
        "seq": 418,
        "time": AT,
        "verdict": "partial",
    }
    assert receipt["counts"] == PARTIAL.counts
    assert receipt["accepted"] == [
        {"path": "site/IMG_0001.JPG", "label": "deer", "was": None, "provenance": "oracle"},
        {"path": "IMG_0002.JPG", "label": "fox", "was": "deer", "provenance": "confirmed"},
    ]
    assert receipt["rejected"] == [
        {
            "line": 12,
            "path": "site/IMG_0007.JPG",
            "label": "dear",
            "code": "unknown_species",
            "text": "'dear' is not a class",
            "suggest": ["deer"],
        }
    ]
    assert receipt["skipped"] == [{"path": "site/IMG_0003.JPG", "reason": "cannot_tell"}]
    assert (receipt["unlabelled"], receipt["new_classes"]) == (["site/IMG_0004.JPG"], ["fox"])
    assert receipt["normalised"] == {"count": 1, "examples": [["Deer ", "deer"]]}
    assert (receipt["warnings"], receipt["requested_left"]) == (["look here"], 38)


def test_long_lists_are_cut() -> None:
    receipt = receipt_from_line(line_of(all_good(10_001)))
    assert (len(receipt["accepted"]), receipt["list_cut_at"]) == (10_000, 10_000)
    assert receipt["counts"]["accepted"] == 10_001


def test_the_journal_holds_the_first_200_rejections_only() -> None:
    assert len(receipt_from_line(line_of(rejected(*[DEAR] * 300)))["rejected"]) == 200
    assert len(receipt_of_decision(COPY, rejected(*[DEAR] * 300), AT)["rejected"]) == 300


def test_a_file_without_a_good_row_has_a_receipt_without_a_number() -> None:
    receipt = receipt_of_decision(COPY, rejected(DEAR), AT)
    assert (receipt["verdict"], receipt["seq"], receipt["accepted"]) == ("rejected", None, [])
    assert (receipt["sha256"], receipt["mtime_ns"]) == (COPY.sha256, COPY.mtime_ns)


@pytest.mark.parametrize(("code", "verdict"), [("incomplete", "incomplete"), ("missing_column", "rejected")])
def test_a_file_that_cannot_be_used_says_why(code: str, verdict: str) -> None:
    error = LabelFileError("There is no column called 'Species'.", code=code, hint="Export again.")
    receipt = receipt_of_error(COPY, error, AT, requested_left=3)
    assert (receipt["verdict"], receipt["requested_left"]) == (verdict, 3)
    assert receipt["rejected"][0] | {"suggest": []} == {
        "line": 0,
        "path": "",
        "label": "",
        "code": code,
        "text": "There is no column called 'Species'. Export again.",
        "suggest": [],
    }
    report = report_text(receipt) or ""
    assert report.splitlines()[0].startswith("week3.csv: nothing was taken. There is no column called 'Species'.")


def test_a_known_file_says_when_it_was_taken() -> None:
    line = line_of(all_good(), name="old.csv")
    receipt = receipt_of_known(COPY, line, "2024-06-01T00:00:00Z")
    assert (receipt["verdict"], receipt["file"], receipt["seq"]) == ("already_known", "week3.csv", 418)
    assert "old.csv" in receipt["warnings"][0] and AT in receipt["warnings"][0]


def test_a_restored_folder_says_how_to_override() -> None:
    receipt = receipt_of_restored(COPY, line_of(all_good()), "2024-06-01T00:00:00Z")
    assert receipt["verdict"] == "already_known"
    assert "put it back alone" in receipt["warnings"][0]


def test_the_report_says_the_verdict_first_then_what_waits_and_how_to_mend() -> None:
    lines = (report_text(receipt_from_line(line_of(PARTIAL))) or "").splitlines()
    assert lines[0] == "week3.csv: 2 labels taken, 1 of them corrected, 1 image skipped, 1 row not taken."
    assert lines[1] == "Requested images that still wait for a label: 38."
    assert "look here" in lines
    assert f"unknown_species: {CODES['unknown_species']}" in lines
    assert lines[-1] == "  line 12 site/IMG_0007.JPG: 'dear' is not a class. Did you mean deer?"


def test_no_report_where_there_is_nothing_to_do() -> None:
    assert report_text(receipt_from_line(line_of(all_good()))) is None


def test_a_report_has_at_most_200_lines() -> None:
    lines = (report_text(receipt_of_decision(COPY, rejected(*[DEAR] * 1000), AT)) or "").splitlines()
    assert len(lines) == 200
    assert "more lines; see week3.csv.receipt.json" in lines[-1]


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\0=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_a_report_is_a_formula(text: str) -> None:
    copy = PrivateCopy(COPY.path, f"{text}.csv", COPY.sha256, 1)
    rejection = Rejection(2, f"a,{text}.JPG", text, "unknown_species", f"x;{text}", (text,))
    report = report_text(receipt_of_decision(copy, rejected(rejection), AT)) or ""
    assert "\0" not in report and "\r" not in report
    for line in report.split("\n"):
        for cell in line.replace(";", ",").replace("\t", ",").split(","):
            assert cell.strip()[:1] not in set("=+-@")


def test_the_report_file_is_utf8_with_a_mark_and_windows_line_ends(tmp_path: Path) -> None:
    write_receipt(tmp_path, tmp_path / "reports", "week3.csv", receipt_from_line(line_of(PARTIAL)))
    data = (tmp_path / "week3.csv.report.txt").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfweek3.csv: ")
    assert data.count(b"\r\n") == data.count(b"\n") > 5


def facts_of(receipt: dict[str, Any]) -> dict[str, Any]:
    names = ("file", "sha256", "mtime_ns", "seq", "time", "verdict", "remarks")
    return {name: receipt[name] for name in names} | {"restored_with": []}


def test_what_later_lines_say_stands_in_receipt_and_report() -> None:
    remarks = [{"what": "undone", "seq": 9, "images": 3}, {"what": "overruled", "seq": 8, "images": 1}]
    receipt = receipt_from_line(line_of(all_good()), remarks)
    assert receipt["remarks"] == remarks
    report = report_text(receipt) or ""
    assert "Undone by number 9" in report and "1 image in this file got another label" in report


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    receipt = receipt_from_line(line_of(PARTIAL))
    path = write_receipt(tmp_path, tmp_path / "reports", "week3.csv", receipt)
    assert path == tmp_path / "week3.csv.receipt.json"
    assert read_receipt(tmp_path, tmp_path / "reports", "week3.csv") == facts_of(receipt)


def test_a_report_that_no_longer_holds_is_removed(tmp_path: Path) -> None:
    write_receipt(tmp_path, tmp_path / "reports", "week3.csv", receipt_from_line(line_of(PARTIAL)))
    write_receipt(tmp_path, tmp_path / "reports", "week3.csv", receipt_from_line(line_of(all_good())))
    assert [path.name for path in tmp_path.iterdir()] == ["week3.csv.receipt.json"]


FOREIGN = {
    "none": None,
    "no JSON": b"{",
    "no UTF-8": b"\xff",
    "a list": b"[]",
    "another program's": b'{"schema": "invoice/1"}',
    "a later version's": b'{"schema": "receipt/2"}',
    "half of one": b'{"schema": "receipt/1", "file": "week3.csv"}',
    "deeper than can be read": b"[" * 100_000,
    "of another file": json.dumps(receipt_from_line(line_of(all_good(), name="other.csv"))).encode(),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_or_damaged_receipt_counts_as_none(data: bytes | None, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "week3.csv.receipt.json").write_bytes(data)
    assert read_receipt(tmp_path, tmp_path / "reports", "week3.csv") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_called_like_a_receipt_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "week3.csv.receipt.json")
    assert read_receipt(tmp_path, tmp_path / "reports", "week3.csv") is None


@pytest.fixture
def read_only_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    replace_file = atomic.replace_file

    def refuse(path: Path, write: Any) -> None:
        if path.parent == folder:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        replace_file(path, write)

    monkeypatch.setattr(atomic, "replace_file", refuse)
    return folder


def test_a_read_only_bin_gets_its_receipts_elsewhere(read_only_bin: Path, tmp_path: Path) -> None:
    receipt = receipt_from_line(line_of(PARTIAL))
    path = write_receipt(read_only_bin, tmp_path / "reports", "week3.csv", receipt)
    assert path == tmp_path / "reports" / "week3.csv.receipt.json"
    assert (tmp_path / "reports" / "week3.csv.report.txt").exists()
    assert read_receipt(read_only_bin, tmp_path / "reports", "week3.csv") == facts_of(receipt)


def test_of_two_receipts_the_newer_counts(tmp_path: Path) -> None:
    old, new = receipt_from_line(line_of(all_good())), receipt_from_line(line_of(PARTIAL, at="2024-05-02T10:00:00Z"))
    for place, receipt in [("bin", old), ("reports", new)]:
        (tmp_path / place).mkdir()
        (tmp_path / place / "week3.csv.receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
    assert read_receipt(tmp_path / "bin", tmp_path / "reports", "week3.csv") == facts_of(new)


def test_a_receipt_in_the_bin_replaces_the_one_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "week3.csv.receipt.json").write_text("{}", encoding="utf-8")
    write_receipt(tmp_path, tmp_path / "reports", "week3.csv", receipt_from_line(line_of(all_good())))
    assert list((tmp_path / "reports").iterdir()) == []


def test_a_full_disk_is_an_error_and_no_reason_to_write_elsewhere(tmp_path: Path) -> None:
    points = atomic.failpoints
    points.count, points.fail_at, points.mode = 0, 1, "enospc"
    try:
        with pytest.raises(OSError):
            write_receipt(tmp_path, tmp_path / "reports", "week3.csv", receipt_from_line(line_of(all_good())))
    finally:
        points.fail_at, points.mode = 0, "kill"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_sends_the_receipt_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "bin" / "week3.csv.receipt.json").mkdir(parents=True)
    path = write_receipt(tmp_path / "bin", tmp_path / "reports", "week3.csv", receipt_from_line(line_of(all_good())))
    assert path.parent == tmp_path / "reports"


@pytest.mark.parametrize("name", ["x" * 251 + ".csv", "é" * 120 + ".csv", "x" * 232 + ".csv"])
def test_a_long_name_is_shortened_and_works(name: str, tmp_path: Path) -> None:
    assert all(len(os.fsencode(short)) < 200 for short in receipt_names(name))
    assert receipt_names(name) != receipt_names("x" + name[1:] if name[0] != "x" else "y" + name[1:])
    receipt = receipt_from_line(line_of(PARTIAL, name=name))
    write_receipt(tmp_path, tmp_path / "reports", name, receipt)
    assert read_receipt(tmp_path, tmp_path / "reports", name) == facts_of(receipt)


def test_a_name_that_fits_is_kept() -> None:
    name = "x" * 229 + ".csv"
    assert receipt_names(name) == (f"{name}.receipt.json", f"{name}.report.txt")


def test_notices_of_the_copy_reach_the_receipt() -> None:
    copy = PrivateCopy(COPY.path, COPY.name, COPY.sha256, 1, (Notice("a second copy"),))
    assert receipt_of_error(copy, LabelFileError("x", code="not_text"), AT)["warnings"] == ["a second copy"]


def test_every_code_in_the_program_has_a_sentence_that_mends_it() -> None:
    package = Path(camera_trap_al.__file__).parent
    used = {"restored"}
    files = [*package.glob("core/*.py"), *package.glob("labels/*.py")]
    for file in files:
        used |= codes_in(ast.parse(file.read_text(encoding="utf-8")))
    assert used == set(CODES)
    assert all(text.endswith((".", "?")) for text in CODES.values())


def codes_in(tree: ast.AST) -> set[str]:
    """Return the codes that calls such as `self.refuse(row, "code", …)` and `LabelFileError(…, code="code")` name."""
    places = {"refuse": 1, "reject": 2, "Match": 1, "Rejection": 3}
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        values = [k.value for k in node.keywords if k.arg == "code"] + node.args[places.get(name, 99) :][:1]
        found |= {v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)}
    return found
