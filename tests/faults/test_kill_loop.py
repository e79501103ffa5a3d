"""The kill loop: daemon and worker are killed at any time while label files arrive and others read what is published."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from feeding import Feeder, Reader, Version, end_process
from kit import (
    Daemon,
    all_ended,
    command,
    descendants,
    fast_folder,
    is_running,
    journal,
    json_of,
    labels_csv,
    log_uniform,
    make_season,
    worker_pid,
)
from season import Season

pytestmark = pytest.mark.faults

IMAGES = 450
KILLS = 16
SHORTEST_S, LONGEST_S = 0.01, 5.0
WORKER_WITHIN_S = 4.0
ENDED_AFTER_S = 30.0
OPTIONS = {
    "query__batch": 60,
    "labels__settle_s": 0.3,
    "finetune__period": 300,
    "train__min_labels": 60,
}


@pytest.mark.parametrize("seed, unrequested, least", [(1, "ignore", 260), (2, "accept", 750)])
def test_no_kill_loses_a_label_or_tears_a_file(
    seed: int, unrequested: str, least: int, long: int, tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    with fast_folder(tmp_path) as root:
        kill_and_look(root, seed, unrequested, least, long, figure)


def kill_and_look(
    root: Path, seed: int, unrequested: str, least: int, long: int, figure: Callable[[str, str], None]
) -> None:
    season = make_season(root, IMAGES * long, **OPTIONS, labels__unrequested=unrequested)
    rng = random.Random(seed)
    reader = Reader(season.work, IMAGES * long)
    feeder = Feeder(season.work, reader, seed)
    if unrequested == "accept":
        feeder.unasked = [f"{folder}/{name}".lstrip("/") for folder, name in season.truth]
    orphans: set[tuple[int, str]] = set()
    kills = {"daemon": 0, "worker": 0}
    with all_ended() as daemons:
        reader.start()
        feeder.start()
        try:
            while sum(kills.values()) < KILLS * long:
                daemons.append(Daemon(season.work, NUMPY_LEARNER_PAUSE_S="0.01"))
                orphans |= one_life(daemons[-1], rng, kills)
            ended_at = time.monotonic()
            end_well(season, feeder, least * long, daemons)
            while any(map(is_running, orphans)) and time.monotonic() < ended_at + ENDED_AFTER_S:
                time.sleep(0.1)
        finally:
            feeder.stop.set()
            reader.stop.set()
    assert feeder.problem is None
    assert not [process for process in orphans if is_running(process)], "a killed daemon left processes behind"
    n_labels = sum(len(version.labels) for version in feeder.finished)
    lost = lost_labels(season, feeder.finished, reader.receipts)
    code, said = command(season.work, "check")
    assert code == 0, said
    text = f"{kills['daemon']} kills of the daemon, {kills['worker']} of the worker, {n_labels} labels in"
    text += f" {len(feeder.finished)} files, {len(feeder.bad)} bad files, {reader.reads} reads, {len(lost)} lost,"
    figure(f"kill loop, seed {seed}", f"{text} {len(reader.torn)} torn, 0 failed starts")
    assert not lost, lost[:5]
    assert not reader.torn, reader.torn[:5]
    assert n_labels >= least * long


def one_life(daemon: Daemon, rng: random.Random, kills: dict[str, int]) -> set[tuple[int, str]]:
    """Let a daemon live for a while and kill it, its worker and then it, or both; return what it had started."""
    who = rng.choice(["daemon", "worker", "both"])
    if rng.random() < 0.8:
        daemon.wait_for_lock()
    if who != "daemon":
        let_live(daemon, WORKER_WITHIN_S, lambda: worker_pid(daemon.work))
    let_live(daemon, log_uniform(rng, SHORTEST_S, LONGEST_S if who == "daemon" else LONGEST_S / 5))
    started = descendants(daemon.pid)
    if who != "daemon" and end_worker(daemon.work):
        kills["worker"] += 1
        if who == "worker":
            let_live(daemon, log_uniform(rng, SHORTEST_S, LONGEST_S / 5))
    daemon.check_alive()
    started |= descendants(daemon.pid)
    daemon.kill()
    kills["daemon"] += 1
    return started


def let_live(daemon: Daemon, longest_s: float, until: Callable[[], object] = lambda: False) -> None:
    """Wait, but end the test if the daemon ends by itself."""
    end = time.monotonic() + longest_s
    while not until() and time.monotonic() < end:
        daemon.check_alive()
        time.sleep(min(0.05, max(0.0, end - time.monotonic())))


def end_worker(work: Path) -> bool:
    pid = worker_pid(work)
    return bool(pid) and end_process(pid)


def end_well(season: Season, feeder: Feeder, least: int, daemons: list[Daemon]) -> None:
    """Let a daemon take in what is left, and another one finish all that is due and end by itself."""
    daemons.append(Daemon(season.work))
    daemons[-1].wait_for(lambda: sum(len(v.labels) for v in feeder.finished) >= least or feeder.problem)
    feeder.stop.set()
    feeder.join()
    daemons[-1].wait_for(lambda: not feeder.unanswered())
    daemons[-1].kill()
    daemons.append(Daemon(season.work, "--until", "idle"))
    daemons[-1].end()


def lost_labels(
    season: Season, versions: list[Version], receipts: Mapping[tuple[str, str], dict[str, Any]]
) -> list[str]:
    """Return what a receipt acknowledged and is not there, and what a file said and does not count."""
    lines = {line["seq"]: line for line in journal(season.work) if line["kind"] == "labels"}
    lost = []
    for (name, sha256), receipt in receipts.items():
        line = lines.get(receipt["seq"], {})
        rows = {f"{folder}/{file}".lstrip("/"): species for folder, file, species, _ in line.get("rows", ())}
        if receipt["seq"] is not None and line.get("sha256") != sha256:
            lost.append(f"{name}: journal line {receipt['seq']} is not there")
        lost += [f"{name}: {row}" for row in receipt["accepted"] if rows.get(row["path"]) != row["label"]]
    expected: dict[str, str] = {}
    taken = sorted((receipts[version.name, version.sha256]["seq"], version.labels) for version in versions)
    for _, labels in taken:
        expected |= labels
    now = labels_csv(season.work)
    lost += [f"{path}: {now[path]}, not {species}" for path, species in expected.items() if now[path] != species]
    assert json_of(season.work / "status.json")["labels"] == len(expected)
    return lost
