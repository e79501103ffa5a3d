"""A folder through an export: every image gets its row, whatever lies beside it, and torch is not there."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_model import make_source, save_picture

from camera_trap_al.errors import ModelError, UsageError
from camera_trap_al.exporters import exporters
from camera_trap_al.learn.predict import classify, find_images, open_export
from camera_trap_al_service.predicting import Asked, Predicted, predict

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_export(tmp_path_factory.mktemp("work"), CLASSES)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images in folders of several depths, more than one batch."""
    root = tmp_path_factory.mktemp("images")
    folders = ["", "site 1", "site 1/deep", "сайт 2"]
    for i in range(20):
        name = CLASSES[i % 3]
        save_picture(root / folders[i % 4] / f"{name}{i:02}.{['jpg', 'PNG', 'webp', 'bmp'][i % 4]}", name, seed=i)
    return root


def make_export(root: Path, classes: tuple[str, ...]) -> Path:
    folder = root / "export"
    folder.mkdir()
    exporters["onnx"].write(make_source(root, classes), folder)
    return folder


def predicted(export: Path, images: Path, out: Path, **options: object) -> tuple[Predicted, list[dict[str, str]]]:
    summary = predict(export, images, out, Asked(**options))  # type: ignore[arg-type]
    with out.open(encoding="utf-8", newline="") as file:
        return summary, list(csv.DictReader(file))


def test_every_image_of_every_folder_gets_its_row_in_order(export: Path, images: Path, tmp_path: Path) -> None:
    summary, rows = predicted(export, images, tmp_path / "out.csv")
    assert summary == Predicted(20, (), None, (f"Classified 20 images; see {tmp_path / 'out.csv'}",))
    assert list(rows[0]) == ["RelativePath", "File", "Species", "Confidence"]
    keys = [(row["RelativePath"], row["File"]) for row in rows]
    assert keys == sorted(keys) and len(set(keys)) == 20
    assert {folder for folder, _ in keys} == {"", "site 1", "site 1/deep", "сайт 2"}
    assert all(row["File"].startswith(row["Species"]) for row in rows)
    assert all(0 < float(row["Confidence"]) <= 1 for row in rows)


def test_an_image_alone_gets_the_row_that_it_gets_among_others(export: Path, images: Path, tmp_path: Path) -> None:
    _, together = predicted(export, images, tmp_path / "out.csv", probabilities=True)
    for row in together[::8]:
        path = images / row["RelativePath"] / row["File"]
        summary, (alone,) = predicted(export, path, tmp_path / "one.csv", probabilities=True)
        assert summary.n == 1
        assert alone == {**row, "RelativePath": ""}


