"""The simulated Timelapse user keeps to Timelapse's rules, the silent losses included."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from camera_trap_al.labels.template import make_template
from camera_trap_al_service.timelapse_files import TimelapseRefused, find_images, split_csv
from camera_trap_al_service.timelapse_user import ImageRow, ImageSet

IMAGES = ["IMG_1.JPG", "North/IMG_1.JPG", "North/IMG_2.JPG", "South/Deep/IMG_1.JPG"]
TAKEN = datetime(2024, 9, 17, 18, 44, 56)
DATE_WARNING = (
    "- the CSV file is missing either a DateTime column or both Date and Time columns (this is ok if it was intended)"
)


def add_image(root: Path, path: str, content: bytes = b"", taken: datetime = TAKEN) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    os.utime(target, (taken.timestamp(), taken.timestamp()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "Season 1"
    for path in IMAGES:
        add_image(folder, path)
    make_template(folder / "TimelapseTemplate.tdb", ["deer", "fox", 'bird, "small"'])
    return folder


@pytest.fixture
def user(root: Path) -> ImageSet:
    return ImageSet.open(root, root / "TimelapseTemplate.tdb")


def selector(root: Path, *lines: str) -> Path:
    path = root / "timelapse_selector.csv"
    path.write_bytes("".join(line + "\r\n" for line in lines).encode("utf-8"))
    return path


def row_of(user: ImageSet, folder: str, file: str) -> ImageRow:
    return next(row for row in user.select_all() if row.key == (folder, file))


def selected(user: ImageSet) -> list[tuple[str, str]]:
    return [row.key for row in user.select_all() if row.values["Selected"] == "true"]


def test_folders_are_written_with_backslashes_in_order_of_their_paths(root: Path) -> None:
    assert find_images(root) == [
        ("", "IMG_1.JPG"),
        ("North", "IMG_1.JPG"),
        ("North", "IMG_2.JPG"),
        ("South\\Deep", "IMG_1.JPG"),
    ]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    make_template(tmp_path / "TimelapseTemplate.tdb", [])
    with pytest.raises(TimelapseRefused, match="No images or videos"):
        ImageSet.open(tmp_path, tmp_path / "TimelapseTemplate.tdb")


@pytest.mark.parametrize("name", ["none.tdb", "noise.tdb", "TimelapseTemplate.TDB"])
def test_a_template_that_timelapse_would_not_open_is_refused(root: Path, name: str) -> None:
    (root / "noise.tdb").write_bytes(b"noise" * 1000)
    with pytest.raises(TimelapseRefused, match="template"):
        ImageSet.open(root, root / name)


def test_new_images_are_found_only_by_adding_images(root: Path, user: ImageSet) -> None:
    add_image(root, "North/IMG_3.JPG")
    assert len(user.select_all()) == 4
    assert user.add_images() == 1
    assert user.add_images() == 0
    assert row_of(user, "North", "IMG_3.JPG").values["Selected"] == "false"


def test_a_full_selector_turns_on_exactly_what_it_says(root: Path, user: ImageSet) -> None:
    path = selector(
        root,
        "File,RelativePath,Selected",
        "IMG_1.JPG,South/Deep,true",
        "IMG_1.JPG,,false",
        "IMG_1.JPG,North,false",
        "IMG_2.JPG,North,true",
    )
    result = user.import_csv(path)
    assert result.imported and result.rows_changed == 4 and result.unmatched == []
    assert result.messages == ["The Date/Time was not updated for 4 / 4 files. ", DATE_WARNING]
    assert selected(user) == [("North", "IMG_2.JPG"), ("South/Deep", "IMG_1.JPG")]


def test_an_empty_folder_overwrites_images_of_that_name_everywhere(root: Path, user: ImageSet) -> None:
    result = user.import_csv(selector(root, "File,RelativePath,Selected", "IMG_1.JPG,,true"))
    assert result.rows_changed == 3
    assert selected(user) == [("", "IMG_1.JPG"), ("North", "IMG_1.JPG"), ("South/Deep", "IMG_1.JPG")]


def test_images_left_out_of_the_selector_keep_their_flag(root: Path, user: ImageSet) -> None:
    user.import_csv(selector(root, "File,RelativePath,Selected", "IMG_1.JPG,North,true"))
    user.import_csv(selector(root, "File,RelativePath,Selected", "IMG_2.JPG,North,true"))
    assert selected(user) == [("North", "IMG_1.JPG"), ("North", "IMG_2.JPG")]


@pytest.mark.parametrize(
    "place", ["IMG_1.JPG,.", "IMG_1.JPG,./North", "IMG_1.JPG,North/", "IMG_1.JPG,/North", "img_1.jpg,North"]
)
def test_rows_that_match_nothing_are_lost_without_a_word(root: Path, user: ImageSet, place: str) -> None:
    result = user.import_csv(selector(root, "File,RelativePath,Selected", f"{place},true"))
    assert result.imported and result.rows_changed == 0 and len(result.unmatched) == 1
    assert result.messages[1:] == [DATE_WARNING]
    assert selected(user) == []


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "File,Selected",
            "- the 'RelativePath' column (You still need it even if your files are all in your root folder).",
        ),
        ("RelativePath,Selected", "- the 'File' column."),
        ("File,RelativePath,selected", "- selected"),
        ("File,RelativePath,Score", "- Score"),
        ("File;RelativePath;Selected", "- File;RelativePath;Selected"),
    ],
)
def test_one_wrong_header_and_nothing_is_imported(root: Path, user: ImageSet, header: str, message: str) -> None:
    result = user.import_csv(selector(root, header, "IMG_1.JPG,North,true"))
    assert not result.imported and result.messages[-1] == message
    assert selected(user) == []


@pytest.mark.parametrize("content", ["", "\r\n\n", "File,RelativePath,Selected\r\n"])
def test_a_file_without_rows_imports_nothing(root: Path, user: ImageSet, content: str) -> None:
    (root / "s.csv").write_text(content, encoding="utf-8")
    result = user.import_csv(root / "s.csv")
    assert not result.imported and len(result.messages) == 1


def test_a_selector_that_is_not_there_imports_nothing(root: Path, user: ImageSet) -> None:
    assert user.import_csv(root / "away.csv").messages == ["The file 'away.csv' could not be read."]


@pytest.mark.parametrize("flag", ["1", "0", "yes", "", '" "'])
def test_one_bad_flag_and_nothing_is_imported(root: Path, user: ImageSet, flag: str) -> None:
    lines = ["File,RelativePath,Selected", "IMG_1.JPG,North,true", f"IMG_2.JPG,North,{flag}"]
    result = user.import_csv(selector(root, *lines))
    value = flag.strip('"')
    assert result.messages == [f"- error in row 2 as Selected values must be true or false, but is '{value}'"]
    assert not result.imported and selected(user) == []


def test_complaints_stop_in_the_third_row_from_the_first_bad_one(root: Path, user: ImageSet) -> None:
    lines = ["File,RelativePath,Count,Selected", *["IMG_1.JPG,North,many,maybe"] * 9]
    messages = user.import_csv(selector(root, *lines)).messages
    starts = [message[:40] for message in messages]
    assert starts[:5] == [
        "- error in row 1 as Count values must be",
        "- error in row 1 as Selected values must",
        "- error in row 2 as Count values must be",
        "- error in row 2 as Selected values must",
        "- error in row 3 as Count values must be",
    ]
    assert starts[5].startswith("- Timelapse only reports") and len(messages) == 7


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("Selected", ["True", "TRUE", " false ", '" true "'], ["t", "-1"]),
        ("Species", ["", "fox", '"bird, ""small"""'], ["Fox", "wolf"]),
        ("Count", ["", "-3", "+7", " 12 ", "2147483647"], ["1.0", "2147483648", "x", "1 2"]),
        ("Prediction", ["", "anything"], []),
    ],
)
def test_values_are_taken_or_refused_by_their_field(
    root: Path, user: ImageSet, column: str, good: list[str], bad: list[str]
) -> None:
    for value, is_good in [*((v, True) for v in good), *((v, False) for v in bad)]:
        result = user.import_csv(selector(root, f"File,RelativePath,{column}", f"IMG_1.JPG,North,{value}"))
        assert result.imported is is_good, value


