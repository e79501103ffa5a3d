"""Each of the 28 parameters of `run_active_learning`, under its old name, has an effect that can be seen."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from season import Season

from camera_trap_al.config import aliases, build
from camera_trap_al.config_file import read_work_config
from camera_trap_al.engine import shared
from camera_trap_al.errors import CameraTrapAlError, UsageError
from camera_trap_al.jobs import run_job
from camera_trap_al.layout import WorkFolder
from camera_trap_al.learn.settings import Progress
from camera_trap_al.store import generations
from camera_trap_al.store.embeddings import read_scaler
from camera_trap_al.work import Work, image_folders
from camera_trap_al_service.init import init

pytestmark = pytest.mark.slow
TRAINING = {"train.min_labels": 4, "embedding_train_num_epochs": 2, "embedding_finetuning_num_epochs": 2}
TRAINING |= {"embedding_train_lr": 0.01, "embedding_finetuning_lr": 0.01}


@dataclass
class Learned:
    """What the jobs of one work folder made, and what they told of their progress."""

    folder: WorkFolder
    phases: dict[str, int]

    def model(self, number: int = 1) -> dict[str, Any]:
        path = generations.folder_of(self.folder.models, number) / "model.json"
        return dict(json.loads(path.read_text(encoding="utf-8")))

    def weights(self, number: int = 1) -> dict[str, np.ndarray]:
        from safetensors.numpy import load_file

        folder = generations.folder_of(self.folder.models, number)
        (path,) = (path for path in folder.glob("*.safetensors") if "head" not in path.name)
        return load_file(path)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A work folder whose images are known, 6 of them labelled by their folders, and nothing learned."""
    from season import QUICK

    root = tmp_path_factory.mktemp("parameters")
    shutil.copytree(pictures, root / "s")
    folders = {f"data.{kind}": str(root / "s" / kind) for kind in ("train", "validation")}
    folders["data.unlabelled"] = str(root / "s" / "pool")
    init(root / "s" / "work", folders, QUICK)
    Season(root / "s", {}).turn()
    return root / "s" / "work"


@pytest.fixture(scope="module")
def learn(scanned: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Learned]:
    """Return what runs jobs with options that differ from the usual ones; the same options give the same object."""

    @functools.cache
    def run(jobs: tuple[str, ...] = ("TRAIN",), **options: Any) -> Learned:
        work = tmp_path_factory.mktemp("work") / "w"
        shutil.copytree(scanned, work)
        _, config = read_work_config(scanned)
        config = build({**config.flat(), **TRAINING, **options}, "test")
        phases: dict[str, int] = {}

        def tick(progress: Progress) -> None:
            phases[progress.phase] = max(phases.get(progress.phase, 0), progress.total)

        for job in jobs:
            run_job(WorkFolder.at(work), config, job, tick)
        return Learned(WorkFolder.at(work), phases)

    return run


def differs(a: Learned, b: Learned, number: int = 1) -> bool:
    one, other = a.weights(number), b.weights(number)
    return any(one[name].shape != other[name].shape or not np.allclose(one[name], other[name]) for name in one)


def test_the_parameters_are_all_here() -> None:
    here = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    missing = {name for name in aliases() if not any(name in test for test in here)} - {"embedding_weights"}
    assert missing == set()


def test_train_data_and_unlabelled_data_and_validation_data(scanned: Path) -> None:
    work = Work.open(scanned)
    try:
        counts = work.catalog.counts()
        assert (counts.train, counts.pool, counts.validation) == (6, 60, 12)
        assert set(image_folders(work.config)) == {"train", "pool", "validation"}
    finally:
        work.close()


