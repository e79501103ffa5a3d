"""The simulated user and our templates against the project's independent re-statement of Timelapse's rules."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.errors import TemplateError
from camera_trap_al.labels.template import make_template, missing_fields, read_template
from camera_trap_al_service.timelapse_files import csv_line, find_images, split_csv
from camera_trap_al_service.timelapse_user import ImageSet

CLASSES = ["deer", "red fox", 'bird, "small"', "кабан", "🦌", "a=b|c", "x" * 300]
FOLDERS = ["", "North", "North/Deep, 2", "Süd 'b'", "Süd 'b'/it's \"q\"" if os.name != "nt" else "Süd 'b'/it's", "east"]
FILES = ["IMG_1.JPG", "img 2.jpg", "a,b.jpg", "Ä é.Jpg", "clip (1).mp4", 'say "x".jpg' if os.name != "nt" else "x.jpg"]
HEADERS = ["Selected", "Species", "Count", "Prediction", "Confirmed", "DateTime", "Date", "Time", "RootFolder"]
CELLS = {
    "Selected": ["true", "false", "True", " FALSE "],
    "Confirmed": ["true", "false"],
    "Species": ["", "deer", 'bird, "small"', "🦌"],
    "Count": ["", "0", "-4", "12 "],
    "Prediction": ["", "=1+1", ' "quoted"', "two\r\nlines"],
    "DateTime": ["2020-02-29 01:02:03", "2020-02-29T01:02:03", "2020-02-30 01:02:03", "", "soon"],
    "Date": ["03-Jul-2017", "30-FEB-2017", ""],
    "Time": ["09:05:00", "24:00:00", ""],
    "RootFolder": ["", "anything"],
}
BAD_CELLS = {"Selected": ["1", "", "yes"], "Confirmed": ["0"], "Species": ["wolf", "Deer"], "Count": ["1.5", "many"]}


def shared_folder() -> Path | None:
    for folder in Path(__file__).resolve().parents:
        found = folder / "shared" / "timelapse"
        if (found / "timelapse_oracle.py").is_file():
            return found
    return None


SHARED = shared_folder()
pytestmark = pytest.mark.skipif(
    SHARED is None, reason="shared/timelapse/timelapse_oracle.py is not beside this checkout"
)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    assert SHARED is not None
    spec = importlib.util.spec_from_file_location("timelapse_oracle", SHARED / "timelapse_oracle.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@cache
def template_bytes() -> bytes:
    with TemporaryDirectory() as folder:
        make_template(Path(folder) / "new.tdb", CLASSES)
        return (Path(folder) / "new.tdb").read_bytes()


@contextmanager
def image_root(images: set[tuple[str, str]]) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        root = Path(folder) / "Root, 1"
        for n, (relative_path, file) in enumerate(sorted(images)):
            path = root / relative_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            taken = datetime(2024, 1, 1 + n * 5 % 7, 12).timestamp()
            os.utime(path, (taken, taken))
        (root / "TimelapseTemplate.tdb").write_bytes(template_bytes())
        yield root


@st.composite
def selectors(draw: st.DrawFn, images: list[tuple[str, str]]) -> bytes:
    """Draw a CSV over some of the images: mostly right, with every kind of fault now and then."""
    headers = ["File", "RelativePath", *draw(st.lists(st.sampled_from(HEADERS), unique=True, max_size=4))]
    headers = draw(st.permutations(headers))
    fault = draw(st.sampled_from(["", "", "", "", "", "bad value", "short row", "header", "blank header", "missing"]))
    rows = []
    for relative_path, file in draw(st.lists(st.sampled_from(images), min_size=1, max_size=12)):
        spelling = draw(st.sampled_from(["/", "\\", "\\", "\\", "empty", "lower", "dot", "end"]))
        spelled = relative_path.replace("/", spelling if spelling in "/\\" else "\\")
        ended = f"{spelled}\\" if spelled else ""
        spelled = {"empty": "", "lower": spelled.lower(), "dot": f".\\{spelled}", "end": ended}.get(spelling, spelled)
        cells = {h: draw(st.sampled_from(CELLS[h])) for h in headers if h in CELLS}
        rows.append([{"File": file, "RelativePath": spelled, **cells}[header] for header in headers])
    n = draw(st.integers(0, len(rows) - 1))
    column = draw(st.integers(0, len(headers) - 1))
    if fault == "bad value":
        rows[n][column] = draw(st.sampled_from(BAD_CELLS.get(headers[column], ["odd"])))
    elif fault == "short row":
        rows[n] = rows[n][:column]
    elif fault == "header":
        headers[column] = draw(st.sampled_from(["Score", "selected", "file ", headers[0]]))
    elif fault == "blank header":
        headers.insert(column, "")
    elif fault == "missing":
        headers = [header for header in headers if header != draw(st.sampled_from(["File", "RelativePath"]))]
    return b"".join(csv_line(cells) for cells in [headers, *rows])


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_imports_selections_and_exports_agree(reference: ModuleType, data: st.DataObject) -> None:
    every = [(folder, file) for folder in FOLDERS for file in FILES]
    images = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=10, unique=True))
    with image_root(set(images)) as root:
        user = ImageSet.open(root, root / "TimelapseTemplate.tdb")
        with reference.ImageSet.open(root, root / "TimelapseTemplate.tdb") as other:
            compare(reference, data, root, images, user, other)


def compare(reference, data, root, images, user, other) -> None:  # type: ignore[no-untyped-def]
    for relative_path, file in data.draw(st.lists(st.sampled_from(images), max_size=3)):
        user.duplicate(next(row for row in user.select_all() if row.key == (relative_path, file)))
        other.duplicate(other.find(relative_path, file)["Id"])
    for _ in range(data.draw(st.integers(1, 3))):
        path = root / "selector.csv"
        path.write_bytes(data.draw(selectors([*images, ("", "new.jpg")])))
        ours, theirs = user.import_csv(path), other.import_csv(path)
        shown = [message.split(" (technical reason")[0] for message in theirs.messages]
        told = (theirs.imported, theirs.rows_changed, theirs.unmatched, shown)
        assert (ours.imported, ours.rows_changed, ours.unmatched, ours.messages) == told
        other.select_all()
        user.select_all()
        assert exported(user, root) == other.export_bytes()
        other.select([("Selected", "=", "true")])
        user.select_selected()
        assert exported(user, root) == other.export_bytes()


def exported(user: ImageSet, root: Path) -> bytes:
    (root / "out.csv").unlink(missing_ok=True)
    user.export_csv(root / "out.csv")
    return (root / "out.csv").read_bytes()


@given(text=st.text(st.sampled_from('a"", \r\n\tb'), max_size=20))
@settings(max_examples=100, deadline=None)
def test_csv_texts_are_split_alike(reference: ModuleType, text: str) -> None:
    assert split_csv(text) == reference.read_rows(text)


def test_the_same_images_are_found(reference: ModuleType) -> None:
    images = {(folder, file) for folder in FOLDERS for file in FILES} | {("Backups", "a.jpg"), ("", "._a.jpg")}
    with image_root(images | {("", "a.jpeg"), ("north 2", "b.png")}) as root:
        assert find_images(root) == reference.scan_images(root)


@pytest.mark.parametrize("classes", [CLASSES, ["one"], [f"species {n}" for n in range(2000)]])
def test_our_template_passes_every_check(reference: ModuleType, tmp_path: Path, classes: list[str]) -> None:
    path = tmp_path / "TimelapseTemplate.tdb"
    make_template(path, classes)
    assert [str(finding) for finding in reference.check_tdb(path)] == []
    assert reference.Template.open(path).control("Species").choices.items == classes


def test_a_template_without_classes_is_good_too(reference: ModuleType, tmp_path: Path) -> None:
    make_template(tmp_path / "a.tdb", [])
    assert list(reference.check_tdb(tmp_path / "a.tdb")) == []


@pytest.mark.parametrize("name", ["template_2.3_alberta.tdb", "template_2.3_camtrapdp.tdb"])
def test_real_templates_are_read_as_they_are(reference: ModuleType, name: str) -> None:
    assert SHARED is not None
    path = SHARED / "samples" / name
    template, other = read_template(path), reference.Template.open(path)
    ours = [(f.data_label, f.type, f.default, list(f.choices), f.label) for f in template.fields]
    theirs = [(c.data_label, c.type, c.default, c.choices.items, c.label) for c in other.in_control_order()]
    assert ours == theirs and len(ours) >= 20
    assert missing_fields(template) == ["Species", "Selected"]


def test_a_real_template_from_before_2_3_is_refused() -> None:
    assert SHARED is not None
    with pytest.raises(TemplateError, match="before 2.3"):
        read_template(SHARED / "samples" / "template_pre2.3_utc.tdb")


def test_a_real_image_database_is_no_template() -> None:
    assert SHARED is not None
    with pytest.raises(TemplateError, match="tables are not those of a template"):
        read_template(SHARED / "samples" / "imagedata_2.3.3_three_levels.ddb")