def test_one_short_row_and_nothing_is_imported(root: Path, user: ImageSet) -> None:
    lines = ["File,RelativePath,Selected", "IMG_1.JPG,North,true", "IMG_2.JPG,North"]
    result = user.import_csv(selector(root, *lines))
    assert not result.imported and "already open in another program" in result.messages[0]
    assert selected(user) == []


def test_a_blank_header_shifts_the_columns_after_it(root: Path, user: ImageSet) -> None:
    result = user.import_csv(selector(root, ",File,RelativePath,Selected", "0,IMG_1.JPG,North,true"))
    assert not result.imported and result.messages[0].endswith("true or false, but is 'North'")


def test_flags_keep_the_letter_case_of_the_import_and_are_selected_in_any(root: Path, user: ImageSet) -> None:
    user.import_csv(selector(root, "File,RelativePath,Selected", "IMG_1.JPG,North,TRUE"))
    [row] = user.select_selected()
    assert row.key == ("North", "IMG_1.JPG") and row.values["Selected"] == "TRUE"


def test_an_empty_selection_falls_back_to_all_images(user: ImageSet) -> None:
    assert len(user.select_selected()) == 4


def test_an_import_selects_again(root: Path, user: ImageSet) -> None:
    user.import_csv(selector(root, "File,RelativePath,Selected", "IMG_1.JPG,North,true"))
    user.select_selected()
    user.import_csv(selector(root, "File,RelativePath,Selected", "IMG_1.JPG,North,false", "IMG_2.JPG,North,true"))
    user.export_csv(root / "out.csv")
    assert [row[1:3] for row in split_csv((root / "out.csv").read_text("utf-8"))[1:]] == [["IMG_2.JPG", "North"]]


