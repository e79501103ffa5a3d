"""An export as one ZIP file: made whole or not at all, equal for equal exports, read without unpacking, distrusted."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fake_model import COLOURS, make_source, picture
from hypothesis import given, settings
from hypothesis.strategies import binary, integers, just, one_of, tuples

from camera_trap_al.errors import ModelError
from camera_trap_al.exporters import ExportSource, exporters
from camera_trap_al.exporters.packed import write_zip
from camera_trap_al.learn.exported import MOST_MEMBERS, holds_export, read_export
from camera_trap_al.learn.predict import open_export
from camera_trap_al.store.atomic import failpoints

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    return make_source(tmp_path_factory.mktemp("work"), CLASSES)


@pytest.fixture(scope="module")
def files(source: ExportSource) -> dict[str, bytes]:
    return exporters["onnx"].contents(source)


@pytest.fixture(scope="module")
def packed(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "wolves.zip"
    write_zip(path, files)
    return path


def zipped(members: dict[str, bytes], top: str = "", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a ZIP file as another program would make it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{top}{name}", data)
    return made.getvalue()


def said(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ModelError) as raised:
        read_export(path)
    assert list(path.parent.iterdir()) == [path]
    text = str(raised.value)
    assert path.name in text and raised.value.hint and "\n" not in text
    return text


def test_equal_exports_give_equal_bytes_without_a_date(files: dict[str, bytes], packed: Path, tmp_path: Path) -> None:
    write_zip(tmp_path / "again.zip", dict(reversed(files.items())))
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == sorted(files) and archive.testzip() is None
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {name: archive.read(name) for name in files} == files
        assert not any(member.flag_bits for member in archive.infolist())


def test_the_manifest_lists_the_model_card_and_comes_last(files: dict[str, bytes]) -> None:
    assert "model_card.md" in json.loads(files["manifest.json"])["files"] and list(files)[-1] == "manifest.json"


def test_a_zip_file_predicts_as_the_folder_does(source: ExportSource, packed: Path, tmp_path: Path) -> None:
    exporters["onnx"].write(source, tmp_path)
    images = np.stack([picture(colour, seed=80 + i) for i, colour in enumerate(COLOURS.values())])
    model, whole = open_export(packed), open_export(tmp_path)
    assert model.classes == whole.classes == CLASSES
    assert np.array_equal(model.probabilities(images), whole.probabilities(images))


def test_one_that_another_program_made_of_the_folder_is_read_too(files: dict[str, bytes], tmp_path: Path) -> None:
    for i, top in enumerate(("", "export/", "Wölfe 2026/")):
        path = tmp_path / f"{i}.zip"
        path.write_bytes(zipped(files, top))
        assert open_export(path).classes == CLASSES
    (tmp_path / "no-suffix").write_bytes(zipped(files))
    assert open_export(tmp_path / "no-suffix").classes == CLASSES


def test_one_of_windows_powershell_is_read_though_its_names_have_backslashes(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zipped(files, "export\\"))
    assert open_export(path).classes == CLASSES and holds_export(path)
    assert "twice the same name" in said(path, zipped({**files, "a\\b": b"", "a/b": b""}))


def test_a_place_where_nothing_is_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no file or folder .*wolves.zip"):
        read_export(tmp_path / "wolves.zip")


def test_reading_writes_nothing(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    there = sorted(packed.parent.rglob("*"))
    open_export(packed)
    assert sorted(packed.parent.rglob("*")) == there and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../model.onnx", "a/../../x", "/etc/x", "C:\\x", "c:x", "..\\x", "a\\..\\..\\b"])
def test_a_name_that_leads_out_of_its_folder_is_refused(name: str, files: dict[str, bytes], tmp_path: Path) -> None:
    data = zipped({**files, name: b"x"})
    if os.sep == "\\":
        pytest.skip("zipfile changes these names on Windows")
    assert "leads out of its folder" in said(tmp_path / "x.zip", data)


def test_a_link_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    made = io.BytesIO(zipped(files))
    with zipfile.ZipFile(made, "a") as archive:
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert "leads out of its folder" in said(tmp_path / "x.zip", made.getvalue())


def test_one_that_unpacks_to_far_more_is_not_unpacked(files: dict[str, bytes], tmp_path: Path) -> None:
    bomb = {**files, "model.onnx": bytes(19_000_000)}
    assert "would unpack to 19 MB" in said(tmp_path / "x.zip", zipped(bomb))
    bomb = {**files, "manifest.json": b" " * 17_000_000}
    assert "would unpack to 17 MB" in said(tmp_path / "x.zip", zipped(bomb))


def test_one_that_says_less_than_it_unpacks_to_is_damaged(files: dict[str, bytes], tmp_path: Path) -> None:
    data = bytearray(zipped({**files, "model.onnx": bytes(1_000_000)}))
    (at,) = [m for m in range(len(data)) if data[m : m + 4] == b"PK\1\2" and b"model.onnx" in data[m + 46 : m + 56]]
    data[at + 24 : at + 28] = struct.pack("<I", 1000)
    said(tmp_path / "x.zip", bytes(data))


def test_one_with_a_password_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    data = bytearray(zipped(files))
    for at in range(len(data)):
        if data[at : at + 4] == b"PK\1\2":
            data[at + 8] |= 1
    assert "protected by a password" in said(tmp_path / "x.zip", bytes(data))


def test_one_packed_in_a_way_that_is_not_read_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    assert "does not read" in said(tmp_path / "x.zip", zipped(files, method=zipfile.ZIP_BZIP2))


def test_another_zip_file_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    foreign = "is not an export of this program"
    assert foreign in said(path, zipped({"a.txt": b"x"})) and foreign in said(path, zipped({}))
    assert foreign in said(path, zipped({**files, "manifest.json": b"{}"}))
    assert foreign in said(path, zipped({**files, "manifest.json": b"[]"}))
    assert foreign in said(path, zipped(files, "a/b/"))
    assert foreign in said(path, zipped({**files, "copy/manifest.json": b"{}"}))
    assert foreign in said(path, zipped({str(i): b"" for i in range(MOST_MEMBERS + 1)}))
    assert "cannot be read" in said(path, zipped({**files, "manifest.json": b"\xff"}))
    assert "damaged or not copied whole" in said(path, b"")
    assert "damaged or not copied whole" in said(path, b"<html>not found</html>")
    newer = json.dumps({**json.loads(files["manifest.json"]), "format": 2}).encode("utf-8")
    assert "format 2; this version reads format 1" in said(path, zipped({**files, "manifest.json": newer}))
    assert "incomplete" in said(path, zipped({k: v for k, v in files.items() if k != "model.onnx"}))
    assert "not the file that manifest.json names" in said(path, zipped({**files, "classes.json": b"[]"}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    made = io.BytesIO(zipped(files))
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("model.onnx", b"another")
    assert "twice the same name" in said(tmp_path / "x.zip", made.getvalue())


def test_one_that_was_not_copied_whole_is_refused(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    for size in np.linspace(1, len(data) - 1, 12, dtype=int).tolist():
        assert "damaged or not copied whole" in said(tmp_path / "x.zip", data[:size])


Change = tuple[int, bytes]


@settings(max_examples=40, deadline=None)
@given(change=tuples(integers(0, 10**9), one_of(binary(min_size=1, max_size=6), just(b"PK\1\2"))))
def test_whatever_is_damaged_it_is_refused_in_words_or_read_rightly(
    change: Change, packed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(packed.read_bytes())
    # Half of the places are in the directory at the end, where most can go wrong.
    at = change[0] % len(data) if change[0] % 2 else len(data) - 1 - change[0] % 1500
    data[at : at + len(change[1])] = change[1]
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(data)
    try:
        model, classes = read_export(path)
    except ModelError as error:
        assert "damaged.zip" in str(error)
    else:
        assert (model, tuple(classes)) == read_export(packed)[:1] + (CLASSES,)


@pytest.mark.parametrize("mode", ["enospc", "eio", "short"])
def test_a_full_disk_leaves_the_old_file(
    mode: str, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(b"old")
    for n in (1, 2):
        monkeypatch.setattr(failpoints, "count", 0)
        monkeypatch.setattr(failpoints, "mode", mode)
        monkeypatch.setattr(failpoints, "fail_at", n)
        with pytest.raises(OSError):
            write_zip(path, files)
        monkeypatch.setattr(failpoints, "fail_at", 0)
        assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_holds_an_export_is_told_from_the_rest(files: dict[str, bytes], packed: Path, tmp_path: Path) -> None:
    assert holds_export(packed)
    for name, data in (("a.zip", zipped({"a": b"b"})), ("b.zip", b"PK"), ("c.zip", b"")):
        (tmp_path / name).write_bytes(data)
        assert not holds_export(tmp_path / name)
    folder = tmp_path / "folder"
    folder.mkdir()
    for data in (files["manifest.json"].replace(b'"export"', b'"model"'), b'{"name": "of another program"}', b""):
        (folder / "manifest.json").write_bytes(data)
        assert not holds_export(folder) and not holds_export(tmp_path / "nowhere")
    (folder / "manifest.json").write_bytes(files["manifest.json"])
    assert holds_export(folder)
