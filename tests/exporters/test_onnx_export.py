"""Reloaded, an export predicts as the learner does; one that does not is never published."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from fake_model import COLOURS, DIMENSION, MEAN, STD, embed, make_source, picture

from camera_trap_al.errors import ModelError, UnknownNameError
from camera_trap_al.exporters import ExportCheckError, ExportSource, exporters, write_check
from camera_trap_al.exporters.graphs import classifier_graph
from camera_trap_al.learn.classifier import fit_classifier, load_classifier
from camera_trap_al.store import generations

SEED_FILES = ["classifier.onnx", "embedding_model_weights.pt", "dataset_mean.npy", "dataset_std.npy"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ExportSource:
    return make_source(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def export(source: ExportSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    exporters["onnx"].write(source, folder)
    return folder


def run(path: Path, value: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: value})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def new_pictures() -> np.ndarray:
    return np.stack([picture(colour, seed=50 + i) for i, colour in enumerate(COLOURS.values())])


def expected(source: ExportSource, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scaled = ((embed(images) - source.scaler[0]) / source.scaler[1]).astype(np.float32)
    return scaled, load_classifier(source.checkpoint_folder).predict_proba(scaled)


def test_the_export_predicts_new_images_as_the_learner_does(source: ExportSource, export: Path) -> None:
    images = new_pictures()
    scaled, proba = expected(source, images)
    assert np.allclose(run(export / "embedding.onnx", images)[0], scaled, atol=1e-4)
    assert np.allclose(run(export / "model.onnx", images)[0], proba, atol=1e-4)
    assert proba.argmax(axis=1)[:3].tolist() == [0, 1, 2]


def test_an_image_alone_is_predicted_as_in_a_batch(export: Path) -> None:
    images = new_pictures()
    together = run(export / "model.onnx", images)[0]
    alone = np.concatenate([run(export / "model.onnx", images[i : i + 1])[0] for i in range(len(images))])
    assert np.allclose(alone, together, atol=1e-6)


def test_the_sister_pipeline_finds_its_four_files_as_it_reads_them(source: ExportSource, export: Path) -> None:
    session = onnxruntime.InferenceSession(export / "classifier.onnx")
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("X", "tensor(float)", [None, 6])
    assert [(o.type, len(o.shape)) for o in session.get_outputs()] == [("tensor(int64)", 1), ("tensor(float)", 2)]
    scaled, proba = expected(source, new_pictures())
    labels, of_classifier = session.run(None, {given.name: scaled})
    assert labels.dtype == np.int64 and labels.tolist() == proba.argmax(axis=1).tolist()
    assert np.allclose(of_classifier, proba, atol=1e-5)
    weights = (source.model_folder / "embedding_model_weights.pt").read_bytes()
    assert (export / "embedding_model_weights.pt").read_bytes() == weights
    for name, values in (("dataset_mean.npy", MEAN), ("dataset_std.npy", STD)):
        array = np.load(export / name, allow_pickle=False)
        assert array.dtype == np.float64 and array.tolist() == values


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_sister_pipelines_classifier_agrees_for_any_number_of_classes(k: int) -> None:
    vectors = np.random.default_rng(k).random((40, 5), dtype=np.float32)
    classifier = fit_classifier(vectors, [f"class {i % k}" for i in range(40)], seed=1)
    labels, proba = onnxruntime.InferenceSession(classifier_graph(classifier)).run(None, {"X": vectors})
    assert np.allclose(proba, classifier.predict_proba(vectors), atol=1e-5)
    assert labels.tolist() == classifier.predict_proba(vectors).argmax(axis=1).tolist()


def test_two_classes_are_two_columns_everywhere(tmp_path: Path) -> None:
    two = make_source(tmp_path, classes=("animal", "empty"))
    exporters["onnx"].write(two, tmp_path)
    proba = run(tmp_path / "model.onnx", new_pictures()[:2])[0]
    assert proba.shape == (2, 2) and proba.argmax(axis=1).tolist() == [0, 1]
    assert np.allclose(proba.sum(axis=1), 1)


def test_the_manifest_names_every_file_and_what_it_was_made_from(export: Path) -> None:
    manifest = json.loads((export / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["files"]) == {path.name for path in export.iterdir()} - {"manifest.json"}
    assert set(SEED_FILES) < set(manifest["files"])
    for name, noted in manifest["files"].items():
        data = (export / name).read_bytes()
        assert noted == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert (manifest["model"], manifest["learner"], manifest["checkpoint"]) == (1, 1, 1)
    assert manifest["classes"] == ["blue", "green", "red"]


def test_the_models_are_whole_and_carry_what_is_needed_to_use_them(export: Path) -> None:
    for name in ("model.onnx", "embedding.onnx", "classifier.onnx"):
        onnx.checker.check_model(onnx.load(export / name), full_check=True)
    properties = {p.key: p.value for p in onnx.load(export / "model.onnx").metadata_props}
    assert json.loads(properties["classes"]) == ["blue", "green", "red"]
    assert json.loads(properties["mean"]) == MEAN and json.loads(properties["std"]) == STD
    assert "256" in properties["preprocessing"]


def test_the_readme_gives_the_line_that_the_sister_pipeline_needs(tmp_path: Path) -> None:
    named = make_source(tmp_path, classes=("Muntjac, Reeves's", 'deer "big"', "Кабан"))
    exporters["onnx"].write(named, tmp_path)
    text = (tmp_path / "README_export.txt").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.strip().startswith("config.SPECIES_CATEGORIES =")]
    config = SimpleNamespace()
    exec(line.strip(), {"np": np, "config": config})
    assert config.SPECIES_CATEGORIES.tolist() == ["Muntjac, Reeves's", 'deer "big"', "Кабан"]
    assert (tmp_path / "classes.txt").read_text(encoding="utf-8").splitlines() == [
        "Muntjac, Reeves's",
        'deer "big"',
        "Кабан",
    ]
    assert "batch_size" in text and "CANNOT READ" in text


def compatible(facts: dict[str, object], tmp_path: Path) -> tuple[bool, str]:
    """Return what manifest and readme say of the sister pipeline, for a model with other facts."""
    source = make_source(tmp_path)
    noted = json.loads((source.model_folder / "model.json").read_text(encoding="utf-8"))
    (source.model_folder / "model.json").write_text(json.dumps(noted | facts), encoding="utf-8")
    generations.write_manifest(source.model_folder, {"kind": "model"})
    exporters["onnx"].write(source, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    return manifest["acp_compatible"], (tmp_path / "README_export.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("facts", "reads", "said"),
    [
        ({"sister_pipeline_reads": True}, True, "It reads classifier.onnx"),
        ({"sister_pipeline_reads": False}, False, "CANNOT READ: it cannot rebuild the network tiny with 6 dimensions"),
        (
            {"classes": ["blue", "green"]},
            False,
            "trained with the loss softmax for 2 classes, and the classifier now has 3",
        ),
        ({"classes": ["a", "b", "c"]}, True, "It reads classifier.onnx"),
    ],
)
def test_manifest_and_readme_say_whether_the_sister_pipeline_can_read_it(
    facts: dict[str, object], reads: bool, said: str, tmp_path: Path
) -> None:
    settings = {"arch": "tiny", "feat_dim": DIMENSION, "loss": "softmax", "margin": 1.0, "selection": "random"}
    ok, text = compatible({"settings": settings, "sister_pipeline_reads": True} | facts, tmp_path)
    assert ok is reads
    assert said in " ".join(text.split())


def test_another_scaler_than_the_classifiers_publishes_nothing(source: ExportSource, tmp_path: Path) -> None:
    exporters["onnx"].write(source, tmp_path)
    before = contents(tmp_path)
    wrong = replace(source, scaler=source.scaler * [[1.0], [1.1]], checkpoint=2)
    with pytest.raises(ExportCheckError, match="model.onnx differs from the learner"):
        exporters["onnx"].write(wrong, tmp_path)
    assert contents(tmp_path) == before


def test_a_network_that_is_not_the_learners_publishes_nothing(source: ExportSource, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name, data in contents(source.model_folder).items():
        (model / name).write_bytes(data)
    np.save(model / "reference_embeddings.npy", np.load(model / "reference_embeddings.npy") + np.float32(0.01))
    generations.write_manifest(model, {})
    out = tmp_path / "export"
    out.mkdir()
    with pytest.raises(ExportCheckError, match=r"embedding.onnx differs .*reference image \d, column \d"):
        exporters["onnx"].write(replace(source, model_folder=model), out)
    assert contents(out) == {}


def test_a_network_that_sees_no_difference_publishes_nothing(source: ExportSource, tmp_path: Path) -> None:
    blind = make_source(tmp_path)
    network = onnx.load(blind.model_folder / "embedding.onnx")
    projection = next(t for t in network.graph.initializer if t.name == "projection")
    projection.CopyFrom(onnx.numpy_helper.from_array(np.zeros((48, 6), np.float32), "projection"))
    onnx.save(network, blind.model_folder / "embedding.onnx")
    np.save(blind.model_folder / "reference_embeddings.npy", np.zeros((4, 6), np.float32))
    generations.write_manifest(blind.model_folder, {})
    scaled = (np.zeros((4, 6)) - blind.scaler[0]) / blind.scaler[1]
    proba = load_classifier(blind.checkpoint_folder).predict_proba(scaled.astype(np.float32))
    np.save(blind.checkpoint_folder / "reference_probabilities.npy", proba)
    with pytest.raises(ExportCheckError, match="same embedding for all 4 reference images"):
        exporters["onnx"].write(blind, tmp_path)


def test_a_result_that_is_not_a_number_publishes_nothing(source: ExportSource, tmp_path: Path) -> None:
    with pytest.raises(ExportCheckError):
        exporters["onnx"].write(replace(source, scaler=source.scaler * np.nan), tmp_path)
    assert contents(tmp_path) == {}


def test_a_checkpoint_of_another_learner_is_refused_by_name(source: ExportSource, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="do not fit together"):
        exporters["onnx"].write(replace(source, scaler=np.ones((2, 7))), tmp_path)


@pytest.mark.parametrize("name", ["embedding.onnx", "model.json", "reference_images.npy"])
def test_a_missing_or_damaged_file_is_a_model_error(name: str, tmp_path: Path) -> None:
    damaged = make_source(tmp_path)
    (damaged.model_folder / name).write_bytes(b"damaged")
    with pytest.raises(ModelError):
        exporters["onnx"].write(damaged, tmp_path)
    (damaged.model_folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        exporters["onnx"].write(damaged, tmp_path)


def test_a_second_export_replaces_only_what_changed_and_the_manifest_last(
    source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporters["onnx"].write(source, tmp_path)
    from camera_trap_al.store.atomic import failpoints

    replaced: list[str] = []
    monkeypatch.setattr(failpoints, "watch", lambda op: op.name == "replace" and replaced.append(op.path.name))
    names = exporters["onnx"].write(replace(source, checkpoint=7), tmp_path)
    assert replaced[-1] == names[-1] == "manifest.json"
    assert "embedding_model_weights.pt" not in replaced and "model.onnx" in replaced


def test_the_outcome_of_a_check_is_written_down(tmp_path: Path) -> None:
    write_check(tmp_path, 5, False, "model.onnx differs")
    facts = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert facts == {"format": 1, "checkpoint": 5, "ok": False, "text": "model.onnx differs"}


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Use one of: onnx"):
        exporters["onyx"]


@pytest.mark.slow
def test_exporting_needs_no_torch(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent.parent), *sys.path]!r}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from pathlib import Path
from fake_model import make_source
from camera_trap_al.exporters import exporters
exporters["onnx"].write(make_source(Path({str(tmp_path)!r})), Path({str(tmp_path)!r}))
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "manifest.json").is_file()
