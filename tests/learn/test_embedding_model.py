"""Making, training, finishing and using a model; resuming; what the folder holds for others."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from camera_trap_al.core.records import Box, Item
from camera_trap_al.errors import ImagesOfflineError, ModelError, StopRequested
from camera_trap_al.images import read_image
from camera_trap_al.learn.backbones import build_network
from camera_trap_al.learn.pace import FLOAT32
from camera_trap_al.learn.settings import SAVED, ModelSettings, TrainSettings, no_tick
from camera_trap_al.store.atomic import failpoints

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ["blue", "green", "red"]
COLOURS = [(60, 60, 160), (60, 160, 60), (160, 60, 60)]
TRIPLET = ModelSettings("tiny", 16)
SOFTMAX = ModelSettings("tiny", 16, loss="softmax")
TRAINING = TrainSettings(2, 0.002, loader="balanced", balanced_classes=3, balanced_samples=4)


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global DRAFT, Embedder, ImagesToEmbedding, PixelMemory, _by_export, continue_model, embed_items
    global finish_model, has_draft, load_network, read_draft, read_facts, start_model, torch, train
    import torch

    from camera_trap_al.learn import pace
    from camera_trap_al.learn.data import PixelMemory
    from camera_trap_al.learn.embedding import Embedder, embed_items
    from camera_trap_al.learn.making import continue_model, finish_model, start_model
    from camera_trap_al.learn.model_folder import DRAFT, has_draft, load_network, read_draft, read_facts
    from camera_trap_al.learn.raw_onnx import ImagesToEmbedding, _by_export
    from camera_trap_al.learn.training import train

    # Weights are compared to the last bit, so the precision of a training must not hang on a measurement.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pace, "measure", lambda ways, compute, clock: (ways[0], {}))
        yield


@pytest.fixture(scope="module")
def season(tmp_path_factory):
    """24 noisy coloured images of 64 pixels, and their labels; remembered once decoded."""
    folder, rng, items = tmp_path_factory.mktemp("season"), np.random.default_rng(0), []
    for row in range(24):
        pixels = rng.normal(COLOURS[row % 3], 40, (64, 64, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
        items.append(Item(row, str(folder / f"{row}.png")))
    return items, [row % 3 for row in range(24)], PixelMemory()


def make(folder, season, settings=TRIPLET, training=TRAINING, seed=7, tick=no_tick):
    items, labels, read = season
    folder.mkdir(exist_ok=True)
    start(folder, season, settings, seed=seed, tick=tick)
    train(folder, training, items, labels, device="cpu", read=read, tick=tick)
    finish_model(folder, items, read=read, tick=tick)
    return folder


def start(folder, season, settings=TRIPLET, seed=7, tick=no_tick):
    items, _, read = season
    start_model(
        folder, settings, items, classes=CLASSES, pretrained=True, weights=None, seed=seed, read=read, tick=tick
    )


progress_of_model = []


@pytest.fixture(scope="module")
def model(season, tmp_path_factory):
    torch.set_num_threads(1)
    return make(tmp_path_factory.mktemp("models") / "gen-000001", season, tick=progress_of_model.append)


@pytest.fixture(scope="module")
def softmax_model(season, tmp_path_factory):
    torch.set_num_threads(1)
    return make(tmp_path_factory.mktemp("softmax") / "gen-000001", season, SOFTMAX)


def stop_after(n):
    """A tick that asks to stop at the n-th training mini-batch."""
    left = [n]

    def tick(progress):
        left[0] -= progress.phase == "training"
        if left[0] <= 0:
            raise StopRequested

    return tick


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_model(model, season, tmp_path):
    assert weights_of(make(tmp_path / "again", season)) == weights_of(model)


def test_another_seed_gives_another_start(season, tmp_path):
    drafts = []
    for seed in (7, 8):
        (tmp_path / str(seed)).mkdir()
        start(tmp_path / str(seed), season, seed=seed)
        drafts.append(read_draft(tmp_path / str(seed)).network.state_dict())
    assert not torch.equal(drafts[0]["head.weight"], drafts[1]["head.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("settings", [TRIPLET, SOFTMAX])
def test_a_training_stopped_at_any_mini_batch_ends_as_an_undisturbed_one(
    settings, season, tmp_path, model, softmax_model
):
    items, labels, read = season
    folder = tmp_path / "model"
    folder.mkdir()
    start(folder, season, settings)
    stops = 0
    while True:
        try:
            # Each life may take one mini-batch more than its first, which is committed at once.
            train(folder, TRAINING, items, labels, device="cpu", read=read, tick=stop_after(2), commit_every_s=0)
            break
        except StopRequested:
            stops += 1
    finish_model(folder, items, read=read)
    assert stops >= 3
    expected = model if settings is TRIPLET else softmax_model
    assert weights_of(folder) == weights_of(expected)


def test_a_training_stopped_before_its_first_commit_of_an_epoch_repeats_that_epoch(season, tmp_path, model):
    items, labels, read = season
    folder = tmp_path / "model"
    folder.mkdir()
    start(folder, season)
    with pytest.raises(StopRequested):
        train(folder, TRAINING, items, labels, device="cpu", read=read, tick=stop_after(3))
    assert (read_draft(folder).epoch, read_draft(folder).batch) == (1, 0)
    train(folder, TRAINING, items, labels, device="cpu", read=read)
    finish_model(folder, items, read=read)
    assert weights_of(folder) == weights_of(model)


@pytest.mark.slow
def test_a_failure_at_any_durable_operation_is_repaired_by_calling_again(season, tmp_path, model, monkeypatch):
    class Killed(BaseException):
        pass

    monkeypatch.setattr(failpoints, "mode", "raise")
    monkeypatch.setattr(failpoints, "exception", Killed())
    folder, at = tmp_path / "model", 0
    while True:
        at += 8
        monkeypatch.setattr(failpoints, "count", 0)
        monkeypatch.setattr(failpoints, "fail_at", at)
        try:
            make(folder, season)
            break
        except Killed:
            assert not list(folder.glob(".*.partial"))
    monkeypatch.setattr(failpoints, "fail_at", 0)
    assert at > 30
    assert weights_of(folder) == weights_of(model)
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in model.iterdir())


def test_the_facts_of_a_draft_can_be_read_before_and_after_it_is_finished(season, tmp_path, model):
    with pytest.raises(ModelError):
        read_facts(tmp_path)
    start(tmp_path, season)
    assert read_facts(tmp_path) == replace(read_facts(model), precision=FLOAT32)


def test_a_softmax_model_may_start_before_any_class_is_known(season, tmp_path):
    items, _, read = season
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    start_model(first, SOFTMAX, items, classes=[], pretrained=True, weights=None, seed=1, read=read)
    finish_model(first, items, read=read)
    continue_model(second, first, classes=CLASSES, seed=2)
    assert read_draft(second).head.weight.shape == (3, 16)


def test_a_damaged_draft_is_made_anew(season, tmp_path, caplog):
    (tmp_path / DRAFT).write_bytes(b"damaged")
    assert not has_draft(tmp_path)
    assert "Training starts anew" in caplog.text
    start(tmp_path, season)
    assert read_draft(tmp_path).epoch == 0


def test_training_brings_images_of_a_class_together(model, season):
    items, labels, read = season
    vectors, problems = embed_items(Embedder(model, "cpu"), items, read=read)
    assert problems == {} and vectors.shape == (24, 16) and vectors.dtype == np.float32
    distances = ((vectors[:, None] - vectors[None]) ** 2).sum(-1)
    alike = np.equal.outer(labels, labels)
    assert distances[~alike].mean() > 4 * distances[alike].mean()


def test_progress_counts_every_mini_batch(model):
    steps = [(p.done, p.total) for p in progress_of_model if p.phase == "training"]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {p.phase for p in progress_of_model} == {"measuring", "training", "finishing", SAVED}


def test_no_epochs_leave_the_start_weights(season, tmp_path):
    folder = make(tmp_path / "model", season, training=TrainSettings(0, 0.1))
    vectors, _ = embed_items(Embedder(folder, "cpu"), season[0], read=season[2])
    assert vectors.std(axis=0).min() > 1e-3


@pytest.mark.slow
def test_an_untrained_deep_network_tells_images_apart_in_numbers_of_ordinary_size(season, tmp_path):
    items, labels, read = season
    settings = ModelSettings("mobilenet_v3_small", 8)
    start_model(tmp_path, settings, items[:9], classes=CLASSES, pretrained=False, weights=None, seed=1, read=read)
    draft = read_draft(tmp_path)
    whole = ImagesToEmbedding(draft.network, draft.facts.mean, draft.facts.std).eval()
    with torch.inference_mode():
        vectors = whole(torch.from_numpy(np.stack([read(item) for item in items[:9]])))
    by_class = torch.stack([vectors[label::3].mean(dim=0) for label in range(3)])
    assert 0.001 < vectors.abs().mean() < 100
    assert by_class.std(dim=0).mean() > 0.3 * vectors.abs().mean()


def test_an_item_that_cannot_be_read_is_reported_and_left_out(season, tmp_path, model):
    items, labels = season[0][:9], season[1][:9]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"")
    items = [*items, Item(99, str(broken)), Item(100, str(tmp_path / "gone.jpg"))]
    start_model(tmp_path, TRIPLET, items, classes=CLASSES, pretrained=True, weights=None, seed=7)
    problems = train(tmp_path, TRAINING, items, [*labels, 0, 1], device="cpu")
    assert {row: code for row, (code, _) in problems.items()} == {99: "empty_file", 100: "missing"}
    vectors, problems = embed_items(Embedder(model, "cpu", batch_size=7), items)
    assert {row: code for row, (code, _) in problems.items()} == {99: "empty_file", 100: "missing"}
    assert not vectors[-2:].any() and vectors[:-2].any(axis=1).all()


def test_a_lost_folder_ends_the_job(season, tmp_path, model):
    items = [*season[0], Item(99, str(tmp_path / "lost" / "a.jpg"))]
    with pytest.raises(ImagesOfflineError):
        embed_items(Embedder(model, "cpu"), items)


def test_a_stop_passes_through_embedding(season, model):
    def stop(progress):
        raise StopRequested

    with pytest.raises(StopRequested):
        embed_items(Embedder(model, "cpu"), season[0], tick=stop)


def test_a_crop_is_embedded_as_its_own_image(season, tmp_path, model):
    halves = Image.new("RGB", (200, 100), (160, 60, 60))
    halves.paste((60, 60, 160), (100, 0, 200, 100))
    halves.save(tmp_path / "halves.png")
    Image.new("RGB", (100, 100), (160, 60, 60)).save(tmp_path / "red.png")
    items = [
        Item(0, str(tmp_path / "halves.png"), box=Box(0, 0, 0.5, 1)),
        Item(1, str(tmp_path / "red.png")),
        Item(2, str(tmp_path / "halves.png")),
    ]
    vectors, _ = embed_items(Embedder(model, "cpu"), items)
    assert np.allclose(vectors[0], vectors[1], atol=1e-3)
    assert not np.allclose(vectors[0], vectors[2], atol=0.1)


@pytest.mark.parametrize("which", ["model", "softmax_model"])
def test_the_onnx_file_says_what_torch_says(which, season, request):
    folder = request.getfixturevalue(which)
    session = onnxruntime.InferenceSession(folder / "embedding.onnx", providers=["CPUExecutionProvider"])
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [256, 256, 3])
    assert (returned.name, returned.type, returned.shape[1:]) == ("embedding", "tensor(float)", [16])
    for n in (1, 5):
        images = np.stack([read_image(item.path) for item in season[0][:n]])
        (embedding,) = session.run(None, {"images": images})
        assert np.allclose(embedding, Embedder(folder, "cpu").embed(images), atol=1e-4)


def test_the_onnx_file_is_self_contained(model):
    graph = onnx.load(model / "embedding.onnx", load_external_data=False)
    onnx.checker.check_model(graph)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in graph.graph.initializer)
    assert [o.version for o in graph.opset_import if o.domain == ""] == [18]


@pytest.mark.slow
def test_the_newer_onnx_writer_gives_the_same(model, season):
    pytest.importorskip("onnxscript")
    facts = read_facts(model)
    whole = ImagesToEmbedding(load_network(model, facts), facts.mean, facts.std).eval()
    data = _by_export(whole, torch.zeros(2, 256, 256, 3, dtype=torch.uint8))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    images = np.load(model / "reference_images.npy")
    expected = np.load(model / "reference_embeddings.npy")
    assert np.allclose(session.run(None, {"images": images})[0], expected, atol=1e-4)


def test_the_references_are_images_and_their_embeddings(model):
    images = np.load(model / "reference_images.npy", allow_pickle=False)
    embeddings = np.load(model / "reference_embeddings.npy", allow_pickle=False)
    assert images.shape == (16, 256, 256, 3) and images.dtype == np.uint8
    assert embeddings.shape == (16, 16) and embeddings.dtype == np.float32
    assert np.allclose(Embedder(model, "cpu").embed(images), embeddings, atol=1e-5)


def test_model_json_says_what_the_model_is(model):
    facts = json.loads((model / "model.json").read_text(encoding="utf-8"))
    assert facts["format"] == 1 and facts["image_px"] == 256 and facts["input_px"] == 224
    assert facts["classes"] == CLASSES and len(facts["mean"]) == len(facts["std"]) == 3
    assert facts["settings"]["arch"] == "tiny" and "random weights" in facts["weights_from"]
    assert read_facts(model).settings == TRIPLET


@pytest.mark.parametrize("which", ["model", "softmax_model"])
def test_the_sister_pipeline_gets_what_it_reads(which, request):
    folder = request.getfixturevalue(which)
    packed = torch.load(folder / "embedding_model_weights.pt", weights_only=True)
    assert type(packed) is dict and "optimizer_state_dict" not in packed
    assert packed["arch_name"] == "tiny" and type(packed["feat_dim"]) is int and packed["num_classes"] == 3
    assert packed["classes"] == CLASSES and packed["class_to_idx"] == {"blue": 0, "green": 1, "red": 2}
    state = packed["embedding_model_state_dict"]
    inner, holder = build_network("tiny", 16, seed=0), torch.nn.Module()
    if which == "model":
        assert packed["loss_type"] == "triplet"
        holder.inner_model = inner
    else:
        assert packed["loss_type"] == "softmax"
        holder.embedding = torch.nn.Module()
        holder.embedding.inner_model = inner
        holder.classifier = torch.nn.Linear(16, 3)
    torch.nn.DataParallel(holder).load_state_dict(state)


def test_a_softmax_model_continues_with_a_new_class_and_keeps_the_others(softmax_model, season, tmp_path):
    continue_model(tmp_path, softmax_model, classes=["blue", "fox", "green", "red"], seed=3)
    draft, parent = read_draft(tmp_path), torch.load(softmax_model / "embedding_model_weights.pt", weights_only=True)
    old = parent["embedding_model_state_dict"]["module.classifier.weight"]
    assert torch.equal(draft.head.weight[[0, 2, 3]], old)
    assert draft.facts.classes == ("blue", "fox", "green", "red")
    assert draft.facts.mean == read_facts(softmax_model).mean


def test_a_child_starts_from_its_parents_weights_and_goes_on(model, season, tmp_path):
    items, labels, read = season
    continue_model(tmp_path, model, classes=CLASSES, seed=11)
    parent, child = load_network(model, read_facts(model)), read_draft(tmp_path).network.state_dict()
    assert all(torch.equal(value, child[name]) for name, value in parent.state_dict().items())
    train(tmp_path, TRAINING, items, labels, device="cpu", read=read)
    finish_model(tmp_path, items, read=read)
    assert weights_of(tmp_path) != weights_of(model)


def test_a_model_that_is_finished_is_left_alone(model, season):
    before = {p.name: p.stat().st_mtime_ns for p in model.iterdir()}
    make(model, season)
    assert {p.name: p.stat().st_mtime_ns for p in model.iterdir()} == before


def test_a_learning_rate_that_explodes_is_named(season, tmp_path):
    with pytest.raises(ModelError, match="smaller learning rate"):
        make(tmp_path / "model", season, training=TrainSettings(5, 1e30))


def test_a_damaged_model_is_named(model, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(model, folder)
    (folder / "embedding.onnx").write_bytes(b"torn")
    with pytest.raises(ModelError, match="embedding.onnx"):
        Embedder(folder, "cpu")
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="model.safetensors"):
        continue_model(tmp_path, folder, classes=CLASSES, seed=1)
    (folder / "model.json").write_text('{"format": 2}', encoding="utf-8")
    with pytest.raises(ModelError, match="format 2"):
        Embedder(folder, "cpu")
