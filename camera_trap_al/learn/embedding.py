"""Embed items with a finished model ▲."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import torch

from camera_trap_al.core.records import Item
from camera_trap_al.learn.data import Problem, Reader, map_ahead, read_item, read_or_say_why
from camera_trap_al.learn.device import BatchLimit, as_channels_last, full_float32, pick_device
from camera_trap_al.learn.model_folder import load_network, read_facts
from camera_trap_al.learn.raw_onnx import ImagesToEmbedding
from camera_trap_al.learn.settings import Progress, Tick, no_tick

BATCH_SIZE = 64
CPU_BATCH_SIZE = 32  # larger ones leave the processor's caches and were slower


class Embedder:
    """A finished model, ready to embed.

    Evaluation mode, float32: the embedding of an image does not depend on what else is in its batch, but for
    rounding.

    Parameters
    ----------
    folder : a finished model
    device : None for the GPU, if there is one
    batch_size : images at once, at most; halved where memory is short

    Raises `ModelError`.
    """

    def __init__(self, folder: Path, device: torch.device | str | None = None, *, batch_size: int = BATCH_SIZE) -> None:
        self.facts = read_facts(folder)
        self.device = torch.device(device or pick_device())
        whole = ImagesToEmbedding(load_network(folder, self.facts), self.facts.mean, self.facts.std)
        self._whole = as_channels_last(whole.to(self.device)).eval()
        self._limit = BatchLimit(min(batch_size, CPU_BATCH_SIZE) if self.device.type == "cpu" else batch_size)

    @property
    def dimensions(self) -> int:
        """Return how many numbers an embedding has."""
        return self.facts.settings.feat_dim

    @property
    def batch_size(self) -> int:
        """Return how many images are embedded at once now."""
        return self._limit.size

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embed images.

        Parameters
        ----------
        images : (n, 256, 256, 3) uint8, RGB

        Returns
        -------
        (n, d) float32, not scaled
        """
        if len(images) == 0:
            return np.zeros((0, self.dimensions), np.float32)
        return np.concatenate(self._limit.run(lambda start, stop: self._embed(images[start:stop]), len(images)))

    def _embed(self, images: np.ndarray) -> np.ndarray:
        exact = full_float32() if self.device.type == "cuda" else nullcontext()
        with torch.inference_mode(), exact:
            tensor = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
            embedding: np.ndarray = self._whole(tensor).float().cpu().numpy()
            return embedding


def embed_items(
    embedder: Embedder, items: Sequence[Item], *, read: Reader = read_item, tick: Tick = no_tick
) -> tuple[np.ndarray, dict[int, Problem]]:
    """Embed items, decoding the next ones meanwhile.

    Parameters
    ----------
    items : up to a shard of them
    read : how items become pixels
    tick : called at each mini-batch

    Returns
    -------
    vectors : (n, d) float32 in the order of `items`; zeros for an item that could not be read
    problems : {row: (code, text)} of those

    Raises
    ------
    ImagesOfflineError
        A folder of images does not answer.
    """
    vectors = np.zeros((len(items), embedder.dimensions), np.float32)
    problems: dict[int, Problem] = {}
    waiting: list[np.ndarray] = []
    places: list[int] = []
    size = embedder.batch_size
    with closing(map_ahead(lambda item: read_or_say_why(item, read), items, ahead=2 * size)) as results:
        for place, pixels in enumerate(results):
            if isinstance(pixels, tuple):
                problems[items[place].row] = pixels
            else:
                waiting.append(pixels)
                places.append(place)
            if len(waiting) >= size or (place == len(items) - 1 and waiting):
                vectors[places] = embedder.embed(np.stack(waiting))
                waiting, places = [], []
                tick(Progress("embedding", place + 1, len(items)))
    return vectors, problems
