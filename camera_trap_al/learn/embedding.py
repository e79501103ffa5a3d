"""Embed items with a finished model ▲."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from camera_trap_al.core.records import Item
from camera_trap_al.errors import DivergedError, ModelError
from camera_trap_al.learn.data import READ_AHEAD, Problem, Reader, map_ahead, read_item, read_or_say_why
from camera_trap_al.learn.device import BatchLimit, pick_device
from camera_trap_al.learn.engines import BF16_OFF, FLOAT32_OFF, Embed, by_onnxruntime, by_torch, distance_off
from camera_trap_al.learn.model_folder import (
    ONNX,
    REFERENCE_EMBEDDINGS,
    REFERENCE_IMAGES,
    load_network,
    read_facts,
)
from camera_trap_al.learn.pace import BF16, FLOAT32, MOST_LANES, Pace, Way, thread_counts
from camera_trap_al.learn.raw_onnx import ImagesToEmbedding
from camera_trap_al.learn.settings import Progress, Tick, no_tick

BATCH_SIZE = 64
# Larger ones leave the processor's caches.
LANE_BATCH_SIZE = 4
# Batches for each lane while lanes are counted by measuring.
TRIED_BATCHES = 2
# bf16 rounds otherwise on another processor, by about as much as it does on the one that chose it.
OFF = {FLOAT32: FLOAT32_OFF, BF16: 2 * BF16_OFF}


class Embedder:
    """A finished model, ready to embed: in the precision that its facts name, and shown to do that as when it was made.

    Evaluation mode: the embedding of an image does not depend on what else is in its batch, but for rounding.

    On a processor several batches are computed beside each other, each in a *lane* of one thread. Lanes
    never wait for each other, so one that loses its core to another program for a while holds up no other. How many
    pay is measured at the start, and again as work goes on.

    Parameters
    ----------
    folder : a finished model
    device : None for the GPU, if there is one
    batch_size : images at once, at most; halved where memory is short
    threads : so many lanes, at most 32; None for what `OMP_NUM_THREADS` says, else to measure

    Raises
    ------
    ModelError
        A file of the model cannot be read, or the model gives other embeddings than when it was made.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device | str | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
    ) -> None:
        self.facts = read_facts(folder)
        self.device = torch.device(device or pick_device())
        counts, lanes = [threads] if threads else thread_counts(), [1]
        if self.device.type == "cpu":
            most = min(counts[0], MOST_LANES)
            lanes = [most, most // 2] if len(counts) > 1 else [most]
            batch_size = min(batch_size, LANE_BATCH_SIZE)
        self._limit = BatchLimit(batch_size)
        self._compute = _engine(folder, self.device, self.facts.precision)
        images = _check(self._embed, folder, self.facts.precision)
        self._tried = np.resize(images, (TRIED_BATCHES * lanes[0] * batch_size, *images.shape[1:]))
        self._pace = Pace("embedding", [Way(n, self.facts.precision) for n in lanes], self._try)

    @property
    def dimensions(self) -> int:
        """Return how many numbers an embedding has."""
        return self.facts.settings.feat_dim

    @property
    def lanes(self) -> int:
        """Return how many batches are computed beside each other now."""
        return self._pace.way.threads

    @property
    def batch_size(self) -> int:
        """Return how many images are computed at once now, in all lanes together."""
        return self._limit.size * self.lanes

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embed images.

        Parameters
        ----------
        images : (n, 256, 256, 3) uint8, RGB

        Returns
        -------
        (n, d) float32, not scaled

        Raises
        ------
        ModelError
            An embedding is not finite.
        """
        if len(images) == 0:
            return np.zeros((0, self.dimensions), np.float32)
        return np.concatenate(list(self.embed_each(self._parts(images))))

    def note(self, n_images: int, seconds: float) -> None:
        """Say how long images took, from their files on; now and then the number of lanes is measured again."""
        self._pace.note(n_images, seconds)

    def embed_each(self, batches: Iterable[np.ndarray]) -> Generator[np.ndarray, None, None]:
        """Yield the embeddings of each batch in order, while the next ones are computed. Close it to stop early."""
        waiting: deque[Future[np.ndarray]] = deque()
        with ThreadPoolExecutor(self.lanes, thread_name_prefix="embed") as threads:
            try:
                for batch in batches:
                    waiting.append(threads.submit(self._embed, batch))
                    # As many again wait, so that a lane finds work while the oldest batch is handed on.
                    if len(waiting) > 2 * self.lanes:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                threads.shutdown(cancel_futures=True)

    def next_batch(self) -> int:
        """Return how many images one batch in one lane may have now."""
        return self._limit.size

    def _parts(self, images: np.ndarray) -> Iterator[np.ndarray]:
        size = self._limit.size
        return (images[start : start + size] for start in range(0, len(images), size))

    def _embed(self, images: np.ndarray) -> np.ndarray:
        parts = self._limit.run(lambda start, stop: self._compute(images[start:stop]), len(images))
        vectors = np.concatenate(parts)
        if not np.isfinite(vectors).all():
            raise DivergedError(
                "The model fails on some images: what it makes of them are no longer numbers. Nothing of them was stored.",
                hint="Choose a smaller learning rate (embedding_train_lr, embedding_finetuning_lr) for the next training.",
            )
        return vectors

    def _try(self, way: Way) -> int:
        with ThreadPoolExecutor(way.threads) as lanes:
            return sum(len(vectors) for vectors in lanes.map(self._embed, self._parts(self._tried)))


def _engine(folder: Path, device: torch.device, precision: str) -> Embed:
    facts = read_facts(folder)
    if device.type == "cpu" and precision == FLOAT32:
        try:
            onnx = (folder / ONNX).read_bytes()
        except OSError as error:
            text = f"{folder / ONNX} cannot be read ({error})."
            raise ModelError(text, hint="Set this folder aside; an older model counts.") from error
        return by_onnxruntime(onnx, str(folder / ONNX))
    if device.type == "cpu":
        torch.set_num_threads(1)
    return by_torch(ImagesToEmbedding(load_network(folder, facts), facts.mean, facts.std), device, precision)


def _check(embed: Embed, folder: Path, precision: str) -> np.ndarray:
    """Return the reference images, which are embedded as they were when the model was made. Raises `ModelError`."""
    try:
        images = np.load(folder / REFERENCE_IMAGES, allow_pickle=False)
        wanted = np.load(folder / REFERENCE_EMBEDDINGS, allow_pickle=False)
    except (OSError, ValueError) as error:
        text = f"The reference images of {folder} cannot be read ({error})."
        raise ModelError(text, hint="Set this folder aside; an older model counts.") from error
    found = embed(images)
    # Where images hardly differ, rounding alone is large beside their distances.
    near = found.shape == wanted.shape and np.allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    if not near and not (found.shape == wanted.shape and distance_off(found, wanted) <= OFF[precision]):
        raise ModelError(
            f"The model in {folder} gives other embeddings than when it was made: one of its files was changed.",
            hint="Set this folder aside; an older model counts, or the next training makes a new one.",
        )
    loaded: np.ndarray = images
    return loaded


def embed_items(
    embedder: Embedder, items: Sequence[Item], *, read: Reader = read_item, tick: Tick = no_tick
) -> tuple[np.ndarray, dict[int, Problem]]:
    """Embed items, decoding the next ones meanwhile.

    Parameters
    ----------
    items : up to a shard of them
    read : how items become pixels
    tick : called at each mini-batch and each item that cannot be read

    Returns
    -------
    vectors : (n, d) float32 in the order of `items`; zeros for an item that could not be read
    problems : {row: (code, text)} of those

    Raises
    ------
    ImagesOfflineError
        A folder of images does not answer.
    ModelError
        An embedding is not finite.
    """
    started = time.monotonic()
    vectors = np.zeros((len(items), embedder.dimensions), np.float32)
    problems: dict[int, Problem] = {}
    batches: deque[list[int]] = deque()
    n_embedded = 0

    def say() -> None:
        tick(Progress("embedding", n_embedded + len(problems), len(items)))

    def ready() -> Iterator[np.ndarray]:
        waiting: list[np.ndarray] = []
        places: list[int] = []
        for place, pixels in enumerate(results):
            if isinstance(pixels, tuple):
                problems[items[place].row] = pixels
                say()
            else:
                waiting.append(pixels)
                places.append(place)
            if len(waiting) >= embedder.next_batch() or (place == len(items) - 1 and waiting):
                batches.append(places)
                yield np.stack(waiting)
                waiting, places = [], []

    ahead = max(READ_AHEAD, 2 * embedder.batch_size)
    with (
        closing(map_ahead(lambda item: read_or_say_why(item, read), items, ahead=ahead)) as results,
        closing(embedder.embed_each(ready())) as embedded,
    ):
        for found in embedded:
            places = batches.popleft()
            vectors[places] = found
            n_embedded += len(places)
            say()
    embedder.note(len(items), time.monotonic() - started)
    return vectors, problems
