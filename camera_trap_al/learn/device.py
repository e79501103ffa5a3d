"""Where torch computes and how: device, memory layout, batch size that backs off; with how much: `pace.py`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import nn

# onnxruntime's errors share no class with torch's, and neither has one for this on a CPU.
MEMORY_WORDS = ("out of memory", "can't allocate memory", "failed to allocate memory", "bad allocation", "bad_alloc")

log = logging.getLogger(__name__)

T = TypeVar("T")


def pick_device() -> torch.device:
    """Return the GPU, if torch can use one, else the CPU (with a warning, since training then takes hours)."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    log.warning("No GPU was detected; using CPU instead")
    return torch.device("cpu")


def derived_seed(*numbers: int) -> int:
    """Mix non-negative numbers into one seed in [0, 2⁶³)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global random numbers of the CPU for a while, and put them back as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def laid_out_for(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device, its weights laid out as is quicker there; the numbers are the same."""
    if suits_channels_last(network, device):
        return network.to(device, memory_format=torch.channels_last)
    return network.to(device)


def suits_channels_last(network: nn.Module, device: torch.device) -> bool:
    """Return whether a network computes quicker with channels last: 1.1 to 2 times as many images a second.

    On a GPU one with grouped convolutions, such as EfficientNet, does not: cuDNN prepares for seconds for each new size of a
    batch, and is no quicker then.
    """
    grouped = any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in network.modules())
    return not (device.type == "cuda" and grouped)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Compute convolutions on a GPU in whole float32, not in TF32, so that results agree with the CPU's."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether torch ran out of memory, on a GPU or on the CPU, or onnxruntime did."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return any(words in text for words in MEMORY_WORDS)


class BatchLimit:
    """The largest batch that fits: starts at `size` and halves each time memory is short. Threads may share it."""

    def __init__(self, size: int) -> None:
        self.size = max(1, size)

    def run(self, compute: Callable[[int, int], T], n: int) -> list[T]:
        """Call `compute(start, stop)` for consecutive parts of range(n), none larger than the limit.

        A part that runs out of memory is computed again in halves; `compute` must leave nothing behind when it
        fails. A single image that does not fit raises torch's error.
        """
        results: list[T] = []
        start = 0
        while start < n:
            stop = min(n, start + self.size)
            if (result := self._try(compute, start, stop)) is not None:
                results.append(result[0])
                start = stop
        return results

    def _try(self, compute: Callable[[int, int], T], start: int, stop: int) -> tuple[T] | None:
        try:
            return (compute(start, stop),)
        except Exception as error:
            if not is_out_of_memory(error) or stop - start == 1:
                raise
        # Only here, after the error and the tensors that it holds are gone, can memory be given back.
        self.size = min(self.size, (stop - start + 1) // 2)
        log.warning("Memory was short; going on with batches of %d images", self.size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None
