"""Train a model ▲: plain epochs of mini-batches, committed so that a kill costs ten minutes at most."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from camera_trap_al.core.durations import in_time
from camera_trap_al.core.records import Item
from camera_trap_al.errors import DivergedError, ModelError
from camera_trap_al.learn.backbones import backbone_of
from camera_trap_al.learn.data import (
    INPUT_PX,
    Erasure,
    PixelMemory,
    Problem,
    Reader,
    augment,
    map_ahead,
    read_or_say_why,
)
from camera_trap_al.learn.device import BatchLimit, derived_seed, laid_out_for, pick_device
from camera_trap_al.learn.engines import computing, to_device
from camera_trap_al.learn.losses import losses, selection_for
from camera_trap_al.learn.model_folder import DRAFT, Draft, is_finished, read_draft, write_draft
from camera_trap_al.learn.pace import BF16, FLOAT32, Pace, Way, thread_counts
from camera_trap_al.learn.raw_onnx import by_colour, standardised
from camera_trap_al.learn.settings import SAVED, Progress, Tick, TrainSettings, loaders, no_tick
from camera_trap_al.store.atomic import discard_file

COMMIT_EVERY_S = 600.0
TRIED_IMAGES = 4

log = logging.getLogger(__name__)

Prepared = tuple[np.ndarray, "Erasure | None"]


def train(
    folder: Path,
    settings: TrainSettings,
    items: Sequence[Item],
    labels: Sequence[int] | np.ndarray,
    *,
    device: torch.device | str | None = None,
    read: Reader | None = None,
    tick: Tick = no_tick,
    commit_every_s: float = COMMIT_EVERY_S,
    threads: int | None = None,
) -> dict[int, Problem]:
    """Train the model that `start_model` or `continue_model` put into a folder, on from its last commit.

    Commits after each epoch and at least every `commit_every_s` seconds. Batches, transforms, dropout and the choice
    of triplets come from (seed, epoch, batch), so a training that was killed ends with the same weights as one that
    was not, if it is called again with the same arguments: on a CPU to the last bit where the number of threads is
    given, else, and on a GPU, up to rounding. It goes on in the precision that it began with.

    Parameters
    ----------
    items, labels : what is trained on; each label is the position of a class in the model's list
    device : None for the GPU, if there is one
    read : how items become pixels; by default decoded items are kept in memory, up to 1.5 GB
    threads : of the processor; None for what `OMP_NUM_THREADS` says, else for the fastest number, measured again and again

    Returns
    -------
    {row: (code, text)} of the items that could not be read; training goes on without them

    Raises
    ------
    ModelError
        The folder holds no model, labels and classes disagree, or the loss is no longer a number (the draft is removed).
    ImagesOfflineError
        A folder of images does not answer.
    """
    settings.check()
    if is_finished(folder):
        return {}
    draft = read_draft(folder)
    targets = np.asarray(labels, np.int64)
    n_classes = len(draft.facts.classes)
    if len(items) == 0 or len(items) != len(targets) or targets.min() < 0 or targets.max() >= n_classes:
        raise ModelError(f"Cannot train on {len(items)} images with {len(targets)} labels of {n_classes} classes.")
    work = _Work(items, targets, read or PixelMemory(), draft.seed)
    counts = [threads] if threads else thread_counts()
    training = _Training(folder, settings, draft, torch.device(device or pick_device()), counts)
    return training.run(work, tick, commit_every_s)


@dataclass(frozen=True)
class _Batch:
    """A mini-batch as it goes to the device: uint8 (b, 224, 224, 3), int64 (b,), what to erase in each, a seed."""

    images: np.ndarray
    labels: np.ndarray
    erasures: list[Erasure | None]
    seed: int

    def __len__(self) -> int:
        return len(self.labels)


class _Work:
    """What is trained on, prepared by threads ahead of its use."""

    def __init__(self, items: Sequence[Item], labels: np.ndarray, read: Reader, seed: int) -> None:
        self.labels = labels
        self.problems: dict[int, Problem] = {}
        self._items, self._read, self._seed = items, read, seed

    def prepare(self, batches: list[np.ndarray], epoch: int, first: int) -> Generator[_Batch, None, None]:
        """Yield the mini-batches of an epoch from number `first` on, without the items that cannot be read."""
        places = [(n, p, i) for n in range(first, len(batches)) for p, i in enumerate(batches[n].tolist())]

        def change(place: tuple[int, int, int]) -> Prepared | Problem:
            number, position, index = place
            pixels = read_or_say_why(self._items[index], self._read)
            if isinstance(pixels, tuple):
                return pixels
            return augment(pixels, np.random.default_rng([self._seed, epoch, number, position]))

        ahead = 2 * max(len(batch) for batch in batches)
        with closing(map_ahead(change, places, ahead=ahead)) as changed:
            for number in range(first, len(batches)):
                indices = batches[number].tolist()
                yield self._gather(indices, changed, derived_seed(self._seed, epoch, number))

    def _gather(self, indices: list[int], changed: Iterator[Prepared | Problem], seed: int) -> _Batch:
        images, erasures, kept = [], [], []
        for index in indices:
            result = next(changed)
            if isinstance(result[0], str):
                self.problems[self._items[index].row] = result
                continue
            images.append(result[0])
            erasures.append(result[1])
            kept.append(index)
        return _Batch(np.stack(images) if images else np.empty(0), self.labels[kept], erasures, seed)


class _Training:
    """A network on its device with its optimiser, and the draft that both are committed as."""

    def __init__(
        self, folder: Path, settings: TrainSettings, draft: Draft, device: torch.device, counts: list[int]
    ) -> None:
        self.folder, self.settings, self.draft, self.device = folder, settings, draft, device
        self._counts = counts
        self.network = laid_out_for(draft.network, device)
        self.head = draft.head.to(device) if draft.head is not None else None
        self.mean, self.std = by_colour(draft.facts.mean).to(device), by_colour(draft.facts.std).to(device)
        if settings.layers == "last":
            self.network.requires_grad_(False)
            self.network.get_submodule(backbone_of(draft.facts.settings.arch).head).requires_grad_(True)
        named = self.network.named_parameters(prefix="network")
        self.parameters = {name: value for name, value in named if value.requires_grad}
        if self.head is not None:
            self.parameters |= dict(self.head.named_parameters(prefix="head"))
        self.optimiser = torch.optim.Adam(self.parameters.values(), lr=settings.lr, weight_decay=settings.weight_decay)
        self._restore_moments()

    def run(self, work: _Work, tick: Tick, commit_every_s: float) -> dict[int, Problem]:
        """Train the epochs that are left; return what could not be read."""
        started = time.monotonic()
        log.info(
            "Training embedding model... (%d images, epochs %d to %d)",
            len(work.labels),
            self.draft.epoch + 1,
            self.settings.epochs,
        )
        # With only the last layer to train, what comes before it is a fixed function: no dropout, no batch statistics.
        self.network.train(self.settings.layers == "all")
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            if self.draft.epoch < self.settings.epochs:
                self.pace = Pace("training", self._ways(), self._try)
                self.draft.trains_in = self.pace.way.precision
            while self.draft.epoch < self.settings.epochs:
                self._run_epoch(work, tick, commit_every_s)
        log.info("Finished training embedding model... (in %s)", in_time(time.monotonic() - started))
        return work.problems

    def _ways(self) -> list[Way]:
        """Return the ways to train, all threads first; on a GPU, those of the processor do not matter."""
        counts = self._counts if self.device.type == "cpu" else self._counts[:1]
        if self.draft.trains_in:
            return [Way(n, self.draft.trains_in) for n in counts]
        return [*(Way(n, FLOAT32) for n in counts), Way(counts[0], BF16)]

    def _try(self, way: Way) -> int:
        """Compute the gradients of some images in one way, with a copy of the network."""
        torch.set_num_threads(way.threads)
        network = copy.deepcopy(self.network)
        shape = (TRIED_IMAGES, INPUT_PX, INPUT_PX, 3)

        def compute(start: int, stop: int) -> int:
            images = to_device(np.zeros((stop - start, *shape[1:]), np.uint8), self.device)
            with computing(self.device, way.precision):
                embeddings = network(standardised(images, self.mean, self.std))
            embeddings.float().square().sum().backward()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            return stop - start

        return sum(BatchLimit(TRIED_IMAGES).run(compute, TRIED_IMAGES))

    def _run_epoch(self, work: _Work, tick: Tick, commit_every_s: float) -> None:
        draft, epochs, losses_seen = self.draft, self.settings.epochs, []
        batches = loaders[self.settings.loader](work.labels, self.settings, draft.seed, draft.epoch)
        committed_at = time.monotonic()
        with closing(work.prepare(batches, draft.epoch, draft.batch)) as prepared:
            for batch in prepared:
                torch.set_num_threads(self.pace.way.threads)
                started = time.monotonic()
                losses_seen += self._learn(batch)
                self.pace.note(len(batch), time.monotonic() - started)
                draft.batch += 1
                tick(Progress("training", draft.epoch * len(batches) + draft.batch, epochs * len(batches)))
                if time.monotonic() - committed_at >= commit_every_s and draft.batch < len(batches):
                    self._commit()
                    tick(Progress(SAVED, draft.epoch, epochs))
                    committed_at = time.monotonic()
        draft.epoch, draft.batch = draft.epoch + 1, 0
        self._commit()
        tick(Progress(SAVED, draft.epoch, epochs))
        log.info("Epoch %d of %d: mean loss %.4f", draft.epoch, epochs, sum(losses_seen) / max(1, len(losses_seen)))

    def _learn(self, batch: _Batch) -> list[float]:
        """Take one step of the optimiser, or several smaller ones where memory is short; return their losses.

        An image that is alone in a step is left out: batch norm finds no spread in it, and it has no other to be near to.
        """
        torch.manual_seed(batch.seed)
        generator = torch.Generator().manual_seed(batch.seed)
        limit = BatchLimit(self.draft.batch_limit or len(batch))
        measured = limit.run(lambda start, stop: self._step(batch, start, stop, generator), len(batch))
        if limit.size < min(2, len(batch)):
            raise ModelError(
                "Memory is too short to train with even two images at once.",
                hint="End other programs, or choose a smaller embedding_arch (resnet18, mobilenet_v3_small).",
            )
        if limit.size < len(batch):
            self.draft.batch_limit = limit.size
        return [value for value in measured if value is not None]

    def _step(self, batch: _Batch, start: int, stop: int, generator: torch.Generator) -> float | None:
        if stop - start < 2:
            return None
        settings = self.draft.facts.settings
        images = standardised(to_device(batch.images[start:stop], self.device), self.mean, self.std)
        for image, erasure in zip(images, batch.erasures[start:stop], strict=True):
            if erasure is not None:
                noise = torch.from_numpy(erasure.noise).to(self.device).permute(2, 0, 1)
                bottom, right = erasure.top + noise.shape[1], erasure.left + noise.shape[2]
                image[:, erasure.top : bottom, erasure.left : right] = noise
        labels = to_device(batch.labels[start:stop], self.device)
        self.optimiser.zero_grad()
        measure, select = losses[settings.loss].measure, selection_for(settings.loss, settings.selection)
        with computing(self.device, self.pace.way.precision):
            embeddings = self.network(images)
        loss = measure(embeddings.float(), labels, self.head, settings.margin, select, generator)
        value = loss.item()
        if not math.isfinite(value):
            # What was committed was on its way there: a smaller learning rate would not bring it back.
            discard_file(self.folder / DRAFT)
            raise DivergedError(
                f"Training failed in epoch {self.draft.epoch + 1}: the loss is no longer a number.",
                hint="Choose a smaller learning rate (embedding_train_lr, embedding_finetuning_lr); it begins anew.",
            )
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return value

    def _commit(self) -> None:
        for name, parameter in self.parameters.items():
            state = self.optimiser.state.get(parameter, {})
            self.draft.moments.update({f"{name}.{key}": value for key, value in state.items()})
        write_draft(self.folder, self.draft)

    def _restore_moments(self) -> None:
        for name, parameter in self.parameters.items():
            saved = {key: self.draft.moments.get(f"{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
            step, mean, variance = saved.values()
            if step is not None and mean is not None and variance is not None:
                # In the parameter's memory layout, so that sums come out the same to the last bit.
                moments = {"exp_avg": torch.empty_like(parameter).copy_(mean).detach()}
                moments["exp_avg_sq"] = torch.empty_like(parameter).copy_(variance).detach()
                self.optimiser.state[parameter] = {"step": step, **moments}
