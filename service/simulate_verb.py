"""The command line of the verb `simulate`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from camera_trap_al_service.arguments import key_values, names, whole
from camera_trap_al_service.logs import say
from camera_trap_al_service.progress import Bars

HELP = "replay the labelling of a season that is labelled: which way would have asked for least?"


def add_simulate(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = verbs.add_parser("simulate", help=HELP)
    verb.add_argument("--train", default="", metavar="DIR", help="labelled images, one folder a class")
    verb.add_argument("--unlabelled", required=True, metavar="DIR", help="images that are labelled again")
    verb.add_argument(
        "--truth", type=Path, required=True, metavar="FILE.csv", help="their labels: path,label or a Timelapse export"
    )
    verb.add_argument("--validation", required=True, metavar="DIR", help="labelled images that never train")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder, or an earlier one to go on")
    verb.add_argument("--strategies", type=names, default=[], metavar="A,B", help="such as margin or margin+mlp")
    verb.add_argument("--heads", type=names, default=[], metavar="A,B", help="classifiers (default: the usual one)")
    verb.add_argument("--seeds", type=whole, default=5, metavar="N", help="replays of each (default 5)")
    verb.add_argument("--batch", type=whole, default=0, metavar="N", help="images in one request (default 100)")
    verb.add_argument("--budget", type=whole, default=0, metavar="N", help="labels in all (default: 20 requests)")
    verb.add_argument("--processes", type=whole, default=0, metavar="N", help="side by side (default: one a core)")
    verb.add_argument(
        "-o", dest="options", action="append", default=[], metavar="KEY=VALUE", help="an option of config.toml"
    )
    verb.set_defaults(verb=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from camera_trap_al_service.simulate import Wanted, simulate

    folders = {f"data.{kind}": getattr(options, kind) for kind in ("train", "unlabelled", "validation")}
    counts = (options.seeds, options.batch, options.budget, options.processes)
    wanted = Wanted(options.strategies, options.heads, *counts)
    # As Ctrl-C does: the processes of the replays are ended too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bars, given = Bars(), key_values(options.options)
    try:
        say(*simulate(folders, options.truth, options.out, wanted, given, bars=bars, say=say))
    except KeyboardInterrupt:
        say("Ended early: the same command goes on from here.", to=sys.stderr)
        raise
    return 0
