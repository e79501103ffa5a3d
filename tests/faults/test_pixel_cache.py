"""The decoded cache at work: one decode an image, and the same embeddings whatever happens to its files."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from season import Season

from camera_trap_al import reading
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION
from camera_trap_al.config import build
from camera_trap_al.config_file import read_work_config
from camera_trap_al.engine import Decoders
from camera_trap_al.images import hash_file, read_image
from camera_trap_al.jobs import run_job
from camera_trap_al.layout import WorkFolder
from camera_trap_al.loop import Loop, is_idle
from camera_trap_al.reading import open_cache
from camera_trap_al.store import atomic, embeddings, generations, pixels, shards
from camera_trap_al.store.embeddings import Vectors
from camera_trap_al.work import Work, image_folders

pytestmark = pytest.mark.usefixtures("no_torch")
QUIET: dict[str, Any] = {"train.epochs": 0, "finetune.epochs": 1, "train.min_labels": 2}
EMBEDDING = ("EMBED_NEXT", "EMBED")
N_IMAGES = 60 + 6 + 12


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory, no_torch: None) -> Season:
    """Return a season with a model, whose images are all in the cache, and no embedding."""
    from season import make_season

    season = make_season(pictures, tmp_path_factory.mktemp("cached") / "season", ("train", "validation"), QUIET)
    season.turn()
    run(season, "TRAIN")
    return season


@pytest.fixture
def cached(trained: Season, tmp_path: Path) -> Season:
    """Return a copy of it whose images are those of the original."""
    shutil.copytree(trained.work, tmp_path / "s" / "work")
    return Season(tmp_path / "s", trained.truth)


@pytest.fixture(scope="module")
def wanted(trained: Season, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Return the vectors that the model gives without any cache."""
    copy = Season(tmp_path_factory.mktemp("wanted") / "s", trained.truth)
    shutil.copytree(trained.work, copy.work)
    run(copy, *EMBEDDING, **{"cache.max_gb": 0.0})
    assert not list((copy.work / "cache").iterdir())
    return vectors_of(copy)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count how often each image is decoded by jobs."""
    counts: Counter[str] = Counter()
    read = Decoders.read

    def counted(self: Decoders, path: Path | str, **options: Any) -> Any:
        # QUERYING, which names a `stop`, looks whether what it picks can be read.
        counts[str(path)] += "stop" not in options
        return read(self, path, **options)

    monkeypatch.setattr(Decoders, "read", counted)
    yield counts


def run(season: Season, *jobs: str, **options: Any) -> None:
    folder, config = read_work_config(season.work)
    for job in jobs:
        run_job(folder, build({**config.flat(), **options}, "test"), job, lambda progress: None)


def opened(season: Season) -> Catalog:
    folder, config = read_work_config(season.work)
    return Catalog.open(folder.catalog, roots=list(image_folders(config)), read_only=True)


def vectors_of(season: Season) -> dict[str, np.ndarray]:
    """Return the raw vector of each image that has one, by its path, from the current learner."""
    folder, config = read_work_config(season.work)
    catalog = opened(season)
    learner = embeddings.current_learner(folder.embedding, folder.models, str(catalog.fact("catalog_id")))
    assert learner is not None
    vectors = Vectors(learner.folder, learner.manifest["made_by"])
    rows = catalog.live_rows(TRAIN, VALIDATION, POOL)
    rows = rows[vectors.covers(rows)]
    items = catalog.items(rows, {kind: str(path) for kind, path in image_folders(config).items()})
    catalog.close()
    return {item.path: vector for item, vector in zip(items, vectors.read(rows), strict=True)}


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(np.array_equal(found[path], wanted[path]) for path in wanted)


def packs(season: Season) -> list[Path]:
    return sorted((season.work / "cache").glob("pack-*.bin"))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def test_each_image_is_decoded_once_over_training_embedding_fine_tuning_and_embedding_again(
    new_season: Callable[..., Season], decoded: Counter[str]
) -> None:
    season = new_season(**{key.replace(".", "__"): value for key, value in QUIET.items()})
    season.turn()
    decoded.clear()
    run(season, "TRAIN", *EMBEDDING, "FINETUNE", *EMBEDDING)
    assert len(decoded) == N_IMAGES and set(decoded.values()) == {1}
    folder = WorkFolder.at(season.work)
    assert generations.numbers(folder.embedding) == [2, 1]
    for number in (1, 2):
        of = generations.folder_of(folder.embedding, number)
        hashes = [h for name in shards.shard_names(of) for h in shards.read_shard_facts(of, name).hashes.items()]
        assert len(hashes) == N_IMAGES, "what was embedded is told, from the cache too"
        assert set(dict(hashes).values()) <= {hash_file(path) for path in decoded}


@pytest.mark.slow
def test_a_training_without_a_cache_decodes_each_image_once_all_the_same(cached: Season, decoded: Counter[str]) -> None:
    run(cached, *EMBEDDING)
    decoded.clear()
    run(cached, "FINETUNE", **{"cache.max_gb": 0.0, "finetune.epochs": 3})
    labelled = [path for path in decoded if "/train/" in Path(path).as_posix()]
    assert len(labelled) == 6 and max(decoded.values()) <= 2, "once for training, once for the reference images"


def cut(season: Season) -> None:
    os.truncate(packs(season)[0], packs(season)[0].stat().st_size // 2)


def empty(season: Season) -> None:
    packs(season)[0].write_bytes(b"")


def junk(season: Season) -> None:
    packs(season)[0].write_bytes(os.urandom(100_000))


def flip_an_image(season: Season) -> None:
    flip(packs(season)[0], packs(season)[0].stat().st_size - 100)


def flip_the_index(season: Season) -> None:
    flip(packs(season)[0], pixels.HEAD.size + 40)


def flip_the_head(season: Season) -> None:
    flip(packs(season)[0], 12)


def of_another_catalogue(season: Season) -> None:
    rows = np.arange(200)
    shutil.rmtree(season.work / "cache")
    other = pixels.PixelCache(season.work / "cache", "another", px=256, max_bytes=10**9, live=rows)
    for row in rows[:100].tolist():
        other.keep(row, 0, np.zeros((256, 256, 3), np.uint8), "00" * 16)
    other.close()


def of_other_images_with_these_rows(season: Season) -> None:
    folder, config = read_work_config(season.work)
    catalog = opened(season)
    shutil.rmtree(folder.cache)
    other = open_cache(folder, config, catalog)
    for row in catalog.live_rows(TRAIN, VALIDATION, POOL).tolist():
        other.keep(row, 0, np.zeros((256, 256, 3), np.uint8), "00" * 16)
    other.close()
    catalog.close()


def of_another_decoding(season: Season) -> None:
    folder, config = read_work_config(season.work)
    catalog = opened(season)
    shutil.rmtree(folder.cache)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading, "OVERSAMPLING", 99, raising=False)
        other = open_cache(folder, config, catalog)
    folders = {kind: str(path) for kind, path in image_folders(config).items()}
    for item in catalog.items(catalog.live_rows(TRAIN, VALIDATION, POOL), folders):
        stamp = reading.stamp_of(item, folders.values())
        other.keep(item.row, stamp, np.zeros((256, 256, 3), np.uint8), "00" * 16)
    other.close()
    catalog.close()


def of_another_size(season: Season) -> None:
    folder, config = read_work_config(season.work)
    catalog = opened(season)
    other = open_cache(folder, build({**config.flat(), "cache.px": 64}, "test"), catalog)
    for row in catalog.live_rows(TRAIN, VALIDATION, POOL).tolist():
        other.keep(row, 0, np.zeros((64, 64, 3), np.uint8), "00" * 16)
    other.close()
    catalog.close()


def gone(season: Season) -> None:
    shutil.rmtree(season.work / "cache")


HARMS = [cut, empty, junk, flip_an_image, flip_the_index, flip_the_head]
HARMS += [of_another_catalogue, of_another_decoding, of_another_size, gone]
SAID = {cut, empty, junk, flip_an_image, flip_the_index}


@pytest.mark.faults
@pytest.mark.parametrize("harm", [*HARMS, of_other_images_with_these_rows], ids=lambda harm: harm.__name__)
def test_a_harmed_cache_is_made_anew_and_the_vectors_are_those_without_one(
    cached: Season,
    wanted: dict[str, np.ndarray],
    decoded: Counter[str],
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Season], None],
) -> None:
    harm(cached)
    with caplog.at_level(logging.WARNING):
        run(cached, *EMBEDDING)
    assert same(vectors_of(cached), wanted)
    assert sum(decoded.values()) == (1 if harm is flip_an_image else N_IMAGES)
    assert sum("damaged" in record.getMessage() for record in caplog.records) == (harm in SAID)
    decoded.clear()
    atomic.discard_folder(cached.work / "embedding" / "gen-000001")
    run(cached, *EMBEDDING)
    assert not decoded and same(vectors_of(cached), wanted)


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["enospc", "eio", "file", "link"])
def test_a_cache_that_cannot_be_written_is_said_once_and_work_goes_on(
    cached: Season,
    wanted: dict[str, np.ndarray],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    tmp_path: Path,
) -> None:
    shutil.rmtree(cached.work / "cache")
    if mode == "file":
        (cached.work / "cache").write_text("not a folder", encoding="utf-8")
    elif mode == "link":
        (cached.work / "cache").symlink_to(tmp_path / "nowhere")
    else:
        monkeypatch.setattr(atomic.failpoints, "leave_out_this_thread", lambda: None)
        replace = atomic.replace_file

        def failing(path: Path, write: Any) -> None:
            if path.name.startswith("pack-"):
                monkeypatch.setattr(atomic.failpoints, "fail_at", atomic.failpoints.count + 3)
                monkeypatch.setattr(atomic.failpoints, "mode", mode)
            replace(path, write)

        monkeypatch.setattr(atomic, "replace_file", failing)
    with caplog.at_level(logging.WARNING):
        run(cached, *EMBEDDING)
    assert same(vectors_of(cached), wanted)
    assert sum("cannot be kept" in record.getMessage() for record in caplog.records) == 1, "once a job"
    assert not list((cached.work / "cache").glob("*")) or mode in ("file", "link")


@pytest.mark.slow
def test_a_smaller_size_gives_the_same_vectors_from_the_cache_and_without_it(
    new_season: Callable[..., Season], decoded: Counter[str]
) -> None:
    season = new_season(**{**{key.replace(".", "__"): value for key, value in QUIET.items()}, "cache__px": 32})
    season.turn()
    run(season, "TRAIN")
    found = []
    for options, n_decoded in (({}, 0), ({"cache.max_gb": 0.0}, N_IMAGES), ({"cache.px": 256}, N_IMAGES)):
        decoded.clear()
        run(season, *EMBEDDING, **options)
        found.append(vectors_of(season))
        assert sum(decoded.values()) == n_decoded
        atomic.discard_folder(season.work / "embedding" / "gen-000001")
    assert same(found[1], found[0]), "the first time and later"
    assert same(found[2], found[0]), "and a model sees images as it was trained with, whatever the option says now"


@pytest.mark.faults
@pytest.mark.parametrize("longer", [False, True])
def test_an_image_that_changes_while_it_is_cached_is_embedded_as_it_is_now(
    new_season: Callable[..., Season], longer: bool
) -> None:
    season = new_season(**{key.replace(".", "__"): value for key, value in QUIET.items()})
    season.turn()
    run(season, "TRAIN")
    changed, other = season.root / "pool" / "IMG_0000.JPG", season.root / "pool" / "IMG_0002.JPG"
    data, before = other.read_bytes(), changed.stat()
    changed.write_bytes(data + b"longer" if longer else data.ljust(before.st_size, b"\0")[: before.st_size])
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    run(season, *EMBEDDING)
    work = Work.open(season.work)
    Loop(work).run(until=is_idle)
    work.close()
    check_vectors(season, N_IMAGES)


def check_vectors(season: Season, n_images: int) -> None:
    from camera_trap_al.learn.embedding import Embedder

    model = Embedder(generations.folder_of(season.work / "models", max(generations.numbers(season.work / "models"))))
    found = vectors_of(season)
    assert len(found) == n_images
    for path, vector in found.items():
        assert np.allclose(vector, model.embed(read_image(path)[None])[0], atol=1e-2), path


@pytest.mark.faults
def test_an_older_copy_of_the_catalogue_never_gives_an_image_the_vector_of_another(
    new_season: Callable[..., Season], caplog: pytest.LogCaptureFixture
) -> None:
    season = new_season(**{key.replace(".", "__"): value for key, value in QUIET.items()})
    season.turn()
    folder, _ = read_work_config(season.work)
    older = folder.catalog.read_bytes()
    pool = season.root / "pool"
    # Two images of one name and one size, so that the rows that follow tell them apart, and nothing else does.
    added = [pool / site / "IMG_9000.JPG" for site in ("new_a", "new_b")]
    for i, path in enumerate(added):
        path.parent.mkdir()
        path.write_bytes((pool / f"IMG_000{i}.JPG").read_bytes().ljust(100_000, b"\0"))
    season.turn()
    run(season, "TRAIN", *EMBEDDING)
    assert len(vectors_of(season)) == N_IMAGES + 2
    folder.catalog.write_bytes(older)
    added[0].unlink()
    work = Work.open(season.work)
    Loop(work).run(until=is_idle)
    work.close()
    check_vectors(season, N_IMAGES + 1)
    assert "embedded again" in caplog.text
