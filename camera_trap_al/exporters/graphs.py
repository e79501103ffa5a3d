"""The ONNX files of an export, as bytes: the model's raw network joined with scaler and classifier."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from camera_trap_al.errors import ModelError
from camera_trap_al.learn.classifier import Classifier
from camera_trap_al.learn.onnx_files import CLASSES, PROBABILITIES, SEAL, check_self_contained, seal

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto
    from sklearn.neural_network import MLPClassifier

IMAGES, EMBEDDING = "images", "embedding"
CLASSIFIER_INPUT = "X"
# What the sister pipeline's own onnxruntime, of 2023, can run.
CLASSIFIER_OPSET = {"": 15, "ai.onnx.ml": 3}
NETWORK_PREFIX = "network/"
RAW = f"{NETWORK_PREFIX}{EMBEDDING}"


def embedding_graph(raw: ModelProto, scaler: npt.NDArray[np.float64], metadata: Mapping[str, str]) -> bytes:
    """Return `embedding.onnx`: uint8 (n, 256, 256, 3) RGB → `embedding`, (n, d) float32, scaled."""
    nodes, constants = _scaling(scaler, EMBEDDING)
    return _join(raw, nodes, constants, EMBEDDING, scaler.shape[1], metadata)


def model_graph(
    raw: ModelProto, scaler: npt.NDArray[np.float64], classifier: Classifier, metadata: Mapping[str, str]
) -> bytes:
    """Return `model.onnx`: uint8 (n, 256, 256, 3) RGB → `probabilities`, (n, k) float32."""
    nodes, constants = _scaling(scaler, "scaled")
    more_nodes, more_constants = _layers(classifier, "scaled", PROBABILITIES)
    return _join(raw, nodes + more_nodes, constants + more_constants, PROBABILITIES, len(classifier.classes), metadata)


def classifier_graph(classifier: Classifier) -> bytes:
    """Return `classifier.onnx`: `X`, (n, d) float32 scaled embeddings → `label` (n,) int64, `probabilities` (n, k).

    As the reference program writes it: a label is an index into the sorted class list.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType

        network = to_scikit_learn(classifier)
        graph: ModelProto = to_onnx(
            network,
            initial_types=[(CLASSIFIER_INPUT, FloatTensorType([None, classifier.feat_dim]))],
            options={id(network): {"zipmap": False}},
            target_opset=CLASSIFIER_OPSET,
        )
    data: bytes = graph.SerializeToString()
    return data


def to_scikit_learn(classifier: Classifier) -> MLPClassifier:
    """Rebuild a classifier as a fitted scikit-learn MLP whose classes are 0 … k-1.

    With two classes scikit-learn has one logistic output, whose input is the difference of our two.
    """
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import LabelBinarizer

    k = len(classifier.classes)
    weights, biases = list(classifier.weights), list(classifier.biases)
    if k == 2:
        weights[-1] = weights[-1][:, 1:] - weights[-1][:, :1]
        biases[-1] = biases[-1][1:] - biases[-1][:1]
    network = MLPClassifier(hidden_layer_sizes=tuple(len(b) for b in biases[:-1]), activation="relu")
    network.coefs_, network.intercepts_ = weights, biases
    network.n_features_in_ = classifier.feat_dim
    network.n_layers_ = len(weights) + 1
    network.n_outputs_ = len(biases[-1])
    network.out_activation_ = "logistic" if k == 2 else "softmax"
    network.classes_ = np.arange(k)
    network._label_binarizer = LabelBinarizer().fit(network.classes_)
    return network


def parse(data: bytes, name: str) -> ModelProto:
    """Return the model's raw network. Raises `ModelError` if it is no ONNX file, or keeps weights in other files."""
    import onnx
    from google.protobuf.message import DecodeError

    check_self_contained(data, f"{name} of the model")
    try:
        raw = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelError(f"{name} of the model is damaged ({error}).", hint="Set this model aside.") from error
    ends = [[value.name for value in values] for values in (raw.graph.input, raw.graph.output)]
    if ends != [[IMAGES], [EMBEDDING]]:
        raise ModelError(f"{name} of the model is not one from images to embedding.", hint="Set this model aside.")
    return raw


def _scaling(scaler: npt.NDArray[np.float64], output: str) -> tuple[list[NodeProto], list[TensorProto]]:
    from onnx import helper, numpy_helper

    minimum, spread = scaler.astype(np.float32)
    constants = [numpy_helper.from_array(minimum, "minimum"), numpy_helper.from_array(spread, "range")]
    nodes = [
        helper.make_node("Sub", [RAW, "minimum"], ["shifted"]),
        helper.make_node("Div", ["shifted", "range"], [output]),
    ]
    return nodes, constants


def _layers(classifier: Classifier, value: str, output: str) -> tuple[list[NodeProto], list[TensorProto]]:
    from onnx import helper, numpy_helper

    nodes, constants = [], []
    last = len(classifier.weights) - 1
    for i, (weights, biases) in enumerate(zip(classifier.weights, classifier.biases, strict=True)):
        constants.append(numpy_helper.from_array(weights, f"weights_{i}"))
        constants.append(numpy_helper.from_array(biases, f"biases_{i}"))
        nodes.append(helper.make_node("Gemm", [value, f"weights_{i}", f"biases_{i}"], [f"layer_{i}"]))
        if i < last:
            nodes.append(helper.make_node("Relu", [f"layer_{i}"], [f"active_{i}"]))
        value = f"active_{i}"
    nodes.append(helper.make_node("Softmax", [f"layer_{last}"], [output], axis=1))
    return nodes, constants


def _join(
    raw: ModelProto,
    nodes: list[NodeProto],
    constants: list[TensorProto],
    output: str,
    n_columns: int,
    metadata: Mapping[str, str],
) -> bytes:
    """Append nodes to the raw network, whose output they take as `RAW`; the result has one input and one output."""
    from onnx import TensorProto, compose, helper

    network = compose.add_prefix(raw, NETWORK_PREFIX, rename_inputs=False)
    dimension = int(constants[0].dims[0])
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info(RAW, TensorProto.FLOAT, ["n", dimension])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", n_columns])],
        constants,
    )
    head = helper.make_model(graph, opset_imports=list(raw.opset_import), ir_version=raw.ir_version)
    joined = compose.merge_models(network, head, io_map=[(RAW, RAW)])
    sealed = seal(joined.graph.SerializeToString(), metadata[CLASSES])
    helper.set_model_props(joined, {**metadata, SEAL: sealed})
    data: bytes = joined.SerializeToString()
    return data
