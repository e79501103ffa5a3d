"""How a finished network is run ▲: by onnxruntime on the processor, by torch on a GPU or in bf16; and how near they are.

On a processor onnxruntime took 1.2 to 1.9 times less than torch in float32, and gave the same numbers up to rounding.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from camera_trap_al.errors import ModelError
from camera_trap_al.learn.device import full_float32, laid_out_for
from camera_trap_al.learn.onnx_files import check_self_contained, open_session
from camera_trap_al.learn.pace import BF16, FLOAT32, Way, measure, said
from camera_trap_al.learn.raw_onnx import INPUT, ImagesToEmbedding

# Of the distances between images (see `distance_off`): what bf16 may change, and what rounding in float32 may.
BF16_OFF, FLOAT32_OFF = 0.05, 1e-3
TRIED_IMAGES = 4
GPU_TRIED_IMAGES = 64

log = logging.getLogger(__name__)

Embed = Callable[[np.ndarray], np.ndarray]
"""Maps (n, 256, 256, 3) uint8 images to (n, d) float32; any number of threads may call it at once."""


def by_onnxruntime(onnx: bytes, name: str) -> Embed:
    """Return what runs the ONNX file of a model in float32, each call in the thread that makes it.

    Raises `ModelError` for a file, named in the text, that cannot be used.
    """
    check_self_contained(onnx, name)
    # onnxruntime raises classes of its own that share no base.
    try:
        session = open_session(onnx, threads=1)
    except Exception as error:
        raise ModelError(f"onnxruntime cannot open {name} ({error}).", hint="Set this folder aside.") from error

    def embed(images: np.ndarray) -> np.ndarray:
        embedding: np.ndarray = session.run(None, {INPUT: np.ascontiguousarray(images)})[0]
        return embedding

    return embed


def by_torch(whole: ImagesToEmbedding, device: torch.device, precision: str) -> Embed:
    """Return what runs the module, which moves to the device, in `FLOAT32` or under autocast to `BF16`."""
    network = laid_out_for(whole, device).eval()

    def embed(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), computing(device, precision):
            embedding: np.ndarray = network(to_device(images, device)).float().cpu().numpy()
            return embedding

    return embed


@contextlib.contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """Compute in a precision: on a GPU, `FLOAT32` means whole float32."""
    if precision == BF16:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif device.type == "cuda":
        with full_float32():
            yield
    else:
        yield


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return an array as a tensor on the device; to a GPU it goes from pinned memory, while the processor goes on."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def distance_off(embeddings: np.ndarray, wanted: np.ndarray) -> float:
    """Return how far the worst embedding is from what was wanted, over how far images are from their mean.

    Parameters
    ----------
    embeddings, wanted : (n, d) float32

    Returns
    -------
    0 where they agree; infinite, or not a number, where they do not and the images do not differ.
    """
    off = np.linalg.norm(np.asarray(embeddings, np.float64) - wanted, axis=1).max()
    spread = np.sqrt(np.square(wanted - wanted.mean(axis=0, dtype=np.float64)).sum(axis=1).mean())
    with np.errstate(divide="ignore", invalid="ignore"):
        return 0.0 if off == 0 else float(np.divide(off, spread))


def choose_precision(
    in_float32: Embed, in_bf16: Embed, device: torch.device, images: np.ndarray, wanted: np.ndarray
) -> str:
    """Return the precision in which a model is to embed, `BF16` only where that is faster and near enough.

    On a processor both are tried with one thread, as lanes compute.

    Parameters
    ----------
    images, wanted : (n, 256, 256, 3) uint8 reference images and their (n, d) embeddings in float32
    """
    n = GPU_TRIED_IMAGES if device.type == "cuda" else TRIED_IMAGES
    batch = np.resize(images, (n, *images.shape[1:]))
    ways = {Way(1, FLOAT32): in_float32, Way(1, BF16): in_bf16}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best, rates = measure(list(ways), lambda way: len(ways[way](batch)))
    finally:
        torch.set_num_threads(threads)
    log.info("%s", said("embedding, tried with the new model", best, rates))
    if best.precision == FLOAT32:
        return FLOAT32
    off = distance_off(in_bf16(images), wanted)
    if not off <= BF16_OFF:
        log.info("bf16 would move embeddings by %.3f of their distances: float32 is kept", off)
        return FLOAT32
    log.info("bf16 moves embeddings by %.4f of their distances", off)
    return BF16