def test_the_menu_offers_only_its_items(user: ImageSet) -> None:
    row = row_of(user, "North", "IMG_1.JPG")
    user.set_species(row, "fox")
    with pytest.raises(TimelapseRefused, match="'wolf' isn't in it"):
        user.set_species(row, "wolf")
    assert row.values["Species"] == "fox"
    user.set_species(row, "")
    assert row.values["Species"] == ""


@pytest.mark.parametrize(
    ("data_label", "value"),
    [("Selected", "True"), ("Count", "many"), ("DateTime", "yesterday"), ("File", "a.jpg"), ("Weather", "sun")],
)
def test_a_field_refuses_what_its_control_cannot_hold(user: ImageSet, data_label: str, value: str) -> None:
    with pytest.raises(TimelapseRefused, match=data_label):
        user.set_value(row_of(user, "North", "IMG_1.JPG"), data_label, value)


def test_an_export_is_what_timelapse_writes_byte_for_byte(root: Path, user: ImageSet) -> None:
    user.set_value(row_of(user, "", "IMG_1.JPG"), "Prediction", 'a "wild" guess')
    user.set_species(row_of(user, "South/Deep", "IMG_1.JPG"), 'bird, "small"')
    user.export_csv(root / "out.csv")
    assert (root / "out.csv").read_bytes() == (
        b"RootFolder,File,RelativePath,DateTime,Species,Selected,Prediction,Confidence,Confirmed,Count\r\n"
        b'Season 1,IMG_1.JPG,, 2024-09-17 18:44:56,,false,"a ""wild"" guess",,false,0\r\n'
        b"Season 1,IMG_1.JPG,North, 2024-09-17 18:44:56,,false,,,false,0\r\n"
        b"Season 1,IMG_2.JPG,North, 2024-09-17 18:44:56,,false,,,false,0\r\n"
        b'Season 1,IMG_1.JPG,South\\Deep, 2024-09-17 18:44:56,"bird, ""small""",false,,,false,0\r\n'
    )


def test_an_export_is_sorted_by_folder_then_date_then_file(root: Path) -> None:
    add_image(root, "North/IMG_9.JPG", taken=datetime(2024, 1, 1))
    user = ImageSet.open(root, root / "TimelapseTemplate.tdb")
    assert [row.key[1] for row in user.select_all() if row.key[0] == "North"] == ["IMG_9.JPG", "IMG_1.JPG", "IMG_2.JPG"]


def test_exporting_over_a_file_keeps_a_copy_in_backups(root: Path, user: ImageSet) -> None:
    path = root / "new_labels_bin" / "ImageData.csv"
    path.parent.mkdir()
    path.write_bytes(b"old")
    user.export_csv(path)
    [copy] = (path.parent / "Backups").iterdir()
    assert copy.read_bytes() == b"old" and path.read_bytes().startswith(b"RootFolder,")
    assert copy.name.startswith("ImageData.20") and copy.suffix == ".csv"