def test_use_checkpoints(new_season: Any) -> None:
    from camera_trap_al_service.daemon import run

    season = new_season()
    run(season.work, until="idle", handle_signals=False)
    asked = season.asked()
    season.drop("a.csv", dict.fromkeys(asked[:5], "red"))
    models = season.work / "models"
    config = season.work / "config.toml"
    before = generations.identity(models / "gen-000001")
    run(season.work, until="idle", handle_signals=False)
    assert generations.identity(models / "gen-000001") == before, "it goes on with what it has"
    config.write_text(config.read_text(encoding="utf-8").replace("resume = true", "resume = false"), encoding="utf-8")
    first = max(generations.numbers(models))
    run(season.work, until="idle", handle_signals=False)
    assert min(generations.numbers(models)) > first, "learned anew, under a new number"
    assert [label for label in season.labels_csv().values() if label != "unlabelled"] == ["red"] * 5, "no label is lost"
    assert season.asked() == asked, "and what was asked for still is"


def test_num_workers() -> None:
    assert shared(processes=1)._turns._value == 1  # type: ignore[attr-defined]
    assert shared()._turns._value >= 1  # type: ignore[attr-defined]
    for name in ("num_workers", "images.processes"):
        assert build({name: "auto"}, "test") == build({name: 0}, "test")


def test_output_dir_is_the_folder_named_at_init(scanned: Path) -> None:
    assert (scanned / "config.toml").is_file()
    with pytest.raises(UsageError, match="'output_dir' is no option here: name the work folder after `init`"):
        build({"output_dir": "x"}, "test")


@pytest.mark.parametrize("batch", [3, 9])
def test_active_batch(new_season: Any, batch: int) -> None:
    season = new_season(active_batch=batch)
    season.turn()
    assert len(season.asked()) == batch


def test_active_learning_strategy_and_validate_model(new_season: Any) -> None:
    margin, uniform = new_season(), new_season(active_learning_strategy="uniform", validate_model=False)
    assert margin.run()[0] == uniform.run()[0], "before there is a classifier, both draw at random"
    for season in (margin, uniform):
        season.person()()
    assert margin.run()[1] != uniform.run()[1]
    assert list((margin.work / "test_results").glob("*/metrics.json"))
    assert not list((uniform.work / "test_results").glob("*/metrics.json"))


def test_use_pretrained(learn: Any, scanned: Path, tmp_path: Path) -> None:
    # `tiny` has no weights to be had, so that asking for some says what can be done.
    assert learn(embedding_train_num_epochs=0, use_pretrained=False).model()["settings"]["arch"] == "tiny"
    with pytest.raises(CameraTrapAlError, match="(?i)weights"):
        learn(
            embedding_train_num_epochs=0, embedding_arch="mobilenet_v3_small", embedding_weights=str(tmp_path / "none")
        )


def test_embedding_arch(learn: Any) -> None:
    other = learn(embedding_arch="squeezenet1_1", use_pretrained=False, embedding_train_num_epochs=0)
    assert other.model()["settings"]["arch"] == "squeezenet1_1"
    assert set(other.weights()) != set(learn().weights())


def test_embedding_loss_type(learn: Any) -> None:
    assert differs(learn(), learn(embedding_loss_type="softmax"))
    assert differs(learn(), learn(embedding_loss_type="siamese"))


def test_embedding_loss_margin(learn: Any) -> None:
    assert differs(learn(), learn(embedding_loss_margin=0.001))


@pytest.mark.parametrize("name", ["hardest", "semi_hard"])
def test_embedding_loss_data_strategy(learn: Any, name: str) -> None:
    far = {"embedding_loss_margin": 100.0}  # every image of another class is a negative
    assert differs(learn(**far), learn(embedding_loss_data_strategy=name, **far))


def test_feat_dim(learn: Any) -> None:
    assert learn(feat_dim=3).model()["settings"]["feat_dim"] == 3


def test_normalize_embedding(learn: Any) -> None:
    jobs = ("TRAIN", "EMBED_NEXT")
    scaled, raw = learn(jobs), learn(jobs, normalize_embedding=False)
    folders = [generations.folder_of(learned.folder.embedding, 1) for learned in (scaled, raw)]
    assert read_scaler(folders[0])[0].any() and not read_scaler(folders[1])[0].any()


