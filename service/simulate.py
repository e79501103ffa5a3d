"""The verb `simulate`: a season that is labelled already, labelled again by several methods, without a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from camera_trap_al.comparison import CURVES, PICTURE, SUMMARY, Replays, lines_of, write_comparison
from camera_trap_al.errors import UsageError
from camera_trap_al.replay import Method, Rules, default_method, methods_of
from camera_trap_al.replay_season import Season
from camera_trap_al.replays import Plan, make_all, mark_of, plans_for
from camera_trap_al.store import atomic
from camera_trap_al_service.progress import Bars
from camera_trap_al_service.simulate_season import embedded_season, make_or_check_work, settings

SEASON, RUNS = "season", "replays"
USUAL_REQUESTS = 20
MOST_RECIPE_SEEDS, MOST_FULL_SEEDS = 10, 3


@dataclass(frozen=True)
class Wanted:
    """What is to be compared.

    Parameters
    ----------
    strategies, heads : names; empty for what the program does by default
    seeds : how often each method is replayed
    batch : images in one request; 0 for what the configuration says
    budget : images that may be asked for in all; 0 for twenty requests
    processes : beside each other; 0 for one a core
    """

    strategies: Sequence[str] = ()
    heads: Sequence[str] = ()
    seeds: int = 5
    batch: int = 0
    budget: int = 0
    processes: int = 0

    def check(self) -> list[Method]:
        """Return the methods. Raises `UsageError` for what cannot be compared."""
        if self.seeds < 1:
            raise UsageError(f"--seeds is {self.seeds}.", hint="Choose 1 or more; 5 is usual, 20 for narrow intervals.")
        return methods_of(self.strategies, self.heads)


def simulate(
    folders: Mapping[str, str],
    truth: Path,
    out: Path,
    wanted: Wanted,
    options: Mapping[str, Any],
    *,
    bars: Bars,
    say: Callable[[str], object] = lambda line: None,
) -> list[str]:
    """Compare methods on a season; return lines that say what came of it. A second call goes on where one was ended.

    Parameters
    ----------
    folders : `data.train` ("" for none), `data.unlabelled`, `data.validation`
    truth : what is on the images to label
    out : a new folder, or that of an earlier call with the same images and network
    options : of `config.toml`, by key or alias
    say : takes lines while it works

    Raises
    ------
    CameraTrapAlError
        such as `UsageError` for folders, names or a truth file that cannot be used
    """
    methods, out = wanted.check(), out.expanduser().absolute()
    if not truth.is_file():
        raise UsageError(f"There is no truth file {truth}.", hint="Name a CSV file with the true label of each image.")
    config = settings(folders, options, out)
    work = make_or_check_work(out, config)
    season, left_out = embedded_season(work, truth.absolute(), bars, config)
    season.check()
    for line in describe(season, left_out):
        say(line)
    part, batch = config.query, wanted.batch or config.query.batch
    budget = min(wanted.budget or USUAL_REQUESTS * batch, season.n_pool)
    rules = Rules(batch, budget, part.per_sequence, part.random_share, part.first)
    plans = plans_of(methods, wanted.seeds, rules)
    return compare(out, season, plans, {"left_out": left_out}, bars, processes=wanted.processes)


def describe(season: Season, left_out: Mapping[str, int]) -> list[str]:
    """Return what a season holds, and what was left out of it, as lines."""
    n_validation = len(season.labels) - season.n_known
    lines = [
        f"Season: {season.n_pool} images to label, {season.n_train} to train on, {n_validation} for validation,"
        f" {len(season.classes)} classes."
    ]
    unseen = set(season.names_of(season.validation)) - set(season.names_of(slice(0, season.n_known)))
    if unseen:
        lines.append(f"Only among the validation images, and so never recognised: {', '.join(sorted(unseen))}.")
    return lines + [f"Left out: {n} {what}." for what, n in left_out.items()]


def compare(
    out: Path, season: Season, plans: Sequence[Plan], facts: Mapping[str, Any], bars: Bars, *, processes: int = 0
) -> list[str]:
    """Make the replays of a season, write what they come to into `out`, and return it as lines."""
    atomic.make_folder(out / SEASON)
    season.save(out / SEASON)
    try:
        make_all(out / SEASON, out / RUNS, plans, processes=processes, on_progress=bars.reporter("replaying"))
    finally:
        bars.close()
    replays = Replays.read(out / RUNS, plans, mark_of(out / SEASON), default_method().name)
    shape = {"n_pool": season.n_pool, "n_train": season.n_train, "n_validation": len(season.labels) - season.n_known}
    noted = {"season": {**shape, "classes": list(season.classes), **facts}, "rules": asdict(plans[0].rules)}
    said = write_comparison(out, replays, noted)
    return [*lines_of(said), f"Wrote {out / CURVES}, {PICTURE} and {SUMMARY}."]


def plans_of(methods: Sequence[Method], seeds: int, rules: Rules) -> list[Plan]:
    """Return the replays to make; the reference program's recipe, which takes long, at most ten times."""
    most = {"recipe_seeds": min(seeds, MOST_RECIPE_SEEDS), "full_seeds": min(seeds, MOST_FULL_SEEDS)}
    return plans_for(methods, seeds, rules=rules, **most)
