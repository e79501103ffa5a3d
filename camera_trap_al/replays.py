"""Many replays of one season, beside each other in processes of their own; each that ends is one durable file."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from multiprocessing import connection
from pathlib import Path
from typing import Any

from camera_trap_al.engine import usable_cores
from camera_trap_al.errors import CameraTrapAlError
from camera_trap_al.learn.heads import AUTO, heads
from camera_trap_al.replay import Method, Rules, replay, with_all_labels
from camera_trap_al.replay_season import ARRAYS, FACTS, Season
from camera_trap_al.store import atomic
from camera_trap_al.store.json_files import read_object
from camera_trap_al.version import program_version

FORMAT = 1
WAIT_S = 0.2
OnProgress = Callable[[int, int], object]


@dataclass(frozen=True)
class Plan:
    """One replay to make: of a method, with a seed; with `is_full`, what its head knows of all labels at once."""

    method: Method
    seed: int
    rules: Rules
    is_full: bool = False

    @property
    def file(self) -> str:
        """Return the name of the file that it ends in."""
        name = f"all labels {self.method.head}" if self.is_full else self.method.name
        return f"{name} {self.seed:03d}.json"


def plans_for(methods: Iterable[Method], seeds: int, *, recipe_seeds: int, full_seeds: int, rules: Rules) -> list[Plan]:
    """Return the replays of some methods, by seeds, so that a comparison that is ended early has some of all."""
    chosen = list(methods)
    # What is best with all labels is not left to a choice by some of them.
    names = dict.fromkeys(name for m in chosen for name in (heads.names() if m.head == AUTO else [m.head]))
    each = [Method(name, "", name) for name in names]
    full = [Plan(method, seed, rules, True) for seed in range(full_seeds) for method in each]
    return full + [
        Plan(method, seed, rules)
        for seed in range(seeds)
        for method in chosen
        if not method.is_recipe or seed < recipe_seeds
    ]


def make_all(
    season: Path,
    runs: Path,
    plans: Sequence[Plan],
    *,
    processes: int = 0,
    on_progress: OnProgress = lambda done, total: None,
    end_s: float = float("inf"),
) -> None:
    """Make the replays that are not there yet; each is durable as soon as it ends, and a second call makes the others.

    Parameters
    ----------
    season : a folder that `Season.save` wrote
    runs : the folder of the files, made if it is not there
    processes : beside each other; 0 for one a core, 1 for none but this one
    on_progress : called with how many replays there are, and of how many
    end_s : by the clock of `time.monotonic`; later none is begun

    Raises
    ------
    CameraTrapAlError
        a replay failed, or its process ended unexpectedly; those that ended before are kept
    """
    atomic.make_folder(runs)
    mark = mark_of(season)
    todo = [plan for plan in plans if read_points(runs, plan, mark) is None]
    done = len(plans) - len(todo)
    on_progress(done, len(plans))
    n = min(processes or usable_cores(), len(todo))
    if n <= 1:
        for plan in todo:
            if time.monotonic() < end_s:
                make_one(season, runs, plan, mark)
                on_progress(done := done + 1, len(plans))
        return
    # Not by a fork: threads of the libraries would be copied amid what they do, and Windows has none.
    with ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_child) as pool:
        waiting = iter(todo)
        left: set[Future[None]] = set()

        def begin(most: int) -> None:
            for plan in islice(waiting, most if time.monotonic() < end_s else 0):
                left.add(pool.submit(make_one, season, runs, plan, mark))

        try:
            begin(n)
            while left:
                ended, left = wait(left, timeout=WAIT_S, return_when=FIRST_COMPLETED)
                for future in ended:
                    future.result()
                    on_progress(done := done + 1, len(plans))
                begin(len(ended))
        except BrokenProcessPool as error:
            raise CameraTrapAlError(
                "A process of the replays ended unexpectedly: is there too little memory?",
                hint="The same command goes on with those that are missing; --processes 1 needs least.",
            ) from error
        except BaseException:
            # A shutdown lets go of its processes, and each would end its replay first, which takes minutes.
            children = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in children:
                process.terminate()
            raise


def make_one(season: Path, runs: Path, plan: Plan, mark: str) -> None:
    """Make one replay, and its file; durable on return."""
    loaded = _season(season, mark)
    if plan.is_full:
        points = [with_all_labels(loaded, plan.method.head, plan.seed)]
    else:
        points = list(replay(loaded, plan.method, plan.seed, plan.rules))
    method = {"name": plan.method.name, "strategy": plan.method.strategy, "head": plan.method.head}
    facts = {"format": FORMAT, "mark": mark, "method": method, "seed": plan.seed, "all_labels": plan.is_full}
    facts |= {"rules": asdict(plan.rules), "points": points}
    # One line: there may be thousands of these files.
    atomic.replace_bytes(runs / plan.file, (json.dumps(facts, ensure_ascii=False) + "\n").encode("utf-8"))


def read_points(runs: Path, plan: Plan, mark: str) -> list[dict[str, Any]] | None:
    """Return the points of a replay, up to the budget of the plan; None where it is still to be made.

    One that was made with a larger budget counts; one of another season, of another version of the program or with another
    size of a request does not.
    """
    try:
        facts = read_object(runs / plan.file)
        fits = (
            facts["format"] == FORMAT and facts["mark"] == mark and facts["method"]["strategy"] == plan.method.strategy
        )
        wanted, made = asdict(plan.rules), facts["rules"]
        if (
            not fits
            or not plan.is_full
            and ({**made, "budget": 0} != {**wanted, "budget": 0} or made["budget"] < wanted["budget"])
        ):
            return None
        points: list[dict[str, Any]] = facts["points"]
        return [point for point in points if plan.is_full or point["asked"] <= plan.rules.budget]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def mark_of(season: Path) -> str:
    """Return what tells a saved season, and the version of the program, from others."""
    digest = hashlib.sha256(program_version().encode("utf-8"))
    for name in (FACTS, *(f"{array}.npy" for array in ARRAYS)):
        with (season / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]


def _begin_child() -> None:
    """Leave Ctrl-C to the parent, which ends its children; and end where the parent is gone without having done so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


@lru_cache(maxsize=1)
def _season(folder: Path, mark: str) -> Season:
    return Season.load(folder)