def test_extract_embedding_batch_size(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from camera_trap_al.learn.embedding import Embedder

    sizes: list[int] = []
    init_ = Embedder.__init__

    def noting(self: Embedder, folder: Path, batch_size: int = 0, **more: Any) -> None:
        sizes.append(batch_size)
        init_(self, folder, batch_size=batch_size, **more)

    monkeypatch.setattr(Embedder, "__init__", noting)
    learn(("TRAIN", "EMBED_NEXT"), extract_embedding_batch_size=7)
    assert sizes == [7]


def test_embedding_train_num_epochs(learn: Any) -> None:
    two, four = learn(), learn(embedding_train_num_epochs=4)
    assert four.phases["training"] == 2 * two.phases["training"]


def test_embedding_train_lr(learn: Any) -> None:
    still = learn(embedding_train_lr=0.0, embedding_train_weight_decay=0.0)
    assert differs(learn(), still)
    assert not differs(
        still, learn(embedding_train_lr=0.0, embedding_train_weight_decay=0.0, feat_dim=8, active_batch=3)
    )


def test_embedding_train_weight_decay(learn: Any) -> None:
    assert differs(learn(), learn(embedding_train_weight_decay=5.0))


def test_embedding_train_loader_type(learn: Any) -> None:
    assert differs(learn(), learn(embedding_train_loader_type="balanced"))


def test_balanced_loader_num_classes_and_balanced_loader_num_samples(learn: Any) -> None:
    usual = learn(embedding_train_loader_type="balanced", balanced_loader_num_classes=3, balanced_loader_num_samples=2)
    fewer = learn(embedding_train_loader_type="balanced", balanced_loader_num_classes=2, balanced_loader_num_samples=2)
    more = learn(embedding_train_loader_type="balanced", balanced_loader_num_classes=3, balanced_loader_num_samples=5)
    assert differs(usual, fewer) and differs(usual, more)


FINETUNED = ("TRAIN", "EMBED_NEXT", "FINETUNE")


def test_embedding_finetuning_num_epochs(learn: Any) -> None:
    two, six = learn(FINETUNED), learn(FINETUNED, embedding_finetuning_num_epochs=6)
    assert six.phases["training"] == 3 * two.phases["training"]


def test_embedding_finetuning_lr(learn: Any) -> None:
    assert differs(learn(FINETUNED), learn(FINETUNED, embedding_finetuning_lr=0.0), number=2)
    assert not differs(learn(FINETUNED), learn(FINETUNED, embedding_finetuning_lr=0.0), number=1)


def test_embedding_finetuning_weight_decay(learn: Any) -> None:
    assert differs(learn(FINETUNED), learn(FINETUNED, embedding_finetuning_weight_decay=5.0), number=2)


def test_embedding_finetuning_loader_type(learn: Any) -> None:
    assert differs(learn(FINETUNED), learn(FINETUNED, embedding_finetuning_loader_type="single"), number=2)


@pytest.mark.parametrize(("period", "models"), [(9, 2), (10, 1)])
def test_embedding_finetuning_period(new_season: Any, period: int, models: int) -> None:
    # The first model comes untrained, from 6 labels; it would be trained at 100.
    season = new_season(embedding_finetuning_period=period, train__min_labels=6, embedding_train_num_epochs=1)
    season.run()
    season.person()()
    season.run()
    assert len(generations.numbers(season.work / "models")) == models


def test_finetune_layers(learn: Any) -> None:
    both = learn(FINETUNED), learn(FINETUNED, **{"finetune.layers": "last"})
    assert not differs(*both, number=1) and differs(*both, number=2)
    before, after = both[1].weights(1), both[1].weights(2)
    changed = {name.partition(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"head"}, "what comes before the last layer stays as it is"