@pytest.mark.parametrize("cores", [1, 3, 20])
def test_however_many_cores_compute_the_csv_is_the_same(
    cores: int, export: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted(export, images, tmp_path / "here.csv", probabilities=True)
    monkeypatch.setattr("camera_trap_al.learn.predict.usable_cores", lambda: cores)
    predicted(export, images, tmp_path / "there.csv", probabilities=True)
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_probabilities_are_one_prefixed_column_a_class(images: Path, tmp_path: Path) -> None:
    export = make_export(tmp_path, ("=1+1", "File", "Species"))
    _, rows = predicted(export, images, tmp_path / "out.csv", probabilities=True)
    assert list(rows[0]) == ["RelativePath", "File", "Species", "Confidence", "p_=1+1", "p_File", "p_Species"]
    for row in rows:
        proba = [float(row[name]) for name in ("p_=1+1", "p_File", "p_Species")]
        assert sum(proba) == pytest.approx(1, abs=2e-4)
        assert float(row["Confidence"]) == max(proba)
        assert row["Species"] == ["'=1+1", "File", "Species"][proba.index(max(proba))]


def test_below_the_least_confidence_the_species_is_unknown(export: Path, images: Path, tmp_path: Path) -> None:
    _, all_named = predicted(export, images, tmp_path / "a.csv", min_confidence=0.0)
    _, none_named = predicted(export, images, tmp_path / "b.csv", min_confidence=1.1)
    assert "unknown" not in {row["Species"] for row in all_named}
    assert {row["Species"] for row in none_named} == {"unknown"}
    assert [r["Confidence"] for r in all_named] == [r["Confidence"] for r in none_named]


def test_unreadable_images_are_listed_beside_and_the_rest_is_classified(export: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "images", tmp_path / "out.csv"
    save_picture(root / "a" / "good.jpg", "red", seed=1)
    (root / "a" / "cut.jpg").write_bytes((root / "a" / "good.jpg").read_bytes()[:300])
    (root / "empty.jpg").write_bytes(b"")
    summary, rows = predicted(export, root, out)
    assert [row["File"] for row in rows] == ["good.jpg"]
    assert (summary.n, [path for path, _ in summary.unreadable]) == (1, ["empty.jpg", "a/cut.jpg"])
    beside = tmp_path / "out.csv.unreadable.csv"
    assert summary.unreadable_csv == beside
    with beside.open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [(row["RelativePath"], row["File"]) for row in listed] == [("", "empty.jpg"), ("a", "cut.jpg")]
    assert "empty" in listed[0]["Problem"]
    for name in ("a/cut.jpg", "empty.jpg"):
        (root / name).unlink()
    predicted(export, root, out)
    assert not beside.exists()


def test_what_is_no_image_of_the_study_is_left_out(tmp_path: Path) -> None:
    for path in ("a.jpg", "b.JPEG", "c.tif", "d.gif", "._a.jpg", "notes.txt", "movie.mp4"):
        (tmp_path / path).write_bytes(b"")
    for folder in (".hidden", "Backups", "DeletedFiles", "x/Backups", "x/y"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "e.jpg").write_bytes(b"")
    keys, problems = find_images(tmp_path)
    assert [key.path for key in keys] == ["a.jpg", "b.JPEG", "c.tif", "d.gif", "x/y/e.jpg"]
    assert problems == []


def test_progress_is_told_up_to_the_last_image(
    export: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camera_trap_al.learn.predict.CHUNK_IMAGES", 16)
    monkeypatch.setattr("camera_trap_al.learn.predict.usable_cores", lambda: 1)
    told: list[tuple[int, int]] = []
    predict(export, images, tmp_path / "out.csv", Asked(), lambda _: lambda done, total: told.append((done, total)))
    assert told == [(16, 20), (20, 20)]


def test_a_chunk_has_work_for_each_core(
    export: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camera_trap_al.learn.predict.CHUNK_IMAGES", 8)
    monkeypatch.setattr("camera_trap_al.learn.predict.usable_cores", lambda: 4)
    told: list[int] = []
    predict(export, images, tmp_path / "out.csv", Asked(), lambda _: lambda done, total: told.append(done))
    assert told == [16, 20]


def test_a_stop_leaves_the_old_csv_and_nothing_else(export: Path, images: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out.csv"
    old = "RelativePath,File,Species,Confidence\r\n"
    out.write_text(old, encoding="utf-8", newline="")
    with pytest.raises(KeyboardInterrupt):
        predict(export, images, out, Asked(), lambda _: stop)
    assert out.read_bytes().decode() == old
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_holds_something_else_is_never_overwritten(export: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "IMG_0001.JPG"
    out.write_bytes(b"\xff\xd8 a photograph")
    with pytest.raises(UsageError, match="holds something else than predictions"):
        predict(export, images, out, Asked())
    with pytest.raises(UsageError, match="There is no folder"):
        predict(export, images, tmp_path / "nowhere" / "out.csv", Asked())
    assert out.read_bytes() == b"\xff\xd8 a photograph" and list(tmp_path.iterdir()) == [out]


def test_outcomes_can_be_taken_one_by_one_without_a_csv(export: Path, images: Path) -> None:
    model = open_export(export)
    keys, _ = find_images(images)
    best = [model.classes[int(o.proba.argmax())] for o in classify(model, images, keys) if o.proba is not None]
    assert [key.file.startswith(name) for key, name in zip(keys, best, strict=True)] == [True] * 20


@pytest.mark.parametrize("what", ["nothing", "a.txt"])
def test_nothing_to_classify_is_said_in_words(what: str, export: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    if what != "nothing":
        (folder / what).write_bytes(b"")
    with pytest.raises(UsageError, match="no images in"):
        predict(export, folder, tmp_path / "out.csv", Asked())
    with pytest.raises(UsageError, match="no folder or image"):
        predict(export, folder / "gone", tmp_path / "out.csv", Asked())
    with pytest.raises(UsageError, match="is a folder"):
        predict(export, folder, tmp_path, Asked())


def test_a_damaged_foreign_or_incomplete_export_is_refused_in_words(export: Path, tmp_path: Path) -> None:
    export = Path(shutil.copytree(export, tmp_path / "export"))
    whole = {path.name: path.read_bytes() for path in export.iterdir()}
    manifest = json.loads(whole["manifest.json"])

    def said(name: str, data: bytes | None) -> str:
        (export / name).unlink()
        if data is not None:
            (export / name).write_bytes(data)
        with pytest.raises(ModelError) as raised:
            open_export(export)
        (export / name).write_bytes(whole[name])
        return str(raised.value)

    assert "is not an export of this program" in said("manifest.json", None)
    assert "is not an export of this program" in said("manifest.json", b'{"format": 1}')
    assert "holds no JSON object" in said("manifest.json", b"[]")
    assert "cannot be read" in said("manifest.json", b"\xff{")
    assert "format 2; this version reads" in said("manifest.json", json.dumps({**manifest, "format": 2}).encode())
    assert "incomplete" in said("manifest.json", json.dumps({**manifest, "files": {}}).encode())
    assert "incomplete" in said("model.onnx", None)
    assert "not the file that manifest.json names" in said("model.onnx", whole["model.onnx"][:-1] + b"x")
    assert "not the file that manifest.json names" in said("classes.json", b"[]")
    assert open_export(export).classes == CLASSES
    with pytest.raises(ModelError, match="There is no file or folder"):
        open_export(tmp_path / "gone")


def test_predicting_works_where_torch_cannot_be_imported(export: Path, images: Path, tmp_path: Path) -> None:
    script = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]!r}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "pandas", "onnx", "skl2onnx", "sklearn"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from pathlib import Path
import conftest
from camera_trap_al_service.predicting import Asked, predict
summary = predict(Path({str(export)!r}), Path({str(images)!r}), Path({str(tmp_path / "out.csv")!r}), Asked())
assert summary.n == 20, summary
"""
    subprocess.run([sys.executable, "-c", script], check=True)
