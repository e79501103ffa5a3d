"""An export in the hands of somebody else: `model.onnx` alone, and what it says of itself."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_model import COLOURS, MEAN, STD, make_source, picture, raw_onnx, save_picture
from PIL import Image, ImageOps

from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import ModelError
from camera_trap_al.exporters import ExportSource, RunFacts, exporters
from camera_trap_al.images import EXIF_ORIENTATION, read_image
from camera_trap_al.learn.onnx_files import SEAL, read_alone, read_onnx_facts, seal
from camera_trap_al.learn.predict import classify, open_export

DOCS = Path(__file__).parents[2] / "docs" / "exports.md"
CLASSES = ("blue", "green", "red")
RUN = RunFacts(
    labels={"blue": 31, "red": 7},
    calibration_error=0.042,
    calibrated_on="120 validation images",
    licence="CC BY 4.0,\n see our page",
)
OLD_KEYS = ("classes", "mean", "std", "preprocessing", "checkpoint", "learner", "created_by")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    return replace(make_source(tmp_path_factory.mktemp("work"), CLASSES), run=RUN)


@pytest.fixture(scope="module")
def export(source: ExportSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    exporters["onnx"].write(source, folder)
    return folder


def about(data: bytes) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load_model_from_string(data).metadata_props}


def with_metadata(data: bytes, **values: str) -> bytes:
    """Return the file with other metadata; an empty value takes the key away."""
    model = onnx.load_model_from_string(data)
    onnx.helper.set_model_props(model, {k: v for k, v in {**about(data), **values}.items() if v})
    changed: bytes = model.SerializeToString()
    return changed


def said(data: bytes) -> str:
    with pytest.raises(ModelError) as raised:
        read_alone(data, "given.onnx")
    return str(raised.value)


def test_model_onnx_says_all_that_is_needed_to_use_it(export: Path) -> None:
    found = about((export / "model.onnx").read_bytes())
    assert json.loads(found["classes"]) == list(CLASSES)
    assert json.loads(found["training_counts"]) == {"blue": 31, "red": 7}
    assert json.loads(found["mean"]) == MEAN and json.loads(found["std"]) == STD
    wanted = json.loads(found["input"])
    assert (wanted["colour_order"], wanted["value_range"], wanted["shape"][1:]) == ("RGB", [0, 255], [256, 256, 3])
    assert "bilinear" in wanted["resize"] and wanted["name"] == "images"
    calibration = json.loads(found["calibration"])
    assert calibration == {
        "temperature": 1.0,
        "folded_in": True,
        "expected_calibration_error": 0.042,
        "measured_on": "120 validation images",
    }
    assert found["licence"] == "CC BY 4.0, see our page"
    assert found["created_by"].startswith("camera_trap_al ") and found["checkpoint"] == "1"


def test_the_licence_is_the_owners_where_none_is_given(tmp_path: Path) -> None:
    files = exporters["onnx"].contents(make_source(tmp_path, CLASSES))
    assert "the owner of the images and labels decides" in about(files["model.onnx"])["licence"]
    assert json.loads(about(files["model.onnx"])["training_counts"]) == {}


def test_each_key_of_the_metadata_is_documented(export: Path) -> None:
    text = DOCS.read_text(encoding="utf-8")
    table = text.partition("| key | what it says |")[2].partition("\n\n")[0]
    documented = {
        key for row in re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)
    }
    assert documented == set(about((export / "model.onnx").read_bytes()))


def test_the_example_of_the_documentation_runs_with_model_onnx_alone(export: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.+?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 15
    (tmp_path / "model.onnx").write_bytes((export / "model.onnx").read_bytes())
    save_picture(tmp_path / "photo.jpg", "green", seed=3)
    ran = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    named = dict(line.split("\t") for line in ran.stdout.splitlines())
    model = open_export(tmp_path / "model.onnx")
    (outcome,) = classify(model, tmp_path, [ImageKey("", "photo.jpg")])
    assert outcome.proba is not None and next(iter(named)) == "green"
    assert {name: float(named[name]) for name in CLASSES} == pytest.approx(
        dict(zip(CLASSES, outcome.proba.tolist(), strict=True)), abs=0.01
    )


def test_the_examples_see_a_large_photograph_as_predict_does(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(4).integers(0, 256, (180, 240, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.fromarray(noise).save(tmp_path / "photo.jpg", exif=exif)
    monkeypatch.chdir(tmp_path)
    for example in (DOCS, export / "README_export.txt"):
        lines = [line.strip() for line in example.read_text(encoding="utf-8").splitlines()]
        start = lines.index('photo = Image.open("photo.jpg")')
        names: dict[str, Any] = {"Image": Image, "ImageOps": ImageOps}
        exec("\n".join(lines[start : start + 3]), names)
        seen = np.asarray(names["image"].resize((256, 256), Image.Resampling.BILINEAR))
        assert np.array_equal(seen, read_image(tmp_path / "photo.jpg")), example


def test_model_onnx_alone_predicts_as_the_folder_does(export: Path, tmp_path: Path) -> None:
    alone = tmp_path / "wolves 2026.ONNX"
    alone.write_bytes((export / "model.onnx").read_bytes())
    images = np.stack([picture(colour, seed=70 + i) for i, colour in enumerate(COLOURS.values())])
    model, whole = open_export(alone), open_export(export)
    assert model.classes == whole.classes == CLASSES
    assert np.array_equal(model.probabilities(images), whole.probabilities(images))


def test_an_export_of_an_older_version_still_opens(export: Path, tmp_path: Path) -> None:
    """Its metadata had fewer keys, and there was no model card."""
    data = (export / "model.onnx").read_bytes()
    old = with_metadata(data, **{key: "" for key in about(data) if key not in OLD_KEYS})
    assert set(about(old)) == set(OLD_KEYS)
    assert read_alone(old, "model.onnx") == list(CLASSES)
    manifest = json.loads((export / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"].pop("model_card.md")
    manifest["files"]["model.onnx"] = {"bytes": len(old), "sha256": hashlib.sha256(old).hexdigest()}
    (tmp_path / "model.onnx").write_bytes(old)
    (tmp_path / "classes.json").write_bytes((export / "classes.json").read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert open_export(tmp_path).classes == CLASSES


def test_another_onnx_file_is_refused_in_a_sentence(export: Path) -> None:
    data = (export / "model.onnx").read_bytes()
    assert "was not made by this program" in said(raw_onnx())
    assert "was not made by this program" in said((export / "classifier.onnx").read_bytes())
    assert "was not made by this program" in said(with_metadata(data, created_by="camera_trap_alpha 1"))
    assert "another part of an export" in said((export / "embedding.onnx").read_bytes())
    assert "format '2'" in said(with_metadata(data, format="2"))
    assert "damaged, or somebody has changed it" in said(with_metadata(data, classes='["a", "b", "c"]'))
    assert "which are not its outputs" in said(with_metadata(data, classes='["a", "b"]', **{SEAL: ""}))
    assert "no list of class names" in said(with_metadata(data, classes="{", **{SEAL: ""}))
    assert "given.onnx" in said(b"") and "no ONNX file" in said(b"")


def resealed(data: bytes, **values: str) -> bytes:
    """Return the file as somebody who means harm would make it: changed, and sealed again."""
    changed = with_metadata(data, **values)
    facts = read_onnx_facts(changed)
    return with_metadata(changed, sha256=seal(facts.graph, facts.metadata["classes"]))


@pytest.mark.parametrize("names", [["a", "b\nc", "d"], ["a", "\x1b[31mb", "c"], ["a", "b", "a"], ["a", "", "b"]])
def test_names_that_no_class_can_have_are_refused(names: list[str], export: Path) -> None:
    data = resealed((export / "model.onnx").read_bytes(), classes=json.dumps(names))
    assert "no name of a class" in said(data)


def test_a_network_that_takes_something_else_is_refused(export: Path, tmp_path: Path) -> None:
    model = onnx.load(export / "model.onnx")
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    (tmp_path / "x.onnx").write_bytes(resealed(model.SerializeToString()))
    with pytest.raises(ModelError, match="does not go from images to 3 probabilities"):
        open_export(tmp_path / "x.onnx")


def test_a_damaged_model_onnx_is_refused_wherever_it_is_damaged(export: Path) -> None:
    data = (export / "model.onnx").read_bytes()
    graph = read_onnx_facts(data).graph
    start = data.index(bytes(graph[:200]))
    for at in np.linspace(start, start + len(graph) - 1, 40, dtype=int).tolist():
        assert "given.onnx" in said(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    for size in np.linspace(0, len(data) - 1, 40, dtype=int).tolist():
        assert "given.onnx" in said(data[:size])


def test_a_file_that_is_no_onnx_is_named(tmp_path: Path) -> None:
    for name, content in (("photo.jpg", b"\xff\xd8\xff\xe0 a photograph"), ("notes.txt", b"hello"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{re.escape(name)} is damaged: it is no ONNX file"):
            open_export(tmp_path / name)
