"""What the bin says while files wait in it, or cannot be used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.inbox import TURNS_BETWEEN_SCANS, Inbox
from camera_trap_al.taking import take_labels

WHOLE = b"File,RelativePath,Species\r\nIMG_1.JPG,S1,deer\r\n"


@pytest.mark.parametrize("name", ["labels.xlsx", "Labels.XLS", "labels.csv.txt", "labels.tsv"])
def test_a_table_that_is_no_csv_file_is_named(bin_folder: Path, name: str) -> None:
    for other in (name, "a.csv.report.txt", "a.csv.receipt.json", ".hidden.txt", "~$labels.xlsx"):
        (bin_folder / other).write_bytes(b"x")
    inbox = Inbox(bin_folder, 0.0)
    assert inbox.scan(0.0) == []
    (told,) = inbox.problems()
    assert told.startswith(name) and "save it there as CSV" in told


def test_while_files_wait_the_folder_is_looked_at_again_as_soon_as_one_of_them_is_gone(
    bin_folder: Path, intake: Path
) -> None:
    for name in ("a.csv", "b.csv"):
        (bin_folder / name).write_bytes(WHOLE)
    inbox = Inbox(bin_folder, 0.0)
    work: Any = SimpleNamespace(inbox=inbox, folder=SimpleNamespace(intake=intake))
    inbox.keep_waiting(inbox.scan(0.0))
    (bin_folder / "a.csv").unlink()
    assert [file.name for file in inbox.files(1.0)] == ["a.csv", "b.csv"]
    with pytest.raises(LabelFileError, match="changed"):
        take_labels(work, "a.csv")
    assert [file.name for file in inbox.files(1.0)] == ["b.csv"]


def test_while_files_wait_all_are_looked_at_now_and_then_and_after_any_scan(bin_folder: Path) -> None:
    (bin_folder / "a.csv").write_bytes(WHOLE)
    inbox = Inbox(bin_folder, 0.0)
    inbox.keep_waiting(inbox.scan(0.0))
    (bin_folder / "b.csv").write_bytes(WHOLE)
    seen = [len(inbox.files(float(n))) for n in range(TURNS_BETWEEN_SCANS + 1)]
    assert seen == [1] * TURNS_BETWEEN_SCANS + [2]
    inbox.keep_waiting([])
    assert len(inbox.files(20.0)) == 2
    inbox.keep_waiting(inbox.scan(20.0)[:1])
    inbox.scan(21.0)
    assert len(inbox.files(22.0)) == 2


def test_a_folder_that_cannot_be_listed_is_told(bin_folder: Path) -> None:
    inbox = Inbox(bin_folder, 0.0)
    bin_folder.rmdir()
    with pytest.raises(OSError):
        inbox.scan(0.0)
    assert str(bin_folder) in inbox.problems()[0]
    bin_folder.mkdir()
    assert inbox.scan(1.0) == [] and inbox.problems() == []
