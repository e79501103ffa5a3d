"""A model folder, learner and checkpoint made with numpy and onnx alone, small and without torch."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from camera_trap_al.exporters import ExportSource
from camera_trap_al.learn.classifier import Classifier, fit_classifier, save_classifier
from camera_trap_al.store import generations

FEATURES, DIMENSION, REFERENCES = 3 * 4 * 4, 6, 4
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
COLOURS = {"blue": (20, 30, 200), "green": (30, 180, 40), "red": (200, 40, 30), "grey": (120, 120, 120)}


def picture(colour: tuple[int, int, int], seed: int, px: int = 256) -> np.ndarray:
    """Return a (px, px, 3) uint8 image of about one colour, coarse enough to survive JPEG."""
    noise = np.random.default_rng(seed).integers(-15, 16, (8, 8, 3)).repeat(px // 8, 0).repeat(px // 8, 1)
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def projection() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(FEATURES, DIMENSION)).astype(np.float32)


def embed(images: np.ndarray) -> np.ndarray:
    """Return what the fake network gives, in numpy."""
    pixels = (images[:, 16:240, 16:240].astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    pooled = pixels.transpose(0, 3, 1, 2).reshape(len(images), 3, 4, 56, 4, 56).mean(axis=(3, 5))
    return pooled.reshape(len(images), FEATURES) @ projection()


@functools.cache
def raw_onnx() -> bytes:
    """Return the fake network as `embedding.onnx` of a model folder."""

    def constant(name: str, value: np.ndarray) -> TensorProto:
        return numpy_helper.from_array(value, name)

    constants = [
        constant("starts", np.array([16, 16])),
        constant("ends", np.array([240, 240])),
        constant("axes", np.array([1, 2])),
        constant("mean", 255 * np.float32(MEAN)),
        constant("std", 255 * np.float32(STD)),
        constant("projection", projection()),
    ]
    nodes = [
        helper.make_node("Slice", ["images", "starts", "ends", "axes"], ["cropped"]),
        helper.make_node("Cast", ["cropped"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["standardised"]),
        helper.make_node("Transpose", ["standardised"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[56, 56], strides=[56, 56]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "fake",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 256, 256, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIMENSION])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


@functools.cache
def fitted_on(classes: tuple[str, ...]) -> tuple[np.ndarray, Classifier]:
    """Return the scaler and a classifier fitted on ten pictures a class; fitted once a process."""
    labelled = [(colour, seed) for colour in list(COLOURS.values())[: len(classes)] for seed in range(100, 110)]
    raw = embed(np.stack([picture(colour, seed) for colour, seed in labelled])).astype(np.float64)
    scaler = np.stack([raw.min(axis=0), np.ptp(raw, axis=0)])
    scaled = ((raw - scaler[0]) / scaler[1]).astype(np.float32)
    return scaler, fit_classifier(scaled, [name for name in classes for _ in range(10)], seed=3)


def make_source(root: Path, classes: tuple[str, ...] = ("blue", "green", "red"), checkpoint: int = 1) -> ExportSource:
    """Write a fake model and a checkpoint that tells colours apart; return what an export is made from.

    The n-th class is the n-th of `COLOURS`, whatever it is called.
    """
    model, fitted = root / "models" / "gen-000001", root / "checkpoints" / f"gen-{checkpoint:06d}"
    model.mkdir(parents=True, exist_ok=True)
    fitted.mkdir(parents=True)
    colours = list(COLOURS.values())
    references = np.stack([picture(colours[i % len(colours)], seed=i) for i in range(REFERENCES)])
    settings = {"arch": "tiny", "feat_dim": DIMENSION, "loss": "triplet", "margin": 1.0, "selection": "random"}
    facts = {"format": 1, "settings": settings, "mean": MEAN, "std": STD, "image_px": 256, "input_px": 224}
    facts |= {"classes": list(classes), "sister_pipeline_reads": False}
    (model / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    (model / "embedding.onnx").write_bytes(raw_onnx())
    (model / "embedding_model_weights.pt").write_bytes(b"weights for the sister pipeline")
    np.save(model / "reference_images.npy", references)
    np.save(model / "reference_embeddings.npy", embed(references))
    generations.write_manifest(model, {"kind": "model"})

    scaler, classifier = fitted_on(classes)
    reference = ((embed(references) - scaler[0]) / scaler[1]).astype(np.float32)
    save_classifier(classifier, fitted, reference=reference, learner=1, n_labels=10 * len(classes))
    return ExportSource(model, fitted, scaler.copy(), checkpoint=checkpoint, learner=1)


def save_picture(path: Path, name: str, seed: int) -> None:
    """Save an image of a colour of `COLOURS`; the suffix says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(COLOURS[name], seed)).save(path)
