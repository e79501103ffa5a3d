"""The label-intake contract, from bytes to rows (docs/reliability.md 2.2)."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from label_reading import HEADER, Reading

from camera_trap_al.errors import LabelFileError
from camera_trap_al.labels.csv_records import CsvRecords
from camera_trap_al.labels.encoding import TextForm
from camera_trap_al.labels.species_csv import Limits

PLAIN = HEADER + "\r\nIMG_1.JPG,S1,deer\r\nIMG_2.JPG,S1\\D2,fox\r\n"
PLAIN_ROWS = [("S1", "IMG_1.JPG", "deer"), ("S1\\D2", "IMG_2.JPG", "fox")]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Reading]:
    def of(data: bytes | str, **options: object) -> Reading:
        path = tmp_path / "labels.csv"
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
        return Reading(path, **options)

    return of


def refusal(read: Callable[..., Reading], data: bytes | str, **options: object) -> LabelFileError:
    with pytest.raises(LabelFileError) as caught:
        read(data, **options)
    return caught.value


ACCEPTED = {
    "utf-8 without a mark": PLAIN.encode(),
    "utf-8 with a mark": codecs.BOM_UTF8 + PLAIN.encode(),
    "utf-16 little endian with a mark": codecs.BOM_UTF16_LE + PLAIN.encode("utf-16-le"),
    "utf-16 big endian with a mark": codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "utf-16 with tabs, as Excel's Unicode text": PLAIN.replace(",", "\t").encode("utf-16"),
    "a sep line": b"sep=;\r\n" + PLAIN.replace(",", ";").encode(),
    "a sep line in upper case and quotes": b'"SEP=,"\n' + PLAIN.encode(),
    "a sep line naming the tab": b"sep=\t\n" + PLAIN.replace(",", "\t").encode(),
    "a sep line after a mark": codecs.BOM_UTF8 + b"sep=;\r\n" + PLAIN.replace(",", ";").encode(),
    "line feeds only": PLAIN.replace("\r\n", "\n").encode(),
    "carriage returns only": PLAIN.replace("\r\n", "\r").encode(),
    "mixed line ends": PLAIN.replace("\r\n", "\n", 1).encode(),
    "doubled carriage returns": PLAIN.replace("\r\n", "\r\r\n").encode(),
    "blank lines": PLAIN.replace("\r\n", "\r\n\r\n  \r\n").encode(),
    "blank lines before the header": b"\r\n,,\r\n" + PLAIN.encode(),
    "rows of bare delimiters": PLAIN.encode() + b",,\r\n,,\r\n,\r\n,,,,\r\n",
    "rows of empty quoted cells": PLAIN.encode() + b'"","",""\r\n',
    "a trailing Ctrl-Z": PLAIN.encode() + b"\x1a",
    "a trailing Ctrl-Z on a line": PLAIN.encode() + b"\x1a\r\n",
    "a Ctrl-Z in place of the last line end": PLAIN.encode().rstrip() + b"\x1a",
    "every cell quoted": re.sub(r"[^,\r\n]+", r'"\g<0>"', PLAIN).encode(),
    "blanks around cells": PLAIN.replace("S1,", " S1\xa0,").encode(),
    "the header in other case": PLAIN.replace(HEADER, "FILE,relativepath,sPECIES").encode(),
    "the header with outer blanks": PLAIN.replace(HEADER, " File ,RelativePath\xa0, Species").encode(),
    "a header repeated inside": (PLAIN + PLAIN).replace(PLAIN, PLAIN, 1).encode()[: len(PLAIN) + len(HEADER) + 2],
    "a header repeated in other case, with a mark": PLAIN.encode() + b"\xef\xbb\xbffile, RELATIVEPATH,Species\r\n",
    "extra empty cells in every row": PLAIN.replace("deer", "deer,").replace("fox", "fox,,,").encode(),
    "empty cells at the end of the header": PLAIN.replace(HEADER, HEADER + ",,").encode(),
}


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_dialect_is_read_without_a_word(data: bytes, read: Callable[..., Reading]) -> None:
    reading = read(data)
    assert reading.rows == PLAIN_ROWS
    assert (reading.rejections, reading.warnings) == ([], [])


REORDERED = {
    "any order": "Species,RelativePath,File\ndeer,S1,IMG_1.JPG\n",
    "a full Timelapse export": "RootFolder,File,RelativePath,DateTime,Selected,Species,Confidence,Confirmed,Count\r\n"
    'root,IMG_1.JPG,S1, 2024-09-17 18:44:56,true,deer,0.81,false,"3,5"\r\n',
    "an unnamed index column, as pandas writes": ",File,RelativePath,Species\n0,IMG_1.JPG,S1,deer\n",
    "a quoted note with line breaks": 'File,Note,RelativePath,Species\nIMG_1.JPG,"one\r\n\r\ntwo, ""three""",S1,deer\n',
    "columns named twice that are not needed": "File,Note,RelativePath,Note,Species\nIMG_1.JPG,a,S1,b,deer\n",
    "a needed column twice that agrees": "File,Species,RelativePath,species\nIMG_1.JPG,deer,S1, deer\n",
}


