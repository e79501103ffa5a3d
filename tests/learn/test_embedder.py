"""A finished model at work: in which engine and precision, in lanes, checked against its reference images."""

import json
import shutil

import numpy as np
import pytest

from camera_trap_al.core.records import Item
from camera_trap_al.errors import ImageUnreadableError, ModelError
from camera_trap_al.learn.pace import BF16, FLOAT32, Way
from camera_trap_al.learn.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ["blue", "green", "red"]
COLOURS = [(60, 60, 160), (60, 160, 60), (160, 60, 60)]
ITEMS = [Item(row, str(row)) for row in range(24)]


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global BF16_OFF, Embedder, continue_model, distance_off, embed_items, engines, finish_model, read_facts, start_model
    global torch
    import torch

    from camera_trap_al.learn import engines
    from camera_trap_al.learn.embedding import Embedder, embed_items
    from camera_trap_al.learn.engines import BF16_OFF, distance_off
    from camera_trap_al.learn.making import continue_model, finish_model, start_model
    from camera_trap_al.learn.model_folder import read_facts


def noisy(item):
    pixels = np.random.default_rng(item.row).normal(COLOURS[item.row % 3], 40, (256, 256, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def make(folder):
    folder.mkdir()
    settings = ModelSettings("tiny", 16)
    start_model(folder, settings, ITEMS, classes=CLASSES, pretrained=True, weights=None, seed=7, read=noisy)
    finish_model(folder, ITEMS, read=noisy)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make(tmp_path_factory.mktemp("models") / "gen-000001")


def changed_copy(model, folder, **facts):
    shutil.copytree(model, folder)
    told = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (folder / "model.json").write_text(json.dumps({**told, **facts}), encoding="utf-8")
    return folder


def test_a_model_that_embeds_in_bf16_does_so_everywhere_and_nearly_as_in_float32(model, tmp_path):
    folder = changed_copy(model, tmp_path / "bf16", precision=BF16)
    images, wanted = np.load(model / "reference_images.npy"), np.load(model / "reference_embeddings.npy")
    found = Embedder(folder, "cpu").embed(images)
    assert found.dtype == np.float32
    assert 1e-6 < distance_off(found, wanted) < BF16_OFF
    assert np.array_equal(found, Embedder(folder, "cpu", threads=2).embed(images))


def test_a_model_without_the_fact_embeds_in_float32(model, tmp_path):
    told = json.loads((model / "model.json").read_text(encoding="utf-8"))
    del told["precision"]
    shutil.copytree(model, tmp_path / "older")
    (tmp_path / "older" / "model.json").write_text(json.dumps(told), encoding="utf-8")
    assert read_facts(tmp_path / "older").precision == FLOAT32


@pytest.mark.parametrize(
    ("bf16_rate", "error", "chosen"),
    [(20.0, 0.01, BF16), (20.0, 0.2, FLOAT32), (10.5, 0.01, FLOAT32), (20.0, np.nan, FLOAT32)],
)
def test_bf16_is_chosen_where_it_is_faster_and_near_enough(bf16_rate, error, chosen, monkeypatch):
    wanted = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    images = np.zeros((16, 256, 256, 3), np.uint8)
    rates = {Way(1, FLOAT32): 10.0, Way(1, BF16): bf16_rate}
    fastest = max(rates, key=lambda way: rates[way] if rates[way] > 11 else 0) if bf16_rate > 11 else Way(1, FLOAT32)
    monkeypatch.setattr(engines, "measure", lambda ways, compute: (fastest, rates))
    off = wanted + error * np.linalg.norm(wanted - wanted.mean(axis=0), axis=1).mean() / np.sqrt(8)
    answer = engines.choose_precision(lambda i: wanted, lambda i: off, torch.device("cpu"), images, wanted)
    assert answer == chosen


def test_both_precisions_are_tried_with_one_thread(monkeypatch):
    wanted = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    threads = []
    torch.set_num_threads(2)

    def embed(images):
        threads.append(torch.get_num_threads())
        return wanted

    def measure(ways, compute):
        assert [compute(way) for way in ways] == [4, 4]
        return ways[0], dict.fromkeys(ways, 1.0)

    monkeypatch.setattr(engines, "measure", measure)
    images = np.zeros((4, 256, 256, 3), np.uint8)
    engines.choose_precision(embed, embed, torch.device("cpu"), images, wanted)
    assert threads == [1, 1] and torch.get_num_threads() == 2


def test_the_precision_chosen_is_part_of_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "measure", lambda ways, compute: (ways[-1], dict.fromkeys(ways, 1.0)))
    folder = make(tmp_path / "model")
    assert read_facts(folder).precision == BF16
    (tmp_path / "child").mkdir()
    continue_model(tmp_path / "child", folder, classes=CLASSES, seed=3)
    assert read_facts(tmp_path / "child").precision == BF16, "until it is finished"


def test_embeddings_that_are_not_those_of_the_model_are_refused(model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    wanted = np.load(other / "reference_embeddings.npy")
    np.save(other / "reference_embeddings.npy", wanted + 0.01 * np.abs(wanted).max())
    with pytest.raises(ModelError, match="other embeddings than when it was made"):
        Embedder(other, "cpu")
    (other / "reference_embeddings.npy").write_bytes(b"torn")
    with pytest.raises(ModelError, match="reference images"):
        Embedder(other, "cpu")


def test_a_vector_that_is_not_finite_is_an_error_of_the_model(model):
    embedder = Embedder(model, "cpu", batch_size=1)
    compute, calls = embedder._compute, []

    def fails_at_the_fifth(images):
        calls.append(len(images))
        return compute(images) * (np.nan if len(calls) == 5 else 1)

    embedder._compute = fails_at_the_fifth
    with pytest.raises(ModelError, match="no longer numbers"):
        embed_items(embedder, ITEMS, read=noisy)


def test_lanes_change_nothing_and_a_short_memory_makes_their_batches_smaller(model):
    one, _ = embed_items(Embedder(model, "cpu", threads=1), ITEMS, read=noisy)
    embedder, most = Embedder(model, "cpu", threads=3), []
    compute = embedder._compute

    def little_room(images):
        most.append(len(images))
        if len(images) > 2:
            raise MemoryError("bad allocation")
        return compute(images)

    embedder._compute = little_room
    three, _ = embed_items(embedder, ITEMS, read=noisy)
    assert np.allclose(one, three, atol=1e-5)
    assert embedder.lanes == 3 and embedder.next_batch() == 2 and most.count(4) <= 7


def test_an_embedding_does_not_depend_on_its_batch(model):
    together, _ = embed_items(Embedder(model, "cpu"), ITEMS, read=noisy)
    alone, _ = embed_items(Embedder(model, "cpu", batch_size=1), ITEMS[::-1], read=noisy)
    assert np.allclose(together, alone[::-1], atol=1e-5)


def test_images_that_cannot_be_read_are_progress_too(model):
    def half_unreadable(item):
        if item.row >= 12:
            raise ImageUnreadableError("It cannot be read.", code="unreadable")
        return noisy(item)

    told = []
    embed_items(Embedder(model, "cpu"), ITEMS, read=half_unreadable, tick=lambda progress: told.append(progress.done))
    assert len(told) >= 12 + 3 and told == sorted(told) and told[-1] == len(ITEMS)


def test_only_a_few_batches_are_read_ahead_of_the_network(model):
    embedder, made = Embedder(model, "cpu", threads=2), []

    def batches():
        for n in range(40):
            made.append(n)
            yield np.full((1, 256, 256, 3), n, np.uint8)

    embedded = embedder.embed_each(batches())
    next(embedded)
    assert len(made) == 5
    embedded.close()
    assert len(made) == 5


def test_a_gpu_gets_images_from_pinned_memory_while_the_processor_goes_on(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: calls.append("pinned") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, **how: calls.append((device.type, how)) or tensor)
    engines.to_device(np.zeros((2, 3), np.uint8), torch.device("cuda"))
    engines.to_device(np.zeros((2, 3), np.uint8), torch.device("cpu"))
    assert calls == ["pinned", ("cuda", {"non_blocking": True})]


def test_float32_is_whole_on_a_gpu_and_bf16_is_autocast(monkeypatch):
    before = torch.backends.cudnn.allow_tf32
    with engines.computing(torch.device("cuda"), FLOAT32):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
    with engines.computing(torch.device("cpu"), BF16):
        assert torch.is_autocast_enabled("cpu")
    with engines.computing(torch.device("cpu"), FLOAT32):
        assert not torch.is_autocast_enabled("cpu")
