"""The sister pipeline (animal_classifier_pipeline) runs an export as it is, and predicts what we predict."""

from __future__ import annotations

import csv
import json
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from camera_trap_al.core.records import Item
from camera_trap_al.exporters import ExportSource, exporters
from camera_trap_al.exporters.graphs import classifier_graph
from camera_trap_al.exporters.sister import why_not_readable
from camera_trap_al.images import read_image
from camera_trap_al.learn.backbones import backbones, sister_pipeline_reads
from camera_trap_al.learn.classifier import fit_classifier, save_classifier
from camera_trap_al.learn.settings import ModelSettings
from camera_trap_al.store import embeddings, generations
from camera_trap_al_service.predicting import Asked, predict

pytestmark = pytest.mark.slow

PICTURES = Path(__file__).parent.parent.parent / "service" / "demo_pictures" / "held_out"
SPECIES = ("cougar", "elephant", "flamingo")
FEAT_DIM = 12
MEAN, STD = [0.45, 0.44, 0.4], [0.25, 0.24, 0.26]
FAMILIES = [("densenet121", FEAT_DIM), ("vgg11", FEAT_DIM), ("alexnet", FEAT_DIM), ("regnet_x_400mf", 1000)]
EACH_WAY = [(*family, "triplet") for family in FAMILIES] + [("densenet121", FEAT_DIM, "softmax")]


@pytest.fixture(scope="module")
def crops() -> list[Path]:
    """Four colour photographs of each of three animals."""
    return [path for name in SPECIES for path in sorted((PICTURES / name).glob("*.jpg"))[:4]]


def species_of(crops: list[Path]) -> list[str]:
    return [path.parent.name for path in crops]


def learn(raw: np.ndarray, crops: list[Path]) -> tuple:
    """Return scaler and classifier of embeddings, scaled by their own range as the whole pool is."""
    scaler = embeddings.fit_scaler(iter([(np.arange(len(raw)), raw)]), normalize=True)
    return scaler, fit_classifier(embeddings.scale(raw, scaler), species_of(crops), seed=1)