@pytest.mark.parametrize("data", REORDERED.values(), ids=REORDERED.keys())
def test_columns_are_found_by_name(data: str, read: Callable[..., Reading]) -> None:
    reading = read(data)
    assert [(folder, file, label.strip()) for folder, file, label in reading.rows] == [("S1", "IMG_1.JPG", "deer")]
    assert (reading.rejections, reading.warnings) == ([], [])


@pytest.mark.parametrize("text", ["None", "NA", "null", "nan", "1", "007", "1.0", "True", "2024-01-01", "=1+1", "7.0"])
def test_every_cell_is_text_whatever_it_looks_like(text: str, read: Callable[..., Reading]) -> None:
    reading = read(f"{HEADER}\n{text},{text},{text}\n,IMG.JPG,\n")
    assert reading.rows[0] == (text, text, text)


def test_an_image_in_the_root_has_an_empty_folder(read: Callable[..., Reading]) -> None:
    assert read(f"{HEADER}\nIMG_1.JPG,,deer\n").rows == [("", "IMG_1.JPG", "deer")]


def test_line_numbers_are_those_of_the_file(read: Callable[..., Reading]) -> None:
    data = 'sep=,\nFile,RelativePath,Species,Note\n\na.JPG,S1,deer,"x\ny"\nb.JPG,S1,fox,\n'
    assert [row.line for row in read(data).label_rows] == [4, 6]


def test_the_label_column_can_have_another_name(read: Callable[..., Reading]) -> None:
    assert read("File,RelativePath,Art,Species\na.JPG,S1,Reh,x\n", column="Art").rows == [("S1", "a.JPG", "Reh")]


def test_confirmed_prediction_and_delete_flag_are_read_if_there(read: Callable[..., Reading]) -> None:
    row = read(f"{HEADER},Confirmed,prediction,DeleteFlag\na.JPG,S1,,True,deer,false\n").label_rows[0]
    assert (row.confirmed, row.prediction, row.delete_flag) == ("True", "deer", "false")


@pytest.mark.parametrize("data", [HEADER, HEADER + "\n", HEADER + "\r\n\r\n", HEADER + "\n,,\n"])
def test_a_header_alone_is_no_rows_and_no_complaint(data: str, read: Callable[..., Reading]) -> None:
    assert read(data).items == []


def test_windows_1252_is_read_with_a_warning_that_names_the_first_three_lines(read: Callable[..., Reading]) -> None:
    lines = [HEADER, *(f"a{i}.JPG,Forêt,{'écureuil' if i > 1 else 'deer'}" for i in range(5))]
    reading = read("\r\n".join(lines).encode("cp1252") + b"\r\n")
    assert reading.rows[-1] == ("Forêt", "a4.JPG", "écureuil")
    assert reading.warnings == ["The file was read as Windows-1252; save it as UTF-8. See line 2, 3, 4."]


def test_another_fallback_encoding_can_be_chosen(read: Callable[..., Reading]) -> None:
    reading = read(f"{HEADER}\na.JPG,S1,сойка\n".encode("cp1251"), fallback_encoding="cp1251")
    assert reading.rows == [("S1", "a.JPG", "сойка")]
    assert "cp1251" in reading.warnings[0]


