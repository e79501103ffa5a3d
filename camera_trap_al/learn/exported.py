"""An export as it comes to somebody: its folder, a ZIP file of it, or `model.onnx` alone. Read and verified, in memory."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from camera_trap_al.errors import ModelError
from camera_trap_al.learn.onnx_files import check_self_contained, class_names, read_alone
from camera_trap_al.store.json_files import read_object

MANIFEST, MODEL, CLASSES = "manifest.json", "model.onnx", "classes.json"
MANIFEST_FORMAT = 1
KIND = "export"
HINT = "Give the folder `export` of a work folder, its `model.onnx`, or a ZIP file of `export --zip`."
AGAIN = "Export again."
COPY_AGAIN = "Copy it again, or have it made again by `camera-trap-al export WORK --zip FILE.zip`."
ZIP_START = b"PK"
# Protocol buffers, of which an ONNX file consists, end at 2 GB.
MOST_MODEL_BYTES = 2**31
MOST_TEXT_BYTES = 16_000_000
MOST_MEMBERS = 1000
# Weights hardly become smaller; zeros, of which a planted file consists, a thousandfold.
MOST_SHRUNK = 100
ENCRYPTED = 1
# What `zipfile` raises for bytes that are none, or none that it knows.
NO_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError, UnicodeDecodeError)
_DRIVE = re.compile(r"[A-Za-z]:")

Read = Callable[[str], bytes]


def read_export(path: Path) -> tuple[bytes, list[str]]:
    """Return `model.onnx` of an export as bytes, and the names of its classes. Writes nothing, anywhere.

    Parameters
    ----------
    path : a folder that `export` wrote, a ZIP file of `export --zip` (or of that folder, made by another program), or
        `model.onnx` alone, under any name

    Raises
    ------
    ModelError
        It is no export of this program, incomplete, damaged, being rewritten, or of a newer format; or a ZIP file holds
        what no export has: protected, too large or wrongly named files.
    """
    if not path.exists():
        raise ModelError(f"There is no file or folder {path}.", hint=HINT)
    if path.is_file():
        with path.open("rb") as file:
            is_zip = file.read(len(ZIP_START)) == ZIP_START or path.suffix.lower() == ".zip"
        return _read_zip(path) if is_zip else _read_alone(path)
    return _read_files(lambda name: (path / name).read_bytes(), _folder_manifest(path), path)


def holds_export(path: Path) -> bool:
    """Return whether a folder or a ZIP file is one of an export, as far as its manifest says."""
    try:
        if path.is_dir():
            _folder_manifest(path)
        else:
            with zipfile.ZipFile(path) as archive:
                _check_manifest(_packed_manifest(_members_by_name(archive, path), archive, path)[1], path, MANIFEST)
    except (ModelError, *NO_ZIP):
        return False
    return True


def _read_alone(path: Path) -> tuple[bytes, list[str]]:
    size = path.stat().st_size
    if size > MOST_MODEL_BYTES:
        raise ModelError(f"{path} is too large for an ONNX file ({size / 1e9:.1f} GB).", hint=HINT)
    data = path.read_bytes()
    return data, read_alone(data, str(path))


def _read_zip(path: Path) -> tuple[bytes, list[str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members_by_name(archive, path)
            top, manifest = _packed_manifest(members, archive, path)
            _check_manifest(manifest, path, f"{MANIFEST} of {path}")
            return _read_files(
                lambda name: _unpacked(archive, members[top + name], path, _most_bytes(name)), manifest, path
            )
    except NO_ZIP as error:
        raise ModelError(f"{path} is no ZIP file, damaged or not copied whole ({error}).", hint=COPY_AGAIN) from error


def _packed_manifest(
    members: Mapping[str, zipfile.ZipInfo], archive: zipfile.ZipFile, path: Path
) -> tuple[str, dict[str, Any]]:
    """Return the folder of the archive that holds the export, "" for its top, and the manifest there."""
    found = [name for name in members if name.rpartition("/")[2] == MANIFEST and name.count("/") <= 1]
    if len(found) != 1:
        how = "several files" if found else "no file"
        raise ModelError(f"{path} is not an export of this program: it has {how} called {MANIFEST}.", hint=HINT)
    data = _unpacked(archive, members[found[0]], path, MOST_TEXT_BYTES)
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{MANIFEST} of {path} cannot be read ({error}).", hint=COPY_AGAIN) from error
    return found[0].removesuffix(MANIFEST), manifest if isinstance(manifest, dict) else {}


def _members_by_name(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    r"""Return the members by name, in which a `\` of Windows PowerShell 5 is a `/`.

    Raises `ModelError` for what no export holds, so that nobody unpacks it either.
    """
    members = archive.infolist()
    by_name = {member.orig_filename.replace("\\", "/"): member for member in members}
    if len(members) > MOST_MEMBERS or len(by_name) < len(members):
        why = "twice the same name" if len(members) <= MOST_MEMBERS else f"{len(members):,} files"
        raise ModelError(f"{path} is not an export of this program: it holds {why}.", hint=HINT)
    for name, member in by_name.items():
        kind = stat.S_IFMT(member.external_attr >> 16)
        is_outside = "\0" in name or name.startswith("/") or ".." in name.split("/")
        if is_outside or _DRIVE.match(name) or kind == stat.S_IFLNK:
            raise ModelError(
                f"{path} holds a file whose name leads out of its folder ({ascii(name[:60])}), which no export does; it"
                " was not opened.",
                hint="Somebody may mean harm: do not unpack it, and ask who sent it.",
            )
    return by_name


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, most: int) -> bytes:
    """Return a member's bytes. Raises `ModelError` for one that must not be unpacked."""
    if member.flag_bits & ENCRYPTED:
        raise ModelError(f"{path} is protected by a password.", hint="Have it made again without one.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelError(f"{path} is packed in a way that this program does not read.", hint=COPY_AGAIN)
    if member.file_size > min(most, MOST_TEXT_BYTES + MOST_SHRUNK * member.compress_size):
        raise ModelError(
            f"{member.filename} in {path} would unpack to {member.file_size / 1e6:,.0f} MB, which no export does; it was"
            " not opened.",
            hint="Somebody may mean harm: do not unpack it, and ask who sent it.",
        )
    with archive.open(member) as file:
        return file.read(member.file_size)


def _most_bytes(name: str) -> int:
    return MOST_MODEL_BYTES if name == MODEL else MOST_TEXT_BYTES


def _folder_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = read_object(path)
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is not an export of this program: it has no {MANIFEST}.", hint=HINT) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}).", hint=AGAIN) from error
    _check_manifest(manifest, folder, str(path))
    return manifest


def _check_manifest(manifest: dict[str, Any], export: Path, name: str) -> None:
    if manifest.get("kind") != KIND or not isinstance(manifest.get("files"), dict):
        raise ModelError(f"{export} is not an export of this program: {MANIFEST} says nothing of an export.", hint=HINT)
    if manifest.get("format") != MANIFEST_FORMAT:
        text = f"{name} is of format {manifest.get('format')}; this version reads format {MANIFEST_FORMAT}."
        raise ModelError(text, hint="Update the program.")


def _read_files(read: Read, manifest: dict[str, Any], export: Path) -> tuple[bytes, list[str]]:
    classes = class_names(_read_verified(read, CLASSES, manifest, export), str(export / CLASSES))
    model = _read_verified(read, MODEL, manifest, export)
    check_self_contained(model, str(export / MODEL))
    return model, classes


def _read_verified(read: Read, name: str, manifest: dict[str, Any], export: Path) -> bytes:
    """Return the bytes of a file, which are those that the manifest names."""
    try:
        noted = manifest["files"][name]["sha256"]
        data = read(name)
    except (OSError, KeyError, TypeError) as error:
        raise ModelError(f"{export / name} is missing: the export is incomplete.", hint=AGAIN) from error
    if hashlib.sha256(data).hexdigest() != noted:
        raise ModelError(
            f"{export / name} is not the file that {MANIFEST} names: it is damaged, or being rewritten right now.",
            hint="Try again in a minute; if that does not help, export again.",
        )
    return data
