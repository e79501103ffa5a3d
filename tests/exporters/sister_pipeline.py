"""A small stand-in for the sister pipeline (animal_classifier_pipeline 2.0), written from the rules of its loader.

What it does with the folder of an export: it rebuilds the named torchvision network, wraps it, loads the weights
strictly, scales the embeddings of one batch of crops by their own minimum and range, and asks the classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image
from sklearn.preprocessing import MinMaxScaler
from torch import nn
from torchvision import models, transforms

LAST_LAYERS = {
    "resnet": "fc",
    "inception": "fc",
    "densenet": "classifier",
    "vgg": "classifier.6",
    "alexnet": "classifier.6",
}


class Embedding(nn.Module):
    """The named network of torchvision; the last layer is replaced in the families that the pipeline knows."""

    def __init__(self, arch_name: str, feat_dim: int) -> None:
        super().__init__()
        self.inner_model = vars(models)[arch_name](weights=None)
        for family, path in LAST_LAYERS.items():
            if arch_name.startswith(family):
                old = self.inner_model.get_submodule(path)
                self.inner_model.set_submodule(path, nn.Linear(old.in_features, feat_dim))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner_model(images)


class EmbeddingTwice(Embedding):
    """Networks of any loss but softmax: (embedding, embedding)."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = super().forward(images)
        return embedding, embedding


class WithClassifier(nn.Module):
    """Networks of the loss softmax: (scores of the classes, embedding)."""

    def __init__(self, arch_name: str, feat_dim: int, n_classes: int) -> None:
        super().__init__()
        self.embedding = Embedding(arch_name, feat_dim)
        self.classifier = nn.Linear(feat_dim, n_classes)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = self.embedding(images)
        return self.classifier(torch.relu(embedding)), embedding


def rebuild(arch_name: str, feat_dim: int, loss_type: str, n_classes: int) -> nn.Module:
    """Return the network that the pipeline loads weights into."""
    if loss_type.lower() == "softmax":
        return nn.DataParallel(WithClassifier(arch_name, feat_dim, n_classes))
    return nn.DataParallel(EmbeddingTwice(arch_name, feat_dim))


class SisterPipeline:
    """The pipeline with an export loaded. `categories` stands for its `config.SPECIES_CATEGORIES`."""

    def __init__(self, folder: Path, categories: np.ndarray) -> None:
        assert folder.suffix == "", "a name with a dot is taken for a Keras file"
        told: dict[str, Any] = torch.load(folder / "embedding_model_weights.pt", map_location="cpu", weights_only=True)
        self.feat_dim = told["feat_dim"]
        self.network = rebuild(told["arch_name"], self.feat_dim, told["loss_type"], len(categories))
        self.network.load_state_dict(told["embedding_model_state_dict"])
        self.network.eval()
        self.session = onnxruntime.InferenceSession(folder / "classifier.onnx", providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        mean, std = (np.load(folder / f"dataset_{name}.npy") for name in ("mean", "std"))
        sizes = [transforms.Resize((256, 256)), transforms.CenterCrop((224, 224))]
        self.transform = transforms.Compose([*sizes, transforms.ToTensor(), transforms.Normalize(mean, std)])
        self.names = sorted(categories.tolist())

    def embeddings(self, crops: Sequence[Path], classifier_batch_size: int) -> np.ndarray:
        """Return the (n, feat_dim) float32 embeddings of crops."""
        found = np.zeros((len(crops), self.feat_dim), dtype=np.float32)
        for start in range(0, len(crops), classifier_batch_size):
            part = crops[start : start + classifier_batch_size]
            images = torch.stack([self.transform(Image.open(crop)) for crop in part])
            with torch.no_grad():
                found[start : start + len(part)] = self.network(images)[1].numpy()
        return found

    def species(self, crops: Sequence[Path], *, batch_size: int, classifier_batch_size: int = 4) -> list[str]:
        """Return the species of crops, scaled anew within each `batch_size` of them."""
        found: list[str] = []
        for start in range(0, len(crops), batch_size):
            raw = self.embeddings(crops[start : start + batch_size], classifier_batch_size)
            labels = self.session.run(None, {self.input: MinMaxScaler().fit_transform(raw)})[0]
            found += [self.names[label] for label in labels]
        return found
