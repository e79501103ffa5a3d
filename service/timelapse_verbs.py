"""The command line of the verbs `template` and `import-timelapse`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from camera_trap_al.errors import EXIT_PROBLEM, UsageError
from camera_trap_al_service.logs import say


def add_timelapse_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs."""
    template = verbs.add_parser("template", help="make a Timelapse template, or say whether the one there can be used")
    template.add_argument("work", type=Path, metavar="WORK")
    template.add_argument(
        "--add-classes", action="store_true", help="add the classes that its menu lacks; close Timelapse first"
    )
    template.set_defaults(verb=_template)
    imported = verbs.add_parser("import-timelapse", help="take the labels of a Timelapse image database")
    imported.add_argument("work", type=Path, metavar="WORK")
    imported.add_argument(
        "database", type=Path, metavar="TimelapseData.ddb", help="it is only read; Timelapse may be open"
    )
    imported.add_argument("--yes", action="store_true", help="take them without asking")
    imported.add_argument(
        "--with-default", action="store_true", help="also take species that are the default of their field"
    )
    imported.set_defaults(verb=_import_timelapse)


def _template(options: argparse.Namespace) -> int:
    from camera_trap_al_service.template import add_classes, check_or_make

    if options.add_classes:
        say(*add_classes(options.work))
        return 0
    lines, is_usable = check_or_make(options.work)
    say(*lines)
    return 0 if is_usable else EXIT_PROBLEM


def _import_timelapse(options: argparse.Namespace) -> int:
    from camera_trap_al.wishes import ask
    from camera_trap_al_service.import_timelapse import labels_in_database

    found = labels_in_database(options.work, options.database, with_default=options.with_default)
    say(*found.lines)
    if not found.is_new:
        say("There is nothing new to take.")
        return EXIT_PROBLEM if found.n_refused else 0
    if not options.yes and not _is_wanted():
        say("Nothing was taken.")
        return 0
    code = 0
    for text in found.texts:
        answer = ask(options.work, "import-labels", say=lambda line: say(line, to=sys.stderr), text=text)
        if answer.is_granted:
            say(answer.text)
        else:
            say(f"camera-trap-al: {answer.text}", to=sys.stderr)
            code = EXIT_PROBLEM
    return code


def _is_wanted() -> bool:
    """Ask on the terminal. Raises `UsageError` where there is none."""
    if not sys.stdin.isatty():
        raise UsageError("Nothing was taken: there is no terminal to ask on.", hint="Add --yes to take these labels.")
    say("Take them? [y/N]", to=sys.stderr)
    try:
        return input().strip().casefold() in ("y", "yes")
    except EOFError:
        return False