@pytest.fixture(scope="module", params=["triplet", "softmax"])
def export(request: pytest.FixtureRequest, crops: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export whose pool were the crops."""
    from camera_trap_al.learn.embedding import Embedder, embed_items
    from camera_trap_al.learn.making import finish_model, start_model

    root = tmp_path_factory.mktemp(request.param)
    model, fitted, folder = (root / name for name in ("model", "fitted", "export"))
    for made in (model, fitted, folder):
        made.mkdir()
    items = [Item(row, str(path)) for row, path in enumerate(crops)]
    settings = ModelSettings("resnet18", FEAT_DIM, loss=request.param)
    start_model(model, settings, items, classes=SPECIES, pretrained=False, weights=None, seed=3)
    finish_model(model, items)
    generations.write_manifest(model, {"kind": "model"})
    scaler, classifier = learn(embed_items(Embedder(model, device="cpu"), items)[0], crops)
    reference = np.load(model / "reference_embeddings.npy", allow_pickle=False)
    save_classifier(classifier, fitted, reference=embeddings.scale(reference, scaler))
    exporters["onnx"].write(ExportSource(model, fitted, scaler, checkpoint=1, learner=1), folder)
    return folder


def test_it_predicts_what_we_predict_where_all_crops_are_one_batch(
    export: Path, crops: list[Path], tmp_path: Path
) -> None:
    from sister_pipeline import SisterPipeline

    there = SisterPipeline(export, np.array(SPECIES)).species(crops, batch_size=len(crops))
    ours = predicted(export, crops, tmp_path)
    assert there == ours
    assert len(set(there)) == len(SPECIES)


def predicted(export: Path, crops: list[Path], tmp_path: Path) -> list[str]:
    """Return what our own `predict` says of crops."""
    for number, path in enumerate(crops):
        (tmp_path / "crops").mkdir(exist_ok=True)
        (tmp_path / "crops" / f"{number:02d}.jpg").write_bytes(path.read_bytes())
    predict(export, tmp_path / "crops", tmp_path / "out.csv", Asked())
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        return [row["Species"] for row in csv.DictReader(file)]


def test_its_embeddings_scaled_as_we_do_are_those_of_our_export(export: Path, crops: list[Path]) -> None:
    from sister_pipeline import SisterPipeline

    raw = SisterPipeline(export, np.array(SPECIES)).embeddings(crops, classifier_batch_size=5)
    theirs = (raw - raw.min(axis=0)) / np.ptp(raw, axis=0)
    session = onnxruntime.InferenceSession(export / "embedding.onnx")
    ours = session.run(None, {"images": np.stack([read_image(str(path)) for path in crops])})[0]
    assert np.abs(theirs - ours).max() < 0.01


def test_the_size_of_its_network_batches_changes_nothing(export: Path, crops: list[Path]) -> None:
    from sister_pipeline import SisterPipeline

    pipeline = SisterPipeline(export, np.array(SPECIES))
    alone, together = (pipeline.species(crops, batch_size=12, classifier_batch_size=n) for n in (1, 12))
    assert alone == together


def test_the_limit_that_the_readme_names_is_there_a_crop_alone_says_nothing(export: Path, crops: list[Path]) -> None:
    from sister_pipeline import SisterPipeline

    assert len(set(SisterPipeline(export, np.array(SPECIES)).species(crops, batch_size=1))) == 1
    assert "batch_size=1_000_000" in (export / "README_export.txt").read_text(encoding="utf-8")


def test_the_weights_are_plain_values_and_tensors_under_its_names(export: Path) -> None:
    import torch

    told = torch.load(export / "embedding_model_weights.pt", weights_only=True)
    state = told.pop("embedding_model_state_dict")
    loss = told["loss_type"]
    assert told == {
        "arch_name": "resnet18",
        "feat_dim": FEAT_DIM,
        "loss_type": loss,
        "num_classes": 3,
        "classes": list(SPECIES),
        "class_to_idx": {"cougar": 0, "elephant": 1, "flamingo": 2},
        "loss_func_strategy": "random",
        "loss_func_margin": 1.0,
    }
    assert type(told["feat_dim"]) is int and type(state) is OrderedDict
    assert {value.device.type for value in state.values()} == {"cpu"}
    inner = "module.embedding.inner_model." if loss == "softmax" else "module.inner_model."
    others = {name for name in state if not name.startswith(inner)}
    assert others == ({"module.classifier.weight", "module.classifier.bias"} if loss == "softmax" else set())


def test_mean_and_standard_deviation_are_three_plain_numbers_each(export: Path) -> None:
    for name in ("dataset_mean.npy", "dataset_std.npy"):
        array = np.load(export / name, allow_pickle=False)
        assert (array.dtype, array.shape) == (np.dtype("float64"), (3,))
        assert ((array > 0) & (array < 1)).all()


def test_the_classifier_is_one_that_onnxruntime_of_2023_runs(export: Path) -> None:
    network = onnx.load(export / "classifier.onnx")
    # The pipeline pins no version, but names Python 3.11, for which onnxruntime 1.14 is the oldest.
    newest = {"": 18, "ai.onnx.ml": 3}
    assert network.ir_version <= 8
    assert all(asked.version <= newest[asked.domain] for asked in network.opset_import)
    session = onnxruntime.InferenceSession(export / "classifier.onnx")
    (given,), labels = session.get_inputs(), session.get_outputs()[0]
    assert (given.type, given.shape) == ("tensor(float)", [None, FEAT_DIM])
    assert (labels.type, len(labels.shape)) == ("tensor(int64)", 1)


def test_the_manifest_says_that_it_can_be_read(export: Path) -> None:
    assert json.loads((export / "manifest.json").read_text(encoding="utf-8"))["acp_compatible"] is True


@pytest.mark.parametrize(("arch", "feat_dim", "loss"), EACH_WAY)
def test_each_family_of_networks_gives_there_what_it_gives_here(
    arch: str, feat_dim: int, loss: str, crops: list[Path], tmp_path: Path
) -> None:
    import torch
    from sister_pipeline import SisterPipeline

    from camera_trap_al.learn.backbones import build_network
    from camera_trap_al.learn.losses import losses
    from camera_trap_al.learn.model_folder import Draft, ModelFacts, sister_model
    from camera_trap_al.learn.raw_onnx import ImagesToEmbedding

    some = crops[::4]
    images = torch.from_numpy(np.stack([read_image(str(path)) for path in some]))
    network = build_network(arch, feat_dim, seed=4)
    whole = ImagesToEmbedding(network, MEAN, STD).eval()
    with torch.inference_mode():
        raw = whole(images).numpy()
    scaler, classifier = learn(raw, some)
    facts = ModelFacts(ModelSettings(arch, feat_dim, loss=loss), SPECIES, tuple(MEAN), tuple(STD), "")
    head = losses[loss].head(feat_dim, len(SPECIES))
    torch.save(sister_model(Draft(facts, network, head, seed=4)), tmp_path / "embedding_model_weights.pt")
    (tmp_path / "classifier.onnx").write_bytes(classifier_graph(classifier))
    np.save(tmp_path / "dataset_mean.npy", np.array(MEAN))
    np.save(tmp_path / "dataset_std.npy", np.array(STD))
    ours = classifier.predict_proba(embeddings.scale(raw, scaler)).argmax(axis=1)
    there = SisterPipeline(tmp_path, np.array(SPECIES)).species(some, batch_size=len(some))
    assert sister_pipeline_reads(arch, feat_dim)
    assert there == [SPECIES[i] for i in ours]


def can_be_rebuilt(arch: str, feat_dim: int) -> bool:
    """Return whether the pipeline builds the same layers by this name and takes our weights into them."""
    import torch
    from sister_pipeline import rebuild

    from camera_trap_al.learn.backbones import build_network

    # Without numbers, which would take long; regnet computes with some while it is built.
    with torch.device("cpu" if arch.startswith("regnet") else "meta"):
        ours = build_network(arch, feat_dim, seed=0)
        weights = OrderedDict((f"module.inner_model.{name}", value) for name, value in ours.state_dict().items())
        try:
            theirs = rebuild(arch, feat_dim, "triplet", 3)
            theirs.load_state_dict(weights)
        except (KeyError, RuntimeError, ValueError):
            return False
    return str(theirs.module.inner_model) == str(ours)


def test_what_is_said_of_a_network_is_so(long: int) -> None:
    every = backbones.names()
    one_of_each_family = {re.match("[a-z]+", arch)[0]: arch for arch in every}
    for arch in every if long > 1 else one_of_each_family.values():
        for feat_dim in (256, 1000):
            assert sister_pipeline_reads(arch, feat_dim) == can_be_rebuilt(arch, feat_dim), (arch, feat_dim)


def test_a_class_that_came_after_the_network_was_trained_is_said_to_stop_it_where_it_does(export: Path) -> None:
    from sister_pipeline import SisterPipeline

    facts = json.loads((export.parent / "model" / "model.json").read_text(encoding="utf-8"))
    classes = [*SPECIES, "zebra"]
    try:
        SisterPipeline(export, np.array(classes))
    except RuntimeError:
        reads = False
    else:
        reads = True
    assert reads == (facts["settings"]["loss"] == "triplet")
    assert bool(why_not_readable(facts, classes)) is not reads