def test_a_byte_that_windows_1252_lacks_is_no_crash(read: Callable[..., Reading]) -> None:
    assert read(HEADER.encode() + b"\na.JPG,S1,d\x81\xffer\n").rows == [("S1", "a.JPG", "d\ufffdÿer")]


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    return buffer.getvalue()


def database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ddb"
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE DataTable (File TEXT)")
        connection.close()
        return path.read_bytes()


REFUSED: dict[str, tuple[bytes | Callable[[], bytes], str, str]] = {
    "utf-16 without a mark, little endian": (PLAIN.encode("utf-16-le"), "wrong_encoding", "UTF-16"),
    "utf-16 without a mark, big endian": (PLAIN.encode("utf-16-be"), "wrong_encoding", "UTF-16"),
    "utf-32 with a mark": (codecs.BOM_UTF32_LE + PLAIN.encode("utf-32-le"), "wrong_encoding", "UTF-32"),
    "utf-32 big endian with a mark": (codecs.BOM_UTF32_BE + PLAIN.encode("utf-32-be"), "wrong_encoding", "UTF-32"),
    "utf-32 without a mark": (PLAIN.encode("utf-32-le"), "wrong_encoding", "UTF-32"),
    "an Excel workbook": (archive, "not_text", "Excel workbook (.xlsx)"),
    "an old Excel workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), "not_text", "(.xls)"),
    "a JPEG image": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "not_text", "JPEG"),
    "a SQLite database": (database, "not_text", ".ddb"),
    "a PDF document": (b"%PDF-1.7\n%\xe2\xe3", "not_text", "PDF"),
    "a web page": (b"\n <!DOCTYPE html><html>", "not_text", "web page"),
    "JSON": (b'{"images": []}', "not_text", "JSON"),
    "a JSON list after a mark": (codecs.BOM_UTF8 + b'[{"file": "a.jpg"}]', "not_text", "JSON"),
    "gzip": (gzip.compress(PLAIN.encode()), "not_text", "gzip"),
    "bytes of no known kind": (bytes(range(1, 32)) * 20, "not_text", "no text"),
    "another delimiter": (PLAIN.replace(",", "|").encode(), "unknown_delimiter", "File|RelativePath|Species"),
    "a sep line naming another delimiter": (b"sep=|\n" + PLAIN.replace(",", "|").encode(), "unknown_delimiter", "|"),
    "a sep line that does not fit": (b"sep=;\n" + PLAIN.encode(), "unknown_delimiter", "'sep=;' names a separator"),
    "lines that are one cell": (
        b'"File,RelativePath,Species"\n"a.JPG,S1,deer"\n',
        "unknown_delimiter",
        "one single cell",
    ),
    "a missing File": (b"Image,RelativePath,Species\na,b,c\n", "missing_column", "'File'. The first line has: Image,"),
    "a missing RelativePath": (b"File,Species\na,deer\n", "missing_column", "'RelativePath'"),
    "a missing Species": (b"File,RelativePath,Notes\na,b,c\n", "missing_column", "'Species'"),
    "no header row": (b"IMG_1.JPG,S1,deer\nIMG_2.JPG,S1,fox\n", "missing_column", "IMG_1.JPG, S1, deer"),
    "the selector handed back": (b"File,RelativePath,Selected\na.JPG,S1,true\n", "selector", "is this the selector"),
    "a needed column twice that differs": (
        b"File,Species,RelativePath,SPECIES\na.JPG,deer,S1,deer\nb.JPG,deer,S1,fox\n",
        "double_column",
        "line 3 has 'deer' in one and 'fox' in the other",
    ),
    "nothing at all": (b"", "empty_file", "empty"),
    "nothing but blank lines": (b"\r\n \r\n", "empty_file", "no text"),
    "a quote that is still open": (PLAIN.encode() + b'IMG_3.JPG,S1,"deer\r\n', "incomplete", "line 4"),
    "empty bytes at the end": (PLAIN.encode() + bytes(4096), "incomplete", "empty bytes"),
    "empty bytes only": (bytes(4096), "incomplete", "empty bytes"),
    "empty bytes at the end of utf-16": (PLAIN.encode("utf-16") + bytes(2), "incomplete", "empty bytes"),
    "half a character at the end of utf-16": (PLAIN.encode("utf-16")[:-1], "incomplete", "middle of a character"),
    "half a character at the end of utf-8": ((PLAIN + "é,ä,ö").encode()[:-1], "incomplete", "middle of a character"),
}


