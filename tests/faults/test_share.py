"""The whole loop on a share that stumbles: labels are taken meanwhile, nothing is given up, and it goes on by itself."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from typing import Any

import numpy_learner
import pytest
from fake_listing import EIO, ESTALE, FakeListing
from fake_share import FAT_STEP_NS, FakeShare
from season import Season

from camera_trap_al import loop as loop_module
from camera_trap_al.core.steps import Facts, Step
from camera_trap_al.exporters import exporters
from camera_trap_al.loop import Loop, is_idle, is_waiting
from camera_trap_al.store.journal import read_journal
from camera_trap_al.work import Work

pytestmark = pytest.mark.faults
Figure = Callable[[str, str], None]
TURNS = 600


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No torch, no export, no figures, and rests of hundredths of seconds."""
    undo = numpy_learner.install()
    monkeypatch.setattr(type(exporters["onnx"]), "write", lambda self, source, folder: None)
    monkeypatch.setattr(loop_module, "FIRST_REST_S", 0.005)
    monkeypatch.setattr(loop_module, "LONGEST_REST_S", 0.02)
    monkeypatch.setattr(loop_module, "REST_PER_FILE_S", 0.02)
    yield
    undo()


def turn(loop: Loop, until: Callable[[Facts, Step], bool], turns: int = TURNS) -> None:
    """Take turns until something is so; fail if that takes too many."""
    for _ in range(turns):
        facts, step = loop.look()
        if until(facts, step):
            return
        loop.take(facts, step)
    raise AssertionError(f"not reached in {turns} turns: {step} {loop.last_problem}")


def idle(loop: Loop) -> Callable[[Facts, Step], bool]:
    return lambda facts, step: is_idle(facts, step) and not loop.rests.failures


def has_labels(work: Work, n: int) -> Callable[[Facts, Step], bool]:
    return lambda facts, step: len(work.history.labels) == n


def scan_now(work: Work) -> None:
    work.scan_ended_s = float("-inf")


def full_scan(loop: Loop) -> None:
    """Let one scan begin and end, whatever it finds."""
    before = loop.work.catalog.fact("scan")
    scan_now(loop.work)
    turn(loop, lambda facts, step: loop.work.catalog.fact("scan") > before)


def given_up(work: Work) -> int:
    counts = work.catalog.counts()
    return counts.missing + counts.quarantined


def acknowledged(season: Season) -> dict[tuple[str, str], str]:
    found = read_journal(season.work / "data" / "journal.jsonl")[0]
    return {(r[0], r[1]): r[2] for line in found if line["kind"] == "labels" for r in line["rows"]}


def shards(season: Season) -> list[str]:
    return sorted(p.name for p in (season.work / "embedding").rglob("*.npy"))


def season_of(new_season: Callable[..., Season], **options: Any) -> Season:
    return new_season(daemon__poll_s=0.05, daemon__rescan_s=1000.0, folders=("train",), **options)


def answer(season: Season, work: Work, name: str) -> None:
    """Put a label file into the bin for what is awaited now, and nothing else."""
    with (season.work / "new_labels_bin" / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["File", "RelativePath", "Species"])
        writer.writerows([key.file, key.relative_path, season.truth[key]] for key in work.history.awaited())


def test_rounds_go_on_over_a_share_that_lies(
    new_season: Callable[..., Season], monkeypatch: pytest.MonkeyPatch, figure: Figure, long: int
) -> None:
    season = season_of(new_season)
    label, n_labels, n_away = season.person(), 0, 0
    work = Work.open(season.work)
    share = FakeShare(season.root / "pool", season.work, monkeypatch, seed=20)
    share.violations, share.steps_ns, share.slow_s = 0.3, FAT_STEP_NS, 0.002
    loop = Loop(work)
    try:
        for _ in range(2 * long):
            turn(loop, lambda facts, step: is_waiting(facts, step) and facts.placed == facts.open > 0)
            n_labels += label()
            for error, left_out in ((EIO, 0.0), (ESTALE, 0.0), (0, 1.0), (0, 0.5)):
                share.error, share.left_out = error, left_out
                scan_now(work)
                turn(loop, has_labels(work, n_labels))
                for _ in range(6):
                    loop.take(*loop.look())
                assert given_up(work) == 0
                n_away += 1
            share.error, share.left_out = 0, 0.0
            full_scan(loop)
        turn(loop, idle(loop))
        before, rows = shards(season), len(work.catalog.live_rows("pool"))
        # The share comes back with exact times, then with all of them an hour later.
        for share.steps_ns, share.shift_ns in ((1, 0), (1, 3600 * 10**9)):
            full_scan(loop)
            turn(loop, idle(loop))
        assert shards(season) == before, "something was embedded again"
        assert given_up(work) == 0 and len(work.catalog.live_rows("pool")) == rows == 60
        truth = {key: season.truth[key] for key in acknowledged(season)}
        assert acknowledged(season) == truth and len(truth) == n_labels >= 18
        assert len(list((season.work / "new_labels_bin").glob("*.receipt.json"))) == 2 * long
        assert not list(season.work.rglob(".*.partial"))
        assert share.n_violations > 10
    finally:
        work.close()
    figure(
        "fake share",
        f"{share.n_violations} of {share.n_replaced} replacements refused, {share.n_listed} listings, the pool away"
        f" {n_away} times, {n_labels} labels taken, 0 lost, 0 images given up, 0 embedded again (seed 20)",
    )


