"""Training with every loss and batch loader, on few, equal or single images; going on with other settings."""

import numpy as np
import pytest

from camera_trap_al.core.records import Item
from camera_trap_al.errors import ImageUnreadableError, ModelError, StopRequested
from camera_trap_al.learn.losses import losses, selection_for, selections
from camera_trap_al.learn.pace import BF16, Way
from camera_trap_al.learn.settings import SAVED, ModelSettings, TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ["blue", "green", "red"]
COLOURS = [(60, 60, 160), (60, 160, 60), (160, 60, 60)]
SINGLE = TrainSettings(1, 0.01, loader="single", batch_size=6)
COMBINATIONS = [
    (loss, name)
    for loss in losses.names()
    for name in selections.names()
    if selection_for(loss, name) or (loss, name) == ("softmax", "random")
]


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Import what needs torch as the first of these tests runs: every test process reads this file, one runs it."""
    global Embedder, finish_model, pace, read_draft, start_model, torch, train, training
    import torch

    from camera_trap_al.learn import pace, training
    from camera_trap_al.learn.embedding import Embedder
    from camera_trap_al.learn.making import finish_model, start_model
    from camera_trap_al.learn.model_folder import read_draft
    from camera_trap_al.learn.training import train


def items(labels):
    return [Item(row, f"{row}/{label}") for row, label in enumerate(labels)]


def noisy(item):
    row, label = (int(part) for part in item.path.split("/"))
    pixels = np.random.default_rng(row).normal(COLOURS[label], 40, (256, 256, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def grey(item):
    return np.full((256, 256, 3), 128, np.uint8)


def start(folder, labels, settings=None, read=noisy):
    start_model(
        folder,
        settings or ModelSettings("tiny", 8),
        items(labels),
        classes=CLASSES,
        pretrained=False,
        weights=None,
        seed=5,
        read=read,
    )
    return weights_of(folder)


def weights_of(folder):
    return {name: p.detach().clone() for name, p in read_draft(folder).network.named_parameters()}


def moved(before, after):
    assert all(torch.isfinite(value).all() for value in after.values())
    return any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("loss", "selection"), COMBINATIONS)
@pytest.mark.parametrize("loader", ["balanced", pytest.param("single", marks=pytest.mark.slow)])
def test_every_loss_trains_though_a_class_has_one_image_and_the_batch_is_larger_than_the_pool(
    loss, selection, loader, tmp_path
):
    labels = [0, 0, 0, 1, 1, 2]
    before = start(tmp_path, labels, ModelSettings("tiny", 8, loss, 100.0, selection))
    settings = TrainSettings(1, 0.01, loader=loader, batch_size=128, balanced_classes=20, balanced_samples=4)
    assert train(tmp_path, settings, items(labels), labels, device="cpu", read=noisy) == {}
    assert moved(before, weights_of(tmp_path))


@pytest.mark.parametrize(("loss", "selection"), COMBINATIONS)
def test_images_that_are_all_equal_leave_finite_weights(loss, selection, tmp_path):
    labels = [0, 0, 0, 1, 1, 2]
    before = start(tmp_path, labels, ModelSettings("tiny", 1, loss, 1.0, selection), read=grey)
    train(tmp_path, SINGLE, items(labels), labels, device="cpu", read=grey)
    moved(before, weights_of(tmp_path))


@pytest.mark.parametrize(
    ("arch", "last"),
    [("tiny", "head"), pytest.param("resnet18", "fc", marks=pytest.mark.slow)],
)
def test_only_the_last_layer_is_trained_where_that_is_wanted(arch, last, tmp_path):
    labels = [0, 0, 0, 1, 1, 2]
    start(tmp_path, labels, ModelSettings(arch, 8, "softmax"))
    before = {name: value.clone() for name, value in read_draft(tmp_path).network.state_dict().items()}
    train(tmp_path, TrainSettings(2, 0.01, layers="last"), items(labels), labels, device="cpu", read=noisy)
    after = read_draft(tmp_path).network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{last}.weight", f"{last}.bias"}, "nor do the running statistics change"


@pytest.mark.parametrize("loss", ["triplet", "siamese"])
def test_one_class_alone_teaches_a_loss_of_triplets_or_pairs_nothing(loss, tmp_path):
    labels = [1] * 6
    before = start(tmp_path, labels, ModelSettings("tiny", 8, loss))
    train(tmp_path, SINGLE, items(labels), labels, device="cpu", read=noisy)
    assert not moved(before, weights_of(tmp_path))


def test_an_image_alone_is_left_out(tmp_path):
    settings = ModelSettings("tiny", 8, "softmax")
    before = start(tmp_path, [0, 1], settings)

    def one_cannot_be_read(item):
        if item.row == 1:
            raise ImageUnreadableError("It cannot be read.", code="not_an_image")
        return noisy(item)

    train(tmp_path, TrainSettings(1, 0.01), items([0, 1]), [0, 1], device="cpu", read=one_cannot_be_read)
    assert not moved(before, weights_of(tmp_path))


def test_memory_for_a_single_image_only_is_an_error_in_words(tmp_path, monkeypatch):
    labels = [0, 0, 1, 1]
    start(tmp_path, labels)
    step = training._Training._step

    def short_of_memory(self, batch, first, stop, generator):
        if stop - first > 1:
            raise RuntimeError("out of memory")
        return step(self, batch, first, stop, generator)

    monkeypatch.setattr(training._Training, "_step", short_of_memory)
    with pytest.raises(
        ModelError, match="Memory is too short to train with even two images at once. End other programs"
    ):
        train(tmp_path, SINGLE, items(labels), labels, device="cpu", read=noisy)


def test_a_training_that_failed_is_begun_anew_with_a_smaller_learning_rate(tmp_path):
    labels, settings = [0, 0, 0, 1, 1, 2], ModelSettings("tiny", 8, margin=100.0)
    start(tmp_path, labels, settings)
    with pytest.raises(ModelError, match="the loss is no longer a number. Choose a smaller learning rate"):
        train(tmp_path, TrainSettings(3, 1e20), items(labels), labels, device="cpu", read=noisy)
    before = start(tmp_path, labels, settings)
    train(tmp_path, TrainSettings(1, 0.01), items(labels), labels, device="cpu", read=noisy)
    assert moved(before, weights_of(tmp_path))


def test_a_model_whose_embeddings_are_no_numbers_is_not_finished(tmp_path):
    labels = [0, 0, 1, 1]
    start(tmp_path, labels)
    train(tmp_path, TrainSettings(1, 1e20), items(labels), labels, device="cpu", read=noisy)
    with pytest.raises(ModelError, match="no longer numbers. Choose a smaller learning rate"):
        finish_model(tmp_path, items(labels), read=noisy)
    assert not list(tmp_path.iterdir())


def test_a_batch_that_must_be_cut_goes_on_in_parts(tmp_path, monkeypatch):
    labels = [0, 0, 0, 1, 1]
    before = start(tmp_path, labels, ModelSettings("tiny", 8, "softmax"))
    sizes, step = [], training._Training._step

    def short_of_memory(self, batch, first, stop, generator):
        if stop - first > 2:
            raise RuntimeError("out of memory")
        sizes.append(stop - first)
        return step(self, batch, first, stop, generator)

    monkeypatch.setattr(training._Training, "_step", short_of_memory)
    train(tmp_path, SINGLE, items(labels), labels, device="cpu", read=noisy)
    assert sizes == [2, 2, 1] and moved(before, weights_of(tmp_path))
    assert read_draft(tmp_path).batch_limit == 2


def test_a_training_that_goes_on_takes_learning_rate_and_decay_from_its_settings(tmp_path):
    labels = [0, 0, 0, 1, 1, 1]
    start(tmp_path, labels)

    def stop_when_saved(progress):
        if progress.phase == SAVED:
            raise StopRequested

    fast = TrainSettings(2, 0.01, 0.1, loader="single", batch_size=6)
    with pytest.raises(StopRequested):
        train(tmp_path, fast, items(labels), labels, device="cpu", read=noisy, tick=stop_when_saved)
    between = weights_of(tmp_path)
    assert read_draft(tmp_path).epoch == 1 and read_draft(tmp_path).moments
    still = TrainSettings(2, 0.0, 0.0, loader="single", batch_size=6)
    train(tmp_path, still, items(labels), labels, device="cpu", read=noisy)
    assert read_draft(tmp_path).epoch == 2
    assert not moved(between, weights_of(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["mnasnet0_5", "squeezenet1_1", "googlenet", "shufflenet_v2_x0_5", "efficientnet_b0"])
def test_a_model_of_another_family_is_trained_finished_and_used(arch, tmp_path):
    labels = [0, 0, 1, 1]
    before = start(tmp_path, labels, ModelSettings(arch, 8, margin=1e4))
    train(tmp_path, SINGLE, items(labels), labels, device="cpu", read=noisy)
    assert moved(before, weights_of(tmp_path))
    finish_model(tmp_path, items(labels), read=noisy)
    images, expected = np.load(tmp_path / "reference_images.npy"), np.load(tmp_path / "reference_embeddings.npy")
    assert np.allclose(Embedder(tmp_path, "cpu").embed(images), expected, atol=1e-4 * max(1, np.abs(expected).max()))


def in_bf16(what, ways, compute, clock=None):
    for way in ways:
        assert compute(way) == training.TRIED_IMAGES
    return ways[-1], dict.fromkeys(ways, 1.0)


def test_a_training_goes_on_in_the_precision_that_it_began_with(tmp_path, monkeypatch):
    labels = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    two_epochs = TrainSettings(2, 0.01, loader="single", batch_size=3)
    once, twice = tmp_path / "once", tmp_path / "twice"
    for folder in (once, twice):
        folder.mkdir()
        start(folder, labels)
    monkeypatch.setattr(pace, "measure", lambda ways, compute, clock: in_bf16("", ways, compute))
    whole = train_to_the_end(once, two_epochs, labels)
    with pytest.raises(StopRequested):
        train(twice, two_epochs, items(labels), labels, device="cpu", read=noisy, tick=stop_once_saved)
    assert read_draft(twice).trains_in == BF16
    monkeypatch.setattr(pace, "measure", lambda ways, compute, clock: (ways[0], {}))
    assert not moved(whole, train_to_the_end(twice, two_epochs, labels))


def train_to_the_end(folder, settings, labels):
    assert train(folder, settings, items(labels), labels, device="cpu", read=noisy) == {}
    return weights_of(folder)


def stop_once_saved(progress):
    if progress.phase == SAVED:
        raise StopRequested


def test_the_number_of_threads_is_measured_unless_it_is_given_and_results_agree(tmp_path, monkeypatch):
    labels, asked = [0, 0, 0, 1, 1, 1], []
    monkeypatch.setattr(training, "thread_counts", lambda: [2, 1])
    monkeypatch.setattr(pace, "measure", lambda ways, compute, clock: asked.append(ways) or (ways[-2], {}))
    results = []
    for threads in (None, 1):
        folder = tmp_path / str(threads)
        folder.mkdir()
        start(folder, labels)
        train(folder, SINGLE, items(labels), labels, device="cpu", read=noisy, threads=threads)
        results.append(weights_of(folder))
    assert asked == [[Way(2), Way(1), Way(2, BF16)], [Way(1), Way(1, BF16)]]
    assert not moved(*results)
