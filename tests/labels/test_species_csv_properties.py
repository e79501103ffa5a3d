"""Properties of the label-file reader: any dialect, any cut, any bytes."""

from __future__ import annotations

import codecs
import csv
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_reading import HEADER, Reading

from camera_trap_al.core.records import LabelRow, Notice, Rejection
from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.csv_records import CsvRecords
from camera_trap_al.labels.encoding import TextForm

CELLS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8).map(str.strip)
WORDS = st.from_regex(r"[a-zé]{1,6}", fullmatch=True)
ROWS = st.lists(st.tuples(WORDS, WORDS, st.one_of(WORDS, st.just("")), CELLS), max_size=6)
NAMES = ["File", "RelativePath", "Species", "Note"]


@given(
    rows=ROWS,
    order=st.permutations(range(4)),
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    sep=st.booleans(),
)
@settings(deadline=None)
def test_any_dialect_of_the_same_rows_reads_equal(
    rows: list[tuple[str, str, str, str]],
    order: Sequence[int],
    delimiter: str,
    end: str,
    quoting: int,
    encoding: str,
    sep: bool,
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow([NAMES[i] for i in order])
    writer.writerows([row[i] for i in order] for row in rows)
    whole = (f"sep={delimiter}{end}" if sep else "") + text.getvalue()
    assert read_bytes(whole.encode(encoding)).rows == [(folder, file, label) for file, folder, label, _ in rows]


def read_bytes(data: bytes) -> Reading:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        path.write_bytes(data)
        return Reading(path)


@given(text=st.text(st.sampled_from(list('ab",;\n\r\t ')), max_size=60))
@settings(deadline=None)
def test_well_formed_text_is_cut_as_the_csv_module_cuts_it(text: str) -> None:
    text = f"{HEADER}\n{text}\n"
    try:
        expected = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row not in ([], [""])]
    except csv.Error:
        return
    if "\r" in text.replace("\r\n", ""):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        path.write_bytes(text.encode())
        records = CsvRecords(path, TextForm("utf-8", "strict", "\n"), ",", 10_000, 10_000)
        assert [cells for _, cells in records if cells != [""]] == expected


WHOLE = (
    'File,RelativePath,Species,Note\r\na.JPG,Forêt,Bird of prey,"x, ""y""\r\nz"\r\nb.JPG,S1,deer,é\r\nc.JPG,S1,fox,\r\n'
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_file_cut_at_any_byte_is_refused_or_gives_the_first_rows_of_the_whole(encoding: str) -> None:
    data = WHOLE.encode(encoding)
    whole = read_bytes(data).rows
    for size in range(len(data)):
        try:
            part = read_bytes(data[:size])
        except LabelFileError:
            continue
        is_doubtful = any("last line" in warning for warning in part.warnings)
        sure = part.rows[:-1] if is_doubtful and part.rows and not part.rejections else part.rows
        assert sure == whole[: len(sure)], size
        assert part.rows == sure or part.rows[-1][:2] == whole[len(sure)][:2], size
        assert not part.rejections or is_doubtful, size


@given(data=st.binary(max_size=200), head=st.sampled_from([b"", HEADER.encode() + b"\n", codecs.BOM_UTF16_LE, b"sep="]))
@settings(deadline=None)
def test_no_bytes_raise_anything_but_a_refusal(data: bytes, head: bytes) -> None:
    try:
        reading = read_bytes(head + data)
    except LabelFileError as error:
        assert error.code
        return
    assert all(isinstance(item, LabelRow | Rejection | Notice) for item in reading.items)