def test_the_image_root_may_go_away_and_come_back_before_each_step(
    new_season: Callable[..., Season], figure: Figure
) -> None:
    season = season_of(new_season)
    pool, aside = season.root / "pool", season.root / "unplugged"
    label, n_labels = season.person(), 0
    work = Work.open(season.work)
    loop = Loop(work)
    met: dict[str, int] = {}
    offline = 0

    def take(facts: Facts, step: Step) -> None:
        nonlocal offline
        name = step.subject if step.name == "PREPARING" else step.name
        if met.setdefault(name, 0) < 2:
            met[name] += 1
            pool.rename(aside)
            # An empty folder instead of a missing one; before the first scan that is a pool without images.
            is_mount_point = met[name] == 2 and facts.scanned
            if is_mount_point:
                pool.mkdir()
            try:
                loop.take(facts, step)
                offline += not loop.look()[0].online
                assert given_up(work) == 0, name
            finally:
                if is_mount_point:
                    pool.rmdir()
                aside.rename(pool)
        else:
            loop.take(facts, step)

    try:
        for _ in range(3):
            for _ in range(TURNS):
                facts, step = loop.look()
                if is_waiting(facts, step) and facts.placed == facts.open > 0 and not facts.job:
                    break
                take(facts, step)
            else:
                raise AssertionError(f"{step} {loop.last_problem} {facts} {met}")
            scan_now(work)
            n_labels += label()
            turn_until_taken(loop, take, n_labels)
        turn(loop, idle(loop))
        assert len(acknowledged(season)) == n_labels == 27 and given_up(work) == 0
        assert {"CATALOGUING", "TAKING_LABELS", "QUERYING", "PUBLISHING", "FITTING", "TRAIN", "EMBED_NEXT"} <= set(met)
        assert len(work.catalog.live_rows("pool")) == 60
    finally:
        work.close()
    figure("image root away", f"at {len(met)} steps and jobs, {offline} looks found it offline, 0 images given up")


def turn_until_taken(loop: Loop, take: Callable[[Facts, Step], None], n_labels: int) -> None:
    for _ in range(TURNS):
        if len(loop.work.history.labels) == n_labels:
            return
        take(*loop.look())
    raise AssertionError(f"the labels were not taken: {loop.last_problem}")


def test_without_any_event_a_label_file_is_found_by_looking(new_season: Callable[..., Season]) -> None:
    season = season_of(new_season)
    work = Work.open(season.work)
    loop = Loop(work)
    label = season.person()
    try:
        loop.run(until=lambda facts, step: is_waiting(facts, step) and facts.open > 0)
        n = label()
        loop.run(until=has_labels(work, n))
        assert not loop.wake.is_set()
    finally:
        work.close()


def test_images_that_come_back_are_asked_for_again(
    new_season: Callable[..., Season], monkeypatch: pytest.MonkeyPatch
) -> None:
    from camera_trap_al.catalog import sightings

    monkeypatch.setattr(sightings, "MISSING_AFTER_S", 0.0)
    season = season_of(new_season)
    work = Work.open(season.work)
    loop = Loop(work)
    try:
        turn(loop, idle(loop))
        gone = sorted(work.history.requests[0].keys)[:2]
        contents = {key: (season.root / "pool" / key.path).read_bytes() for key in gone}
        for key in gone:
            (season.root / "pool" / key.path).unlink()
        for _ in range(3):
            full_scan(loop)
        turn(loop, idle(loop))
        assert {key: work.history.skips[key][0] for key in gone} == dict.fromkeys(gone, "missing")
        answer(season, work, "1.csv")
        turn(loop, idle(loop))
        for key in gone:
            (season.root / "pool" / key.path).write_bytes(contents[key])
        full_scan(loop)
        for n in range(2, 9):
            answer(season, work, f"{n}.csv")
            turn(loop, idle(loop))
        asked = [key for request in work.history.requests[1:] for key in request.keys if key in gone]
        assert sorted(asked) == gone and all(key in work.history.labels for key in gone)
    finally:
        work.close()


def test_a_listing_that_shows_less_than_a_fifth_less_makes_nothing_missing_before_its_time(
    new_season: Callable[..., Season], monkeypatch: pytest.MonkeyPatch
) -> None:
    season = season_of(new_season)
    work = Work.open(season.work)
    loop = Loop(work)
    try:
        turn(loop, idle(loop))
        listing = FakeListing(season.root / "pool", monkeypatch)
        listing.left_out = 0.1
        for _ in range(6):
            full_scan(loop)
        assert given_up(work) == 0, "six scans within seconds"
    finally:
        work.close()
