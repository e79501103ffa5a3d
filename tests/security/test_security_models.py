"""Model files from strangers: nothing pickled is run, nothing outside is opened, nothing that we did not make is loaded."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from fake_model import make_source
from onnx import TensorProto, helper, numpy_helper
from planted import Bomb
from small_world import make_world, run

from camera_trap_al.errors import ModelError
from camera_trap_al.exporters import exporters
from camera_trap_al.exporters.graphs import parse
from camera_trap_al.learn.classifier import load_classifier
from camera_trap_al.learn.onnx_files import check_self_contained
from camera_trap_al.learn.predict import open_export
from camera_trap_al.store import embeddings, generations


def pickled_array(proof: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb(proof)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def test_the_bomb_goes_off_where_pickles_are_read(proof: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(proof)))
    assert proof.exists()


@pytest.mark.slow
def test_planted_pickles_in_a_work_folder_are_never_read(tmp_path: Path, proof: Path, no_torch: None) -> None:
    work = make_world(tmp_path)
    run(work)
    bomb = pickle.dumps(Bomb(proof))
    for name in ("classifier.pkl", "data/scaler.pkl", "models/gen-000001/classifier.joblib", "checkpoints/model.pt"):
        (work / name).write_bytes(bomb)
    for name in (
        "models/gen-000001/model.pt",
        "export/embedding_model_weights.pt",
        "checkpoints/gen-000001/x.safetensors",
    ):
        (work / name).write_bytes(bomb)
    (scaler,) = work.glob("embedding/*/scaler.npy")
    scaler.write_bytes(pickled_array(proof))
    shard = next(iter(work.glob("embedding/*/shard-*.npy")))
    shard.write_bytes(pickled_array(proof))
    # As a new process would begin.
    generations._verified.clear()
    run(work)
    assert not proof.exists()
    with pytest.raises(ModelError):
        (work / "checkpoints" / "gen-000001" / "classifier.safetensors").write_bytes(bomb)
        load_classifier(work / "checkpoints" / "gen-000001")
    assert not proof.exists()


def test_an_array_with_pickled_objects_is_refused(tmp_path: Path, proof: Path) -> None:
    (tmp_path / "scaler.npy").write_bytes(pickled_array(proof))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        embeddings.read_scaler(tmp_path)
    assert not proof.exists()


def with_external(location: str, where: str) -> bytes:
    """Return an ONNX file, one of whose tensors is in another file; `where` says which."""
    outside = numpy_helper.from_array(np.zeros((4, 4), np.float32), "w")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value=location)
    constant = helper.make_node("Constant", [], ["w"], value=outside if where == "attribute" else None)
    nodes = [helper.make_node("MatMul", ["images", "w"], ["embedding"])]
    initializers = []
    if where == "initializer":
        initializers = [outside]
    elif where == "attribute":
        nodes.insert(0, constant)
    elif where == "subgraph":
        branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("w", 1, [4, 4])], [outside])
        condition = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
        nodes[:0] = [condition, helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch)]
    graph = helper.make_graph(
        nodes,
        "stranger",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 4])],
        initializers,
    )
    functions = []
    if where == "function":
        outside.name = "w2"
        node = helper.make_node("Constant", [], ["y"], value=outside)
        functions = [helper.make_function("d", "F", [], ["y"], [node], [helper.make_opsetid("", 18)])]
    sets = [helper.make_opsetid("", 18), helper.make_opsetid("d", 1)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=8, functions=functions)
    data: bytes = model.SerializeToString()
    return data


WHERE = ("initializer", "attribute", "subgraph", "function")
LOCATIONS = ("weights.bin", "../../outside.bin", "/etc/passwd", "C:\\secret.bin", "./link.bin", "")


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("location", LOCATIONS)
def test_onnx_that_takes_numbers_from_other_files_is_refused(where: str, location: str) -> None:
    data = with_external(location, where)
    onnx.load_model_from_string(data)
    with pytest.raises(ModelError, match="takes numbers from other files"):
        check_self_contained(data, "model.onnx")
    with pytest.raises(ModelError, match="takes numbers from other files"):
        parse(data, "embedding.onnx")


@pytest.mark.parametrize(
    "data", [b"\x0a", b"\xff" * 40, b"<html>", b"PK\x03\x04" + bytes(40), b"\x3a\x05\x0a\xff\xff\xff\x7f"]
)
def test_what_is_no_onnx_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        check_self_contained(data, "model.onnx")


def test_onnx_nested_without_end_is_refused() -> None:
    def field(number: int, inner: bytes) -> bytes:
        size, out = len(inner), b""
        while size > 127:
            out, size = out + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + out + bytes([size]) + inner

    data = b""
    for _ in range(3_000):
        data = field(6, data)
        data = field(5, data)
        data = field(1, data)
    with pytest.raises(ModelError):
        check_self_contained(field(7, data), "model.onnx")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    source = make_source(folder / "source")
    (folder / "export").mkdir()
    exporters["onnx"].write(source, folder / "export")
    return folder / "export"


@pytest.mark.slow
def test_files_that_we_wrote_are_whole_in_themselves(export: Path) -> None:
    for path in export.glob("*.onnx"):
        check_self_contained(path.read_bytes(), path.name)


@pytest.mark.parametrize("way", ["path", "symlink", "hard link"])
def test_predict_opens_nothing_beside_an_export(export: Path, tmp_path: Path, way: str) -> None:
    folder = tmp_path / "export"
    shutil.copytree(export, folder)
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64))
    if way != "path" and sys.platform == "win32":
        pytest.skip("making links needs a right that few users have on Windows")
    if way == "symlink":
        (folder / "w.bin").symlink_to(secret)
    elif way == "hard link":
        (folder / "w.bin").hardlink_to(secret)
    data = with_external("../secret.bin" if way == "path" else "w.bin", "initializer")
    (folder / "model.onnx").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["model.onnx"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelError, match="takes numbers from other files"):
        open_export(folder)


@pytest.mark.parametrize("name", ["embedding.onnx", "model.json", "reference_images.npy", "embedding_model_weights.pt"])
def test_the_daemon_loads_only_the_model_files_that_it_made(tmp_path: Path, name: str) -> None:
    source = make_source(tmp_path)
    path = source.model_folder / name
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="not the file that was made"):
        exporters["onnx"].write(source, tmp_path)
    (source.model_folder / generations.MANIFEST).unlink()
    with pytest.raises(ModelError):
        exporters["onnx"].write(source, tmp_path)