@pytest.mark.parametrize(("data", "code", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_is_no_label_table_is_refused_in_words(
    data: bytes | Callable[[], bytes], code: str, words: str, read: Callable[..., Reading]
) -> None:
    error = refusal(read, data if isinstance(data, bytes) else data())
    assert error.code == code
    assert words in str(error)
    assert error.hint


REJECTED = {
    "too few cells": ("c.JPG,S1\n", "short_row"),
    "extra cells that are not empty": ("c.JPG,S1,deer,more\n", "extra_cells"),
    "a NUL in the file name": ("c\0.JPG,S1,deer\n", "control_character"),
    "a line break in the label": ('c.JPG,S1,"de\ner"\n', "control_character"),
    "a lone carriage return in the label": ("c.JPG,S1,de\rer\n", "control_character"),
    "a control character in the folder": ("c.JPG,S\x071,deer\n", "control_character"),
    "a line separator in the label": ("c.JPG,S1,de\u2028er\n", "control_character"),
    "a Ctrl-Z before the end": ("c.JPG,S1,deer\x1a\n", "control_character"),
    "a cell over a megabyte": (f"c.JPG,S1,{'x' * 1_100_000}\n", "long_cell"),
    "a quoted cell over a megabyte": (f'c.JPG,S1,"{"x" * 1_100_000}"\n', "long_cell"),
}


@pytest.mark.parametrize(("line", "code"), REJECTED.values(), ids=REJECTED.keys())
def test_a_bad_row_is_rejected_by_line_and_the_others_are_read(
    line: str, code: str, read: Callable[..., Reading]
) -> None:
    reading = read(f"{HEADER}\na.JPG,S1,deer\n{line}b.JPG,S1,fox\n")
    assert reading.rows == [("S1", "a.JPG", "deer"), ("S1", "b.JPG", "fox")]
    assert reading.codes == [(3, code)]


def test_a_rejected_value_is_shown_escaped_and_cut(read: Callable[..., Reading]) -> None:
    rejections = read(f"{HEADER}\nc.JPG,S1,de\x07er\nd.JPG,S1,{'x' * 1_100_000}\n").rejections
    assert rejections[0].label == "de\\x07er"
    assert len(rejections[1].label) < 300


@pytest.mark.parametrize("blank", [" ", "\x1f", "\u3000", "\t"])
def test_control_characters_that_trimming_removes_do_no_harm(blank: str, read: Callable[..., Reading]) -> None:
    assert read(f"{HEADER}\n{blank}a.JPG,S1{blank},deer\n").rows == [("S1", "a.JPG", "deer")]


STRAY = {
    "inside a cell": 'a.JPG,S1,deer,5" pipe',
    "around half a cell": 'a.JPG,S1,deer,"Smith, John" ranger',
    "at the start of a cell": 'a.JPG,S1,deer,"tall grass',
}


@pytest.mark.parametrize("line", STRAY.values(), ids=STRAY.keys())
def test_a_stray_quote_in_another_column_is_tolerated(line: str, read: Callable[..., Reading]) -> None:
    data = f'{HEADER},Note\n{line}\nb.JPG,S1,fox,"bushes" and more\n'
    assert read(data).rows == [("S1", "a.JPG", "deer"), ("S1", "b.JPG", "fox")]


def test_two_stray_quotes_do_not_give_one_image_the_label_of_another(read: Callable[..., Reading]) -> None:
    data = 'File,RelativePath,Note,Species\na.JPG,S1,"tall grass,deer\nb.JPG,S1,"bushes,fox\nc.JPG,S1,x"y,owl\n'
    assert read(data).rows == [("S1", "a.JPG", "deer"), ("S1", "b.JPG", "fox"), ("S1", "c.JPG", "owl")]


def test_a_half_quoted_label_is_kept_as_it_stands(read: Callable[..., Reading]) -> None:
    assert read(f'{HEADER}\na.JPG,S1,"de"er\n').rows == [("S1", "a.JPG", '"de"er')]


def test_a_quote_that_swallows_a_megabyte_is_named(read: Callable[..., Reading]) -> None:
    error = refusal(read, f'{HEADER}\na.JPG,S1,"deer\n' + "b.JPG,S1,fox\n" * 100_000)
    assert error.code == "open_quote"
    assert "line 2" in str(error)


LEVELS = "Level-1,Station,Deployment,RootFolder,File,RelativePath,Species\r\n"


def knows(folder: str, file: str) -> bool:
    return (folder.replace("\\", "/"), file) in {("S1", "a.JPG"), ("", "b.JPG"), ("S1/D1", "c.JPG")}


def test_lines_that_lack_folder_levels_are_read_from_their_right_end(read: Callable[..., Reading]) -> None:
    data = LEVELS + ",S1,S1\\D1,root,c.JPG,S1\\D1,owl\r\n,S1,root,a.JPG,S1,deer\r\n,root,b.JPG,,fox\r\n"
    reading = read(data, knows=knows)
    assert reading.rows == [("S1\\D1", "c.JPG", "owl"), ("S1", "a.JPG", "deer"), ("", "b.JPG", "fox")]


SHORT = {
    "whose image is not in the pool": ",S1,root,z.JPG,S1,deer",
    "whose end was lost": ",S1,S1\\D1,root,c.JPG,S1\\D1",
    "that lacks more cells than there are levels": "a.JPG,S1,deer",
}


@pytest.mark.parametrize("line", SHORT.values(), ids=SHORT.keys())
def test_a_short_line_is_rejected(line: str, read: Callable[..., Reading]) -> None:
    assert read(f"{LEVELS}{line}\r\n", knows=knows).codes == [(2, "short_row")]


def test_a_short_line_without_folder_levels_is_rejected_even_if_it_fits(read: Callable[..., Reading]) -> None:
    data = "File,RelativePath,Note,Species\na.JPG,S1,deer\n"
    assert read(data, knows=lambda folder, file: True).codes == [(2, "short_row")]


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(file_bytes=10), "too_big"),
        (Limits(rows=1), "too_many_rows"),
        (Limits(line_characters=15), "long_line"),
    ],
    ids=["bytes", "rows", "characters in a line"],
)
def test_a_file_over_a_limit_is_refused(limits: Limits, code: str, read: Callable[..., Reading]) -> None:
    assert refusal(read, PLAIN, limits=limits).code == code


