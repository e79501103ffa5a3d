"""ONNX files: opened without telling anybody; one that names other files is refused before anything opens those.

The file's own structure (protocol buffers) is walked, so that neither onnx nor its reader is needed where images are
only classified.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from camera_trap_al.errors import ModelError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MODEL, GRAPH, NODE, ATTRIBUTE, SPARSE, FUNCTION, TRAINING, TENSOR = range(8)
# Message → number of a field → the message it holds, as far as tensors can be below it (onnx.proto).
FIELDS: dict[int, dict[int, int]] = {
    MODEL: {7: GRAPH, 20: TRAINING, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    TRAINING: {1: GRAPH, 2: GRAPH},
    TENSOR: {},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14
DEEPEST = 100
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5


def open_session(model: bytes, *, threads: int = 0) -> InferenceSession:
    """Open an ONNX file that we made, on the CPU, with `threads` for one call; 0 for one a core.

    Threads that have nothing to do sleep: those that spin take the processor from the decoding beside them.

    From version 1.29 on onnxruntime tells its makers of each model that is opened, unless it is asked not to before it
    is loaded. Raises whatever onnxruntime does; its errors share no base.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def check_self_contained(data: bytes, name: str) -> None:
    """Raise `ModelError` for what is no ONNX file, or takes numbers from others ("external data").

    Those could be any file of this computer, however its place is written.
    """
    try:
        names_others = _names_others(memoryview(data), MODEL, 0)
    except (IndexError, ValueError) as error:
        raise ModelError(f"{name} is damaged: it is no ONNX file.", hint="Train or export again.") from error
    if names_others:
        raise ModelError(
            f"{name} takes numbers from other files, which no file made by this program does; it was not opened.",
            hint="Somebody has changed it: train or export again.",
        )


def _names_others(message: memoryview, kind: int, depth: int) -> bool:
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    for number, value in _fields(message):
        if kind == TENSOR and (number == EXTERNAL_DATA or number == DATA_LOCATION and value != 0):
            return True
        inner = FIELDS[kind].get(number)
        if inner is not None and isinstance(value, memoryview) and _names_others(value, inner, depth + 1):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field; values of fixed size are passed over."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, value
        elif wire == BYTES:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("cut short")
            yield number, message[at : at + size]
            at += size
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            at += 8 if wire == EIGHT_BYTES else 4
        else:
            raise ValueError("no known field")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("no number")