def test_an_export_appears_line_by_line(root: Path, user: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    lines = user._export_lines

    def watched_lines():  # type: ignore[no-untyped-def]
        for line in lines():
            seen.append((root / "out.csv").read_bytes().count(b"\n"))
            yield line

    monkeypatch.setattr(user, "_export_lines", watched_lines)
    user.export_csv(root / "out.csv")
    assert seen == [0, 1, 2, 3, 4]


def test_one_row_in_a_selector_turns_on_only_the_first_of_two_duplicates(root: Path, user: ImageSet) -> None:
    user.duplicate(row_of(user, "North", "IMG_1.JPG"))
    lines = ["File,RelativePath,Selected", "IMG_1.JPG,North,true", "IMG_2.JPG,North,true"]
    result = user.import_csv(selector(root, *lines))
    assert result.messages[0] == "duplicate entry mismatch for North\\IMG_1.JPG: 2 database entries vs. 1 CSV entry."
    assert selected(user) == [("North", "IMG_1.JPG"), ("North", "IMG_2.JPG")]


def test_the_last_row_of_a_selector_turns_on_all_duplicates(root: Path, user: ImageSet) -> None:
    user.duplicate(row_of(user, "North", "IMG_2.JPG"))
    user.import_csv(selector(root, "File,RelativePath,Selected", "IMG_2.JPG,North,true"))
    assert selected(user) == [("North", "IMG_2.JPG"), ("North", "IMG_2.JPG")]


def test_duplicates_get_the_rows_of_the_file_in_turn_and_are_labelled_apart(root: Path, user: ImageSet) -> None:
    first = row_of(user, "North", "IMG_1.JPG")
    second = user.duplicate(first)
    user.set_species(first, "deer")
    lines = ["File,RelativePath,Species", "IMG_1.JPG,North,fox", "IMG_1.JPG,North,", "IMG_1.JPG,North,deer"]
    result = user.import_csv(selector(root, *lines))
    assert [first.values["Species"], second.values["Species"]] == ["fox", ""]
    assert result.messages == ["duplicate entry mismatch for North\\IMG_1.JPG: 2 database entries vs. 3 CSV entries."]


@pytest.mark.parametrize(
    ("header", "cells", "date"),
    [
        ("DateTime", "2020-02-29 01:02:03", "2020-02-29 01:02:03"),
        ("DateTime", "2020-02-29T01:02:03", "2020-02-29 01:02:03"),
        ("DateTime", "29/02/2020 01:02", "2024-09-17 18:44:56"),
        ("DateTime", "2021-02-29 01:02:03", "2024-09-17 18:44:56"),
        ("Date,Time", "3-Jul-2017,9:05:00", "2017-07-03 09:05:00"),
        ("Date,Time", "3-Jul-2017,", "0001-01-01 00:00:00"),
    ],
)
def test_dates_are_imported_by_timelapses_rules(root: Path, user: ImageSet, header: str, cells: str, date: str) -> None:
    user.import_csv(selector(root, f"File,RelativePath,{header}", f"IMG_1.JPG,North,{cells}"))
    assert row_of(user, "North", "IMG_1.JPG").values["DateTime"] == date


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_the_encoding(root: Path, encoding: str) -> None:
    add_image(root, "Höhe/Ä.JPG")
    user = ImageSet.open(root, root / "TimelapseTemplate.tdb")
    (root / "s.csv").write_text("File,RelativePath,Selected\nÄ.JPG,Höhe,true\n", encoding=encoding)
    assert user.import_csv(root / "s.csv").rows_changed == 1


def test_names_from_a_windows_1252_file_match_nothing(root: Path) -> None:
    add_image(root, "Ä.JPG")
    user = ImageSet.open(root, root / "TimelapseTemplate.tdb")
    (root / "s.csv").write_text("File,RelativePath,Selected\nÄ.JPG,,true\n", encoding="cp1252")
    assert user.import_csv(root / "s.csv").unmatched == ["\ufffd.JPG"]


def test_a_round_labels_what_is_selected_exports_it_and_shows_all_again(root: Path, user: ImageSet) -> None:
    path = selector(root, "File,RelativePath,Selected", "IMG_1.JPG,North,true", "IMG_1.JPG,South/Deep,true")
    truth = {("North", "IMG_1.JPG"): "deer", ("North", "IMG_2.JPG"): "fox"}
    assert user.label_round(path, truth, root / "week1.csv") == 1
    rows = split_csv((root / "week1.csv").read_text("utf-8"))
    assert [row[1:3] + row[4:5] for row in rows[1:]] == [
        ["IMG_1.JPG", "North", "deer"],
        ["IMG_1.JPG", "South\\Deep", ""],
    ]
    user.export_csv(root / "all.csv")
    assert len(split_csv((root / "all.csv").read_text("utf-8"))) == 5


def test_labels_stay_from_round_to_round(root: Path, user: ImageSet) -> None:
    truth = dict.fromkeys([("North", "IMG_1.JPG"), ("North", "IMG_2.JPG")], "deer")
    for file in ("IMG_1.JPG", "IMG_2.JPG"):
        user.label_round(selector(root, "File,RelativePath,Selected", f"{file},North,true"), truth, root / "out.csv")
    assert [row.values["Species"] for row in user.select_all()] == ["", "deer", "deer", ""]


def test_a_round_with_nothing_selected_exports_nothing(root: Path, user: ImageSet) -> None:
    path = selector(root, "File,RelativePath,Selected", "IMG_1.JPG,North,false")
    assert user.label_round(path, {("North", "IMG_1.JPG"): "deer"}, root / "out.csv") == 0
    assert not (root / "out.csv").exists()


def test_a_round_with_a_refused_selector_tells_why(root: Path, user: ImageSet) -> None:
    path = selector(root, "File,RelativePath,Selected,Score", "IMG_1.JPG,North,true,0.5")
    with pytest.raises(TimelapseRefused, match=r"imported nothing from .*timelapse_selector\.csv: .* - Score"):
        user.label_round(path, {}, root / "out.csv")
    assert not (root / "out.csv").exists()


def test_no_image_is_ever_written(root: Path, user: ImageSet) -> None:
    images = find_images(root)
    user.export_csv(root / "out.csv")
    user.export_csv(root / "out.csv")
    assert find_images(root) == images