def test_a_last_line_without_its_end_is_read_and_named(read: Callable[..., Reading]) -> None:
    reading = read(PLAIN + "IMG_3.JPG,S1,Bird")
    assert reading.rows[-1] == ("S1", "IMG_3.JPG", "Bird")
    assert len(reading.warnings) == 1
    assert "Line 4: S1/IMG_3.JPG, 'Bird'" in reading.warnings[0]


@pytest.mark.parametrize("end", ["  ", ",,", "\x1a"])
def test_an_unfinished_blank_end_is_not_blamed_on_the_last_row(end: str, read: Callable[..., Reading]) -> None:
    assert read(PLAIN + end).warnings == []


def test_quotes_by_the_thousand_take_no_more_reading_than_lines(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    lines = ['"s', *(['a","b'] * 20_000), 'x"y', *(['""'] * 20_000), '"', 'x"y']
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    records = CsvRecords(path, TextForm("utf-8", "strict", "\n"), ",", 4_000_000, 10**9)
    n_lines = 0
    read_line = records._next_line

    def counted(file: io.TextIOBase) -> str:
        nonlocal n_lines
        n_lines += 1
        return read_line(file)  # type: ignore[arg-type]

    records._next_line = counted  # type: ignore[method-assign,assignment]
    list(records)
    assert n_lines < 3 * len(lines)
