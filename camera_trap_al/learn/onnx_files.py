"""ONNX files: opened without telling anybody; one that names other files is refused before anything opens those.

The file's own structure (protocol buffers) is walked, so that neither onnx nor its reader is needed where images are
only classified. So is what `model.onnx` says of itself, which makes it usable alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from camera_trap_al.core.matching import class_name_problem
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
# Of a model its graph and its metadata; of a graph its outputs; of these the fields that lead to their sizes (onnx.proto).
MODEL_GRAPH, METADATA, OUTPUT = 7, 14, 12
TYPE, TENSOR_TYPE, SHAPE, DIMENSION, SIZE = 2, 1, 2, 1, 1

PROBABILITIES = "probabilities"
CREATOR = "camera_trap_al"
CREATED_BY, CLASSES, FORMAT_KEY, SEAL = "created_by", "classes", "format", "sha256"
METADATA_FORMAT = 1


@dataclass(frozen=True)
class OnnxFacts:
    """What an ONNX file says of itself.

    Parameters
    ----------
    metadata : its `metadata_props`
    outputs : the size of the last dimension of each output by name, 0 where it is left open
    graph : the bytes of its graph, which is nearly all of the file
    """

    metadata: dict[str, str]
    outputs: dict[str, int]
    graph: memoryview


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


def read_onnx_facts(data: bytes) -> OnnxFacts:
    """Return what an ONNX file says of itself, without running it. Raises `ValueError` for what is none."""
    metadata: dict[str, str] = {}
    graphs: list[memoryview] = []
    try:
        for number, value in _fields(memoryview(data)):
            if number == MODEL_GRAPH and isinstance(value, memoryview):
                graphs.append(value)
            elif number == METADATA and isinstance(value, memoryview):
                entry = {n: bytes(text).decode("utf-8") for n, text in _messages(value)}
                metadata[entry.get(1, "")] = entry.get(2, "")
        if len(graphs) != 1:
            raise ValueError("no graph, or several")
        outputs = dict(_named_size(value) for number, value in _messages(graphs[0]) if number == OUTPUT)
    except IndexError as error:
        raise ValueError("cut short") from error
    return OnnxFacts(metadata, outputs, graphs[0])


def seal(graph: bytes | memoryview, classes: str) -> str:
    """Return the hex SHA-256 of a graph followed by the text of its classes, by which damage to either shows."""
    return hashlib.sha256(b"".join((graph, classes.encode("utf-8")))).hexdigest()


def read_alone(data: bytes, name: str) -> list[str]:
    """Return the classes of a `model.onnx` that is there alone, by its own metadata.

    A file of a version that noted no hash is taken as it is.

    Raises
    ------
    ModelError
        It is no ONNX file, not one of this program, of a newer format, another part of an export, or was changed.
    """
    check_self_contained(data, name)
    try:
        facts = read_onnx_facts(data)
    except ValueError as error:
        raise ModelError(f"{name} is damaged: it is no ONNX file ({error}).", hint="Copy it again.") from error
    if not facts.metadata.get(CREATED_BY, "").startswith(f"{CREATOR} "):
        raise ModelError(
            f"{name} was not made by this program, so nothing says what its outputs mean.",
            hint="Give the folder `export` of a work folder, its `model.onnx`, or a ZIP file of `export --zip`.",
        )
    form = facts.metadata.get(FORMAT_KEY, str(METADATA_FORMAT))
    if form != str(METADATA_FORMAT):
        text = f"{name} is of format {form[:20]!r}; this version reads format {METADATA_FORMAT}."
        raise ModelError(text, hint="Update the program.")
    if PROBABILITIES not in facts.outputs:
        raise ModelError(f"{name} gives no probabilities; it is another part of an export.", hint="Give `model.onnx`.")
    named = facts.metadata.get(CLASSES, "")
    if SEAL in facts.metadata and facts.metadata[SEAL] != seal(facts.graph, named):
        raise ModelError(
            f"{name} is not as it was exported: it is damaged, or somebody has changed it.", hint="Copy it again."
        )
    classes = class_names(named.encode("utf-8"), f"What {name} says of its classes")
    if len(classes) != facts.outputs[PROBABILITIES]:
        raise ModelError(f"{name} names {len(classes)} classes, which are not its outputs.", hint="Export again.")
    return classes


def class_names(data: bytes, what: str) -> list[str]:
    """Return the names of classes in a JSON list. Raises `ModelError`, which names `what`, for anything else.

    Names that no class of ours can have are refused too: they go into tables, and name folders.
    """
    try:
        classes: Any = json.loads(data)
    except (ValueError, RecursionError):
        classes = None
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise ModelError(f"{what} is no list of class names.", hint="Export again.")
    if len(set(classes)) < len(classes) or any(class_name_problem(name, reserved=()) for name in classes):
        raise ModelError(f"{what} holds what is no name of a class, or a name twice.", hint="Export again.")
    return classes


def _named_size(value_info: memoryview) -> tuple[str, int]:
    name = next((bytes(text).decode("utf-8") for number, text in _messages(value_info) if number == 1), "")
    shape = [value_info]
    for wanted in (TYPE, TENSOR_TYPE, SHAPE, DIMENSION):
        shape = [inner for message in shape for number, inner in _messages(message) if number == wanted]
    sizes = [value for number, value in _fields(shape[-1]) if number == SIZE] if shape else []
    return name, sizes[-1] if sizes and isinstance(sizes[-1], int) else 0


def _messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and the bytes of each field that holds a message or a text."""
    return ((number, value) for number, value in _fields(message) if isinstance(value, memoryview))


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
