"""python -m benchmarks.labels: replays the labelling of real photographs by every strategy, and prints what each needs.

A thin layer over `camera-trap-al simulate`: the same folders, the same replays. Call it again to go on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.__main__ import make_service_importable
from benchmarks.children import ROOT
from benchmarks.labels.backbones import BACKBONES, options_of
from benchmarks.labels.sets import SETS, PhotographSet, laid_out
from benchmarks.machine import commit, machine

DATA = ROOT.parent / "shared" / "data"
CACHE = Path(__file__).with_name("cache")
RECIPE_SEEDS = 10
HEAD = "logistic"
"""What all strategies are compared with: the quickest. Which head is best is compared with the default strategy."""


def main(arguments: list[str] | None = None) -> int:
    """Replay what is asked for; return 0, or 130 where a person interrupted it."""
    make_service_importable()
    given = _parser().parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    from benchmarks.labels.figures import overall, table

    end = time.monotonic() + given.minutes * 60
    results: dict[str, dict[str, Any]] = {}
    panels: dict[str, Any] = {}
    is_interrupted = False
    try:
        for backbone in given.backbones:
            for name in given.sets:
                results |= _replayed(SETS[name], backbone, given, end, panels)
    except KeyboardInterrupt:
        is_interrupted = True
    said = {"commit": commit(ROOT), "when": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    said |= {"machine": machine(), "overall": overall(results), "sets": results}
    if given.json:
        given.json.write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if given.picture and panels:
        from camera_trap_al.comparison import picture

        given.picture.write_bytes(picture(panels))
    print(table(results))
    print(json.dumps(said["overall"], indent=1))
    return 130 if is_interrupted else 0


def _replayed(
    chosen: PhotographSet, backbone: str, given: argparse.Namespace, end: float, panels: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return what the replays of one set with one network come to, by their name; nothing where it cannot be had.

    With the first network the curves of the default, a uniform draw and the original's recipe are put into `panels`.
    """
    from benchmarks.labels.figures import panel, rare_recall
    from camera_trap_al.comparison import Replays, write_comparison
    from camera_trap_al.replay import Rules, default_method, methods_of
    from camera_trap_al.replays import make_all, mark_of, plans_for
    from camera_trap_al_service.progress import Bars, log_to_terminal
    from camera_trap_al_service.simulate_season import embedded_season, make_or_check_work, settings

    log_to_terminal()
    bars = Bars()
    try:
        folder = laid_out(chosen, given.data, given.folder)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{chosen.name} is left out: {error}", file=sys.stderr)
        return {}
    out = given.folder / f"{chosen.name} {backbone}"
    folders = {"data.unlabelled": str(folder / "pool"), "data.validation": str(folder / "validation")}
    options: dict[str, Any] = options_of(backbone, given.folder)
    options["sequences.gap_s"] = 60.0 if chosen.has_sequences else 0.0
    work = make_or_check_work(out, settings(folders, options, out))
    season, left_out = embedded_season(work, folder / "truth.csv", bars)
    (out / "season").mkdir(exist_ok=True)
    season.save(out / "season")
    rules = Rules(chosen.batch, min(given.budget or chosen.budget, season.n_pool))
    methods = methods_of(given.strategies or usual_methods(backbone), [])
    plans = plans_for(
        methods, given.seeds, recipe_seeds=min(given.seeds, RECIPE_SEEDS), full_seeds=min(given.seeds, 3), rules=rules
    )
    try:
        make_all(out / "season", out / "replays", plans, on_progress=bars.reporter("replaying"), end_s=end)
    finally:
        bars.close()
    replays = Replays.read(out / "replays", plans, mark_of(out / "season"), default_method().name)
    if not replays.full or default_method().name not in replays.points:
        print(f"{out.name} is left out: too little is replayed yet", file=sys.stderr)
        return {}
    facts = {"left_out": left_out, "n_pool": season.n_pool, "n_validation": len(season.labels) - season.n_known}
    said = write_comparison(out, replays, facts)
    said["rare_recall"] = {method.name: rare_recall(season, replays, method.name) for method in replays.methods}
    if backbone == BACKBONES[0]:
        panels[f"{chosen.name}: macro F1"] = panel(replays)
    return {out.name: said}


def usual_methods(backbone: str) -> list[str]:
    """Return what is replayed beside the default, a uniform draw and the original's recipe: all with the first network."""
    from camera_trap_al.replay import default_method
    from camera_trap_al.strategies import strategies

    first = default_method().strategy
    if backbone != BACKBONES[0]:
        return [f"{first}+{HEAD}", f"margin+{HEAD}"]
    return [*(f"{name}+{HEAD}" for name in strategies.names()), f"{first}+semi"]


def _parser() -> argparse.ArgumentParser:
    def names(text: str) -> list[str]:
        return [name.strip() for name in text.split(",") if name.strip()]

    def known(choices: object) -> Any:
        def chosen(text: str) -> list[str]:
            found = names(text)
            if unknown := [name for name in found if name not in choices]:  # type: ignore[operator]
                raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; known are {', '.join(choices)}")  # type: ignore[arg-type]
            return found

        return chosen

    parser = argparse.ArgumentParser("python -m benchmarks.labels", description=__doc__)
    parser.add_argument("--sets", type=known(SETS), default=list(SETS), metavar="A,B")
    parser.add_argument("--backbones", type=known(BACKBONES), default=list(BACKBONES), metavar="A,B")
    parser.add_argument(
        "--strategies", type=names, default=[], metavar="A,B", help="such as margin+logistic, beside the default"
    )
    parser.add_argument(
        "--seeds", type=int, default=20, help=f"of each method; of the original's recipe {RECIPE_SEEDS}"
    )
    parser.add_argument("--budget", type=int, default=0, help="labels in all, where the set's own are too many")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no replay later than this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the curves of the default there, too")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the sets that are in no package")
    parser.add_argument("--folder", type=Path, default=CACHE, help="for photographs, features and replays")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
