"""The network with everything around it ▲: uint8 images in, embedding out; as a torch module and as ONNX."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from camera_trap_al.errors import ModelError
from camera_trap_al.images import IMAGE_PX
from camera_trap_al.learn.data import INPUT_PX

OPSET = 18
INPUT, OUTPUT, COUNT = "images", "embedding", "n"

log = logging.getLogger(__name__)


def standardised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Map uint8 images (n, h, w, 3) to float32 (n, 3, h, w): less `mean`, over `std`, both (1, 3, 1, 1)."""
    pixels = images.permute(0, 3, 1, 2).to(torch.float32)
    return (pixels / 255.0 - mean) / std


def by_colour(values: Sequence[float]) -> Tensor:
    """Return three numbers as a float32 tensor (1, 3, 1, 1)."""
    return torch.tensor(list(values), dtype=torch.float32).view(1, 3, 1, 1)


class ImagesToEmbedding(nn.Module):
    """Centre crop, standardising and network: uint8 (n, 256, 256, 3) RGB → float32 (n, feat_dim), unscaled."""

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", by_colour(mean))
        self.register_buffer("std", by_colour(std))

    def forward(self, images: Tensor) -> Tensor:
        low = (IMAGE_PX - INPUT_PX) // 2
        cropped = images[:, low : low + INPUT_PX, low : low + INPUT_PX, :]
        embedding: Tensor = self.network(standardised(cropped, self.get_buffer("mean"), self.get_buffer("std")))
        return embedding


def to_onnx(whole: ImagesToEmbedding) -> bytes:
    """Write the module, in evaluation mode, as one self-contained ONNX file (opset 18).

    Its input is `images` uint8 (n, 256, 256, 3), its output `embedding` float32 (n, feat_dim); n is free.

    torch has two writers. The older one needs no further package and knows every network here; the newer one takes
    over where a later torch has dropped it.

    Raises
    ------
    ModelError
        Neither writer can.
    """
    whole = whole.eval().cpu()
    example = torch.zeros(2, IMAGE_PX, IMAGE_PX, 3, dtype=torch.uint8)
    try:
        return _by_tracing(whole, example)
    # torch names no class of errors for what a writer cannot do, or for a writer that is gone.
    except Exception as error:
        if importlib.util.find_spec("onnxscript") is None:
            raise ModelError(
                f"torch {torch.__version__} could not write the network as ONNX ({error}).",
                hint="Run `pip install onnxscript` and start again.",
            ) from error
        log.debug("The older ONNX writer failed: %s", error)
        return _by_export(whole, example)


def _by_tracing(whole: nn.Module, example: Tensor) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # It is deprecated since torch 2.9, and says so at length.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            whole,
            (example,),
            buffer,  # type: ignore[arg-type]
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: COUNT}, OUTPUT: {0: COUNT}},
            opset_version=OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


def _by_export(whole: nn.Module, example: Tensor) -> bytes:
    program = torch.onnx.export(
        whole,
        (example,),
        None,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={"images": {0: torch.export.Dim(COUNT)}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    written: bytes = program.model_proto.SerializeToString()
    return written
