"""The plain reference: what a straightforward program does, as the original did, to set our figures against.

Every image is decoded in full each time it is needed, and it is needed often: once only to be listed, once for mean and
standard deviation, once for its embedding, and again in every epoch. One process; float32 with channels first, as torch
lays it out by itself; scikit-learn's perceptron from scratch each round; loops over Python lists; every file written
anew at every checkpoint. Nothing is slowed on purpose: the libraries are those that we use, with as many threads, and
imports, making of models and test data are left out of the time. Written from a description of what the original does.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import nn

DIMENSIONS = 256
SIDE, INPUT = 256, 224
EMBEDDING_BATCH = 256
LOADER_CLASSES, LOADER_SAMPLES = 20, 10
MARGIN = 1.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Predict = Callable[[np.ndarray], np.ndarray]


def first_pass(files: Sequence[Path], arch: str = "resnet18", threads: int = 2) -> float:
    """Return the seconds from a list of files to their embeddings: listed, measured, embedded."""
    import torch
    from torchvision.transforms import functional

    with _threads(threads):
        network = _network(arch).eval()
        started = time.perf_counter()
        listed = [(str(path), _decode(path).size) for path in files]
        means, stds = [], []
        for _ in range(min(10_000, len(listed))):
            pixels = functional.to_tensor(_decode(random.choice(listed)[0]).resize((SIDE, SIDE), Image.BILINEAR))
            means.append(pixels.mean(dim=(1, 2)))
            stds.append(pixels.std(dim=(1, 2)))
        mean, std = torch.stack(means).mean(dim=0), torch.stack(stds).mean(dim=0)
        embeddings = []
        with torch.no_grad():
            for start in range(0, len(listed), EMBEDDING_BATCH):
                part = [_evaluation(_decode(path), mean, std) for path, _ in listed[start : start + EMBEDDING_BATCH]]
                embeddings.append(network(torch.stack(part)).numpy())
        vectors = np.concatenate(embeddings)
        low, high = vectors.min(axis=0), vectors.max(axis=0)
        _ = (vectors - low) / np.maximum(high - low, 1e-12)
        return time.perf_counter() - started


def finetune_epoch(files: Sequence[Path], labels: Sequence[int], threads: int = 2) -> float:
    """Return the seconds of one epoch of ResNet18 over balanced batches (20 classes of 10 images) with the triplet loss.

    An epoch takes as many batches as fit below the number of images. Reading each label by decoding its image, which the
    original does once a fine-tuning, is left out.
    """
    import torch
    from torchvision import transforms

    change = transforms.Compose(
        [
            transforms.Resize((SIDE, SIDE)),
            transforms.RandomCrop(INPUT),
            transforms.RandomGrayscale(0.1),
            transforms.RandomOrder(
                [transforms.RandomHorizontalFlip(), transforms.ColorJitter(), transforms.RandomRotation(20)]
            ),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
            transforms.RandomErasing(value="random"),
        ]
    )
    by_class = {label: [i for i, other in enumerate(labels) if other == label] for label in sorted(set(labels))}
    chosen = min(LOADER_CLASSES, len(by_class))
    with _threads(threads):
        network = _network("resnet18").train()
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
        started = time.perf_counter()
        for _ in range((len(files) - 1) // (chosen * LOADER_SAMPLES)):
            drawn = []
            for label in random.sample(list(by_class), chosen):
                drawn += random.sample(by_class[label], min(LOADER_SAMPLES, len(by_class[label])))
            batch = torch.stack([change(_decode(files[i])) for i in drawn])
            optimiser.zero_grad()
            loss = _triplet_loss(network(batch), np.array([labels[i] for i in drawn]))
            loss.backward()
            optimiser.step()
        return time.perf_counter() - started


def fit(vectors: np.ndarray, species: Sequence[str], seed: int = 0, threads: int = 2) -> tuple[float, Predict]:
    """Return the seconds that scikit-learn's perceptron takes with the original's settings, and how it predicts names.

    With `threads`, or with one as we do, whichever is faster.
    """
    with _threads(_faster_threads(vectors, list(species), threads)):
        started = time.perf_counter()
        model = _perceptron(vectors, list(species), seed)
        seconds = time.perf_counter() - started
    return seconds, lambda more: np.asarray(model.predict(more))


@dataclass(frozen=True)
class Turnaround:
    """Seconds from a label file to the next selector, and of its parts by name (`intake`, `fit`, `checkpoint`, …)."""

    seconds: float
    parts: dict[str, float] = field(default_factory=dict)


def turnaround(
    folder: Path,
    vectors: np.ndarray,
    labelled: Sequence[int],
    species: Sequence[str],
    *,
    n_asked: int = 100,
    seed: int = 0,
    threads: int = 2,
) -> Turnaround:
    """Time one round with margin sampling: labels taken, classifier fitted, checkpoint written, request, selector.

    Parameters
    ----------
    folder : empty; about 0.4 GB are written into it
    vectors : (n, d) float32 scaled embeddings of the whole pool, labelled images among them
    labelled, species : rows and names of the labels that are there when the round ends, the `n_asked` last ones of
        them from the label file of this round
    """
    import pandas as pd

    n = len(vectors)
    paths = [os.path.join("site", f"{i // 1000:05d}", f"IMG_{i:07d}.JPG") for i in range(n)]  # noqa: PTH118
    # The original's selector shows every image that was unlabelled when the program started.
    before = set(labelled[:-n_asked])
    shown = [i for i in range(n) if i not in before]
    frame = pd.DataFrame(
        {
            "File": [os.path.basename(paths[i]) for i in shown],  # noqa: PTH119
            "RelativePath": [os.path.dirname(paths[i]) for i in shown],  # noqa: PTH120
        }
    )
    asked, answers = list(labelled[-n_asked:]), dict(zip(labelled, species, strict=True))
    exported = frame.assign(Species=[answers.get(i, "") if i in asked else "" for i in shown])
    exported.to_csv(folder / "labels.csv", index=False)
    weights = _saved_weights()
    fit_threads = _faster_threads(vectors[list(labelled)], list(species), threads)
    parts: dict[str, float] = {}
    at = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal at
        parts[name] = parts.get(name, 0.0) + time.perf_counter() - at
        at = time.perf_counter()

    with _threads(threads):
        start = at
        given = pd.read_csv(folder / "labels.csv", keep_default_na=False)
        joined = [os.path.join(*names) for names in zip(given["RelativePath"], given["File"], strict=True)]  # noqa: PTH118
        known = dict(zip(labelled[:-n_asked], species[:-n_asked], strict=True))
        for row in asked:
            known[row] = given["Species"][joined.index(paths[row])]
        lap("intake")
        active = list(known)
        with _threads(fit_threads):
            model = _perceptron(vectors[active], [known[row] for row in active], seed)
        lap("fit")
        _write_checkpoint(folder, vectors, paths, known, model, weights)
        lap("checkpoint")
        best = np.sort(model.predict_proba(vectors), axis=1)
        order = np.argsort(best[:, -1] - best[:, -2]).tolist()
        lap("score")
        request = [row for row in order if row not in active][:n_asked]
        lap("choose")
        (folder / "label_request.json").write_text(json.dumps(request), encoding="utf-8")
        wanted = set(request)
        frame["Selected"] = [i in wanted for i in shown]
        frame.to_csv(folder / "timelapse_selector.csv", index=False)
        lap("selector")
        return Turnaround(at - start, parts)


def predict(files: Sequence[Path], export_folder: Path, threads: int = 2) -> float:
    """Return the seconds to classify files one by one with an export of ResNet18: decoded in full, torch, onnxruntime."""
    import onnxruntime
    import torch

    saved = torch.load(export_folder / "embedding_model_weights.pt", map_location="cpu", weights_only=True)
    network = _network(saved["arch_name"], saved["feat_dim"]).eval()
    state = {
        name.removeprefix("module.inner_model."): value for name, value in saved["embedding_model_state_dict"].items()
    }
    network.load_state_dict(state)
    classifier = onnxruntime.InferenceSession(export_folder / "classifier.onnx", providers=["CPUExecutionProvider"])
    mean, std = (torch.from_numpy(np.load(export_folder / f"dataset_{name}.npy")).float() for name in ("mean", "std"))
    with _threads(threads), torch.no_grad():
        started = time.perf_counter()
        for path in files:
            embedding = network(_evaluation(_decode(path), mean, std)[None]).numpy()
            classifier.run(None, {"X": embedding})
        return time.perf_counter() - started


def _decode(path: Path | str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _evaluation(image: Image.Image, mean: Any, std: Any) -> Any:
    from torchvision.transforms import functional

    pixels = functional.to_tensor(functional.center_crop(image.resize((SIDE, SIDE), Image.BILINEAR), [INPUT, INPUT]))
    return functional.normalize(pixels, mean, std)


def _network(arch: str, dimensions: int = DIMENSIONS) -> nn.Module:
    from torchvision import models

    network: nn.Module = models.get_model(arch, weights=None, num_classes=dimensions)
    return network


def _triplet_loss(embeddings: Any, labels: np.ndarray) -> Any:
    """Return the mean loss over all pairs of a class, each with one random negative that violates the margin."""
    import torch
    from torch.nn import functional

    distances = torch.cdist(embeddings.detach(), embeddings.detach()).square().numpy()
    triplets = []
    for label in np.unique(labels):
        mine, others = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        for anchor, positive in combinations(mine, 2):
            loss = distances[anchor, positive] - distances[anchor, others] + MARGIN
            violating = np.flatnonzero(loss > 0)
            if len(violating):
                triplets.append((anchor, positive, others[np.random.choice(violating)]))
    if not triplets:
        return embeddings.sum() * 0
    anchors, positives, negatives = (embeddings[torch.tensor(part)] for part in np.array(triplets).T)
    near, far = (anchors - positives).square().sum(dim=1), (anchors - negatives).square().sum(dim=1)
    return functional.relu(near - far + MARGIN).mean()


def _faster_threads(vectors: np.ndarray, species: list[str], most: int) -> int:
    """Return with how many threads, one or `most`, the perceptron is faster: two that wait for each other may be slower."""

    def seconds(threads: int) -> float:
        with _threads(threads):
            started = time.perf_counter()
            _perceptron(vectors[:2000], species[:2000], 0, epochs=3)
            return time.perf_counter() - started

    return min((1, most), key=lambda threads: min(seconds(threads) for _ in range(2)))


def _perceptron(vectors: np.ndarray, species: list[str], seed: int, *, epochs: int = 2000) -> Any:
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        hidden_layer_sizes=(230, 100), alpha=1e-4, max_iter=epochs, tol=1e-6, learning_rate_init=1e-4, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(vectors, species)


def _saved_weights() -> dict[str, Any]:
    """Return the network's weights and, twice that, the optimiser's state, as the original exports them."""
    import torch

    network = _network("resnet18")
    optimiser = torch.optim.Adam(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    return {"embedding_model_state_dict": network.state_dict(), "optimizer_state_dict": optimiser.state_dict()}


def _write_checkpoint(
    folder: Path, vectors: np.ndarray, paths: list[str], known: dict[int, str], model: Any, weights: dict[str, Any]
) -> None:
    """Write all files of a checkpoint, the weights once for resuming and in the export."""
    import torch
    from skl2onnx import to_onnx

    np.save(folder / "embedding.npy", vectors)
    torch.save(weights, folder / "embedding_model_weights.pt")
    with (folder / "data_loader.pt").open("wb") as file:
        pickle.dump({"paths": paths, "labels": [known.get(i, "unlabelled") for i in range(len(paths))]}, file)
    lines = [f"{path},{known.get(i, 'unlabelled')}\n" for i, path in enumerate(paths)]
    (folder / "path_labels.csv").write_text("path,label\n" + "".join(lines), encoding="utf-8")
    (folder / "classifier.pkl").write_bytes(pickle.dumps(model))
    pools = {"active": list(known), "default": [i for i in range(len(paths)) if i not in known]}
    (folder / "active_learning_pools.json").write_text(json.dumps(pools), encoding="utf-8")
    (folder / "classifier.onnx").write_bytes(to_onnx(model, vectors[:1]).SerializeToString())
    for name, values in (("mean", MEAN), ("std", STD)):
        np.save(folder / f"dataset_{name}.npy", np.array(values))


class _threads:
    """Within, torch and the matrix products of numpy use so many threads."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __enter__(self) -> None:
        import torch
        from threadpoolctl import threadpool_limits

        self._before = torch.get_num_threads()
        torch.set_num_threads(self._n)
        self._limits = threadpool_limits(self._n)

    def __exit__(self, *_: object) -> None:
        import torch

        torch.set_num_threads(self._before)
        self._limits.restore_original_limits()
