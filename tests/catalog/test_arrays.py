"""What is asked of the whole pool: right for every kind of image, and read once for each change of the pool."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scanning import put, scan

from camera_trap_al.catalog import arrays
from camera_trap_al.catalog.catalog import Catalog
from camera_trap_al.catalog.found import POOL, TRAIN, VALIDATION, Found, PoolCounts, Seen
from camera_trap_al.catalog.scan import Scan
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.seeds import key_hash
from camera_trap_al.images import hash_file

N = 400


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    opened = Catalog.open(tmp_path / "catalog.sqlite")
    yield opened
    opened.close()


def random_images(catalog: Catalog, seed: int) -> list[dict[str, Any]]:
    """Fill the catalogue with images of all kinds, some of which had earlier rows, and labels of some and of others."""
    rng, found, row = random.Random(seed), [], 0
    with catalog._write() as connection:
        for n in range(1, N + 1):
            root = rng.choice([POOL, POOL, TRAIN, VALIDATION])
            one: dict[str, Any] = {
                "id": n,
                "root": root,
                "path": f"{n % 7}/{n}.jpg",
                "class": f"c{n % 3}" * (root != POOL),
            }
            one |= {"listed": rng.random() < 0.8, "missing": rng.random() < 0.2, "altered": rng.random() < 0.1}
            one["problem"], one["tries"] = rng.choice(
                [("", 0), ("", 0), ("truncated", 1), ("missing", 1), ("missing", 3)]
            )
            connection.exec_driver_sql(
                "INSERT INTO images (id, root, path, size, mtime_ns, class_name, listed, key_hash, seen, missed, problem,"
                " problem_text, problem_since, tries, missing, altered_since) VALUES (?,?,?,1,1,?,?,?,1,0,?,'','',?,?,?)",
                (
                    *(n, root, one["path"], one["class"], one["listed"], key_hash(one["path"]), one["problem"]),
                    *(one["tries"], one["missing"], "2026" * one["altered"]),
                ),
            )
            for is_live in (False, True) if rng.random() < 0.2 else (True,):
                row += 1
                connection.exec_driver_sql("INSERT INTO items (row, image, live) VALUES (?, ?, ?)", (row, n, is_live))
            one["row"] = row
            found.append(one)
    answers: dict[ImageKey, tuple[str | None, str | None, int]] = {ImageKey("not", "known.jpg"): ("deer", None, 1)}
    for one in found:
        one["species"], one["skip"] = rng.choice(
            [(None, None), (None, None), ("deer", None), ("fox", None), (None, "cannot_tell")]
        )
        if one["root"] == POOL and (one["species"] or one["skip"]):
            answers[ImageKey.of(one["path"])] = (one["species"], one["skip"], 1)
            one["altered"] = False  # somebody looked again
    catalog.project(answers.items(), 1, identity="x")
    return found


def is_good(one: dict[str, Any]) -> bool:
    return not one["missing"] and one["problem"] != "truncated" and one["tries"] < 3


@pytest.mark.parametrize("seed", range(5))
def test_every_image_is_counted_where_it_belongs(catalog: Catalog, seed: int) -> None:
    found = random_images(catalog, seed)
    pool = [one for one in found if one["root"] == POOL and is_good(one)]
    open_ = [one for one in pool if not one["species"] and not one["skip"]]
    assert catalog.counts() == PoolCounts(
        train=sum(one["root"] == TRAIN and is_good(one) for one in found),
        validation=sum(one["root"] == VALIDATION and is_good(one) for one in found),
        labelled=sum(bool(one["species"]) for one in pool),
        skipped=sum(bool(one["skip"]) for one in pool),
        unlabelled=sum(one["listed"] for one in open_),
        not_listed=sum(not one["listed"] for one in open_),
        quarantined=sum(one["problem"] == "truncated" or one["tries"] >= 3 for one in found),
        missing=sum(one["missing"] for one in found),
        altered=sum(one["altered"] for one in found),
    )


@pytest.mark.parametrize("seed", range(5))
def test_rows_to_ask_for_to_train_on_and_to_embed(catalog: Catalog, seed: int) -> None:
    found = random_images(catalog, seed)
    usable = [one for one in found if not one["missing"] and not one["problem"]]
    by_hash = sorted(usable, key=lambda one: (key_hash(one["path"]), one["root"]))
    assert catalog.live_rows(POOL, TRAIN, VALIDATION).tolist() == [one["row"] for one in by_hash]
    assert catalog.live_rows(POOL, in_order=False).tolist() == [one["row"] for one in usable if one["root"] == POOL]
    rows, hashes = catalog.askable()
    wanted = [o for o in usable if o["root"] == POOL and o["listed"] and not o["species"] and not o["skip"]]
    assert rows.tolist() == [one["row"] for one in wanted]
    assert hashes.view("int64").tolist() == [key_hash(one["path"]) for one in wanted]
    trains = [
        (o["row"], o["class"] or o["species"]) for o in by_hash if o["class"] or o["root"] == POOL and o["species"]
    ]
    is_train = {one["row"] for one in found if one["root"] != VALIDATION}
    assert list(zip(*map(list, catalog.labelled()), strict=True)) == [pair for pair in trains if pair[0] in is_train]
    rows, species = catalog.validation()
    assert list(zip(rows.tolist(), species, strict=True)) == [pair for pair in trains if pair[0] not in is_train]


def test_images_are_read_once_for_each_change_of_the_pool_and_answers_for_each_of_theirs(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def counted(kind: Any) -> Any:
        read = kind.read
        return lambda *given: (reads.append(kind.__name__), read(*given))[1]

    for kind in (arrays.Images, arrays.Answers):
        monkeypatch.setattr(kind, "read", counted(kind))
    root = put(tmp_path / "pool", [f"{i}.jpg" for i in range(10)])
    scan(catalog, {POOL: root})
    for _ in range(3):
        assert catalog.counts().unlabelled == len(catalog.askable()[0]) == 10
        assert not len(catalog.labelled()[0]) and len(catalog.live_rows(POOL)) == 10
    assert reads == ["Images", "Answers"]
    catalog.project({ImageKey("", "3.jpg"): ("deer", None, 2)}.items(), 2, identity="x")
    assert (catalog.counts().labelled, len(catalog.askable()[0]), catalog.labelled()[1]) == (1, 9, ["deer"])
    assert reads == ["Images", "Answers", "Answers"]
    scan(catalog, {POOL: root})
    catalog.counts()
    assert reads == ["Images", "Answers", "Answers"]
    put(root, ["new.jpg"])
    scan(catalog, {POOL: root})
    assert catalog.counts().unlabelled == 10 and reads[3:] == ["Images", "Answers"]


def test_whatever_changes_the_images_that_are_shown_changes_the_version_of_the_pool(
    catalog: Catalog, tmp_path: Path
) -> None:
    """What is kept while the version is the same, such as the lines of the selector, is then never that of other images."""
    root = put(tmp_path / "pool", [f"{i % 3}/{i}.jpg" for i in range(20)] + ["0/a.png", "0/=cmd(1).jpg"])
    scan(catalog, {POOL: root})
    steps: tuple[Callable[[], Any], ...] = (
        lambda: scan(catalog, {POOL: put(root, ["new.jpg"])}),
        lambda: scan(catalog, {POOL: root}, tool="any"),
        lambda: scan(catalog, {POOL: root}, allow_formula=True),
        lambda: scan(catalog, {POOL: root}),
        lambda: catalog.give_up([ImageKey("0", "3.jpg")]),
        lambda: scan(catalog, {POOL: root}),
        lambda: [(root / "new.jpg").unlink(), *(scan(catalog, {POOL: root}) for _ in range(3))],
    )
    for i, step in enumerate(steps):
        before = catalog.pool_stamp, list(catalog.pool_keys(listed_only=True))
        step()
        after = catalog.pool_stamp, list(catalog.pool_keys(listed_only=True))
        assert before[0][1] != after[0][1] and before[1] != after[1], i


def test_a_scan_writes_nothing_of_files_that_are_as_they_were(catalog: Catalog, tmp_path: Path) -> None:
    folders = {POOL: put(tmp_path / "pool", [f"{i % 3}/{i}.jpg" for i in range(50)])}
    scan(catalog, folders)
    file = tmp_path / "catalog.sqlite"
    known = file.read_bytes()

    again = Scan(catalog, folders, hash_file=hash_file, tool="timelapse", leave_out=None)
    while not again.run_slice():
        pass
    assert again.n_seen == 50 and file.read_bytes() == known
    again.finish(1.0)
    assert file.read_bytes() != known


def test_answers_that_come_while_a_scan_is_under_way_count_for_the_images_known_before_it(
    catalog: Catalog, tmp_path: Path
) -> None:
    """An image whose content changed has a new row by then, and must not be asked for again although it was answered."""
    scan(catalog, {POOL: put(tmp_path / "pool", ["1/a.jpg", "1/b.jpg"]), TRAIN: put(tmp_path / "train", ["fox/c.jpg"])})
    assert len(catalog.askable()[0]) == 2
    catalog.add_found(POOL, [Found("1/a.jpg", 9, 9)], 2, Seen())
    catalog.add_found(TRAIN, [Found("fox/c.jpg", 9, 9)], 2, Seen())
    catalog.project({ImageKey("1", "a.jpg"): ("deer", None, 2)}.items(), 2, identity="x")
    assert catalog.keys_of(catalog.askable()[0]) == [ImageKey("1", "b.jpg")]
    assert sorted(catalog.labelled()[1]) == ["deer", "fox"] and catalog.counts().labelled == 1


def test_answers_that_come_before_the_first_scan_has_ended_find_no_image_yet(catalog: Catalog) -> None:
    assert catalog.labelled()[1] == []
    catalog.add_found(TRAIN, [Found("fox/c.jpg", 1, 1, "fox")], 1, Seen())
    catalog.project({ImageKey("1", "a.jpg"): ("deer", None, 2)}.items(), 2, identity="x")
    assert catalog.labelled()[1] == [] == catalog.validation()[1]
