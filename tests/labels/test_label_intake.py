"""A CSV file in the bin → what the journal says, through every stage; regressions R6 to R19."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from camera_trap_al.core.decision import Decision, journal_fields
from camera_trap_al.core.history import History
from camera_trap_al.core.intake import IntakeSettings, decide
from camera_trap_al.core.matching import KnownClasses, KnownImages
from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.inbox import Inbox, take_private_copy
from camera_trap_al.labels.receipts import receipt_from_line, receipt_of_decision, receipt_of_error
from camera_trap_al.labels.species_csv import read_species_csv

AT = "2024-05-01T10:00:00Z"
CLASSES = ["deer", "dee", "fox", "Bird", "Bird of prey", "None", "NA", "null", "nan", "1", "007", "True", "café"]
POOL = list(map(ImageKey.of, ["S1/a.JPG", "S1/b.JPG", "S1/c.JPG", "r.JPG", "2023/y.JPG", "007/x.JPG", "NA/x.JPG"]))


class Bin:
    """A bin, an intake folder and a journal in memory, without the daemon around them."""

    def __init__(self, root: Path) -> None:
        self.folder, self.intake = root / "new_labels_bin", root / "intake"
        self.folder.mkdir()
        self.intake.mkdir()
        self.history = History(classes=list(CLASSES), requested=set(POOL))
        self.images = KnownImages(POOL)

    def take(self, name: str, data: bytes | str, unrequested: str = "ignore") -> dict[str, Any]:
        """Put a file into the bin, take it in when it has settled, and return its receipt."""
        (self.folder / name).write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
        inbox = Inbox(self.folder, 1.0)
        inbox.scan(0.0)
        file = next(file for file in inbox.scan(100.0) if file.name == name)
        assert file.is_settled
        copy = take_private_copy(file, self.intake)
        assert copy is not None
        try:
            decision = self.decide(copy.path)
        except LabelFileError as error:
            return receipt_of_error(copy, error, AT)
        if not decision.is_good:
            return receipt_of_decision(copy, decision, AT)
        facts = {"name": copy.name, "sha256": copy.sha256, "mtime_ns": copy.mtime_ns, "at": AT}
        line = {"seq": self.history.end + 1, "kind": "labels"} | facts | journal_fields(decision)
        self.history.apply(line)
        return receipt_from_line(line)

    def decide(self, path: Path) -> Decision:
        return decide(
            read_species_csv(path, knows=self.images.knows).rows,
            images=self.images,
            classes=KnownClasses(self.history.classes),
            requested=self.history.requested,
            awaited=[key for key in POOL if not self.history.is_answered(key)],
            current=self.history.label_of,
            published=self.history.published,
            settings=IntakeSettings(),
        )

    @property
    def labels(self) -> dict[str, str]:
        return {key.path: label.species for key, label in self.history.labels.items()}


@pytest.fixture
def bin(tmp_path: Path) -> Bin:
    return Bin(tmp_path)


def csv_of(*lines: str, header: str = "File,RelativePath,Species") -> str:
    return "\r\n".join([header, *lines]) + "\r\n"


REGRESSIONS: dict[str, tuple[bytes | str, dict[str, str], str]] = {
    "R6 an unknown class is a rejected row": (csv_of("a.JPG,S1,wolf", "b.JPG,S1,fox"), {"S1/b.JPG": "fox"}, "partial"),
    "R7 blanks and case are forgiven": (
        csv_of("a.JPG,S1,deer ", "b.JPG,S1,FOX"),
        {"S1/a.JPG": "deer", "S1/b.JPG": "fox"},
        "accepted",
    ),
    "R8 classes that look like missing values": (
        csv_of("a.JPG,S1,None", "b.JPG,S1,NA", "c.JPG,S1,null", "r.JPG,,nan"),
        {"S1/a.JPG": "None", "S1/b.JPG": "NA", "S1/c.JPG": "null", "r.JPG": "nan"},
        "accepted",
    ),
    "R9 classes that look like numbers": (
        csv_of("a.JPG,S1,1", "b.JPG,S1,007", "c.JPG,S1,True", "r.JPG,,"),
        {"S1/a.JPG": "1", "S1/b.JPG": "007", "S1/c.JPG": "True"},
        "accepted",
    ),
    "R10 backslashes": (csv_of("a.JPG,.\\S1\\,deer"), {"S1/a.JPG": "deer"}, "accepted"),
    "R11 folders that look like numbers or missing values": (
        csv_of("y.JPG,2023,deer", "x.JPG,007,fox", "x.JPG,NA,deer", "r.JPG,,fox"),
        {"2023/y.JPG": "deer", "007/x.JPG": "fox", "NA/x.JPG": "deer", "r.JPG": "fox"},
        "accepted",
    ),
    "R12 Windows-1252 with semicolons and a padded header": (
        csv_of("a.JPG;S1;café", header="sep=;\r\n FILE;relativepath ;SPECIES").encode("cp1252"),
        {"S1/a.JPG": "café"},
        "accepted",
    ),
    "R13 a header alone": (csv_of(), {}, "accepted"),
    "R13 an extra comma in every row": (csv_of("a.JPG,S1,deer,"), {"S1/a.JPG": "deer"}, "accepted"),
    "R17 rows twice that agree": (csv_of("a.JPG,S1,deer", "a.JPG,S1,deer"), {"S1/a.JPG": "deer"}, "accepted"),
    "R18 a part of what was asked for": (csv_of("a.JPG,S1,deer", "b.JPG,S1,"), {"S1/a.JPG": "deer"}, "accepted"),
}


@pytest.mark.parametrize(("data", "labels", "verdict"), REGRESSIONS.values(), ids=REGRESSIONS.keys())
def test_the_reference_programs_mistakes_stay_away(
    data: bytes | str, labels: dict[str, str], verdict: str, bin: Bin
) -> None:
    receipt = bin.take("a.csv", data)
    assert (bin.labels, receipt["verdict"]) == (labels, verdict)


def test_r14_a_copy_cut_at_any_byte_and_then_completed_ends_as_the_whole(bin: Bin) -> None:
    whole = csv_of("a.JPG,S1,Bird of prey", "b.JPG,S1,deer", 'c.JPG,S1,"café"').encode()
    wanted = {"S1/a.JPG": "Bird of prey", "S1/b.JPG": "deer", "S1/c.JPG": "café"}
    possible = {"S1/a.JPG": {"Bird", "Bird of prey"}, "S1/b.JPG": {"dee", "deer"}, "S1/c.JPG": {"café"}}
    for size in range(1, len(whole)):
        bin.history.labels.clear()
        receipt = bin.take("a.csv", whole[:size])
        assert all(species in possible[path] for path, species in bin.labels.items())
        is_doubtful = any("last line" in text for text in receipt["warnings"])
        assert is_doubtful or all(wanted[path] == species for path, species in bin.labels.items()), size
        bin.take("a.csv", whole)
        assert bin.labels == wanted, size


def test_r15_two_files_are_both_taken_and_the_later_wins(bin: Bin) -> None:
    bin.take("b.csv", csv_of("a.JPG,S1,deer", "b.JPG,S1,deer"))
    receipt = bin.take("a.csv", csv_of("a.JPG,S1,fox"))
    assert bin.labels == {"S1/a.JPG": "fox", "S1/b.JPG": "deer"}
    assert receipt["accepted"] == [{"path": "S1/a.JPG", "label": "fox", "was": "deer", "provenance": "oracle"}]


def test_r16_the_owner_file_of_excel_is_no_label_file(bin: Bin) -> None:
    (bin.folder / "~$labels.csv").write_bytes(b"\x05owner" + bytes(100))
    assert bin.take("labels.csv", csv_of("a.JPG,S1,deer"))["verdict"] == "accepted"


def test_r19_a_correction_is_taken_and_the_same_again_changes_nothing(bin: Bin) -> None:
    bin.take("a.csv", csv_of("a.JPG,S1,deer"))
    assert bin.take("a.csv", csv_of("a.JPG,S1,fox"))["counts"]["corrected"] == 1
    receipt = bin.take("b.csv", csv_of("a.JPG,S1,fox"))
    assert (receipt["counts"]["unchanged"], receipt["accepted"]) == (1, [])


def test_a_later_file_with_blank_or_bad_rows_leaves_earlier_labels(bin: Bin) -> None:
    bin.take("a.csv", csv_of("a.JPG,S1,deer", "b.JPG,S1,fox"))
    bin.take("b.csv", csv_of("a.JPG,S1,", "b.JPG,S1,nonsense"))
    assert bin.labels == {"S1/a.JPG": "deer", "S1/b.JPG": "fox"}


def test_the_receipt_says_how_many_still_wait(bin: Bin) -> None:
    assert bin.take("a.csv", csv_of("a.JPG,S1,deer", "b.JPG,S1,unsure"))["requested_left"] == len(POOL) - 2


def test_users_files_are_left_as_they_are(bin: Bin) -> None:
    data = csv_of("a.JPG,S1,deer").encode()
    bin.take("a.csv", data)
    assert [path.name for path in bin.folder.iterdir()] == ["a.csv"]
    assert (bin.folder / "a.csv").read_bytes() == data
