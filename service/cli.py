"""The command `camera-trap-al`: few verbs; results on standard output, talk on standard error."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from camera_trap_al.errors import EXIT_PROBLEM, CameraTrapAlError, UsageError
from camera_trap_al.store import atomic
from camera_trap_al.version import program_version
from camera_trap_al_service.arguments import key_values, whole
from camera_trap_al_service.logs import say, say_text
from camera_trap_al_service.predict_verb import add_predict
from camera_trap_al_service.progress import Bars, log_to_terminal
from camera_trap_al_service.simulate_verb import add_simulate
from camera_trap_al_service.timelapse_verbs import add_timelapse_verbs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    options = _parser().parse_args(arguments)
    # Pillow warns of metadata that no pixel depends on; what cannot be decoded is listed in words of ours.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    log_to_terminal(logging.DEBUG if options.verbose else logging.INFO)
    atomic.failpoints.arm_from(os.environ, "daemon")
    try:
        code: int = options.verb(options)
        return code
    except CameraTrapAlError as error:
        say(f"camera-trap-al: {error}", to=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except _catalogue_error() as error:
        text = f"The catalogue cannot be read: {error.__cause__ or error}."
        say(f"camera-trap-al: {text} `run` mends it: it may be damaged, or of an older version.", to=sys.stderr)
        return EXIT_PROBLEM
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PROBLEM
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        say(
            f"camera-trap-al: the system refused{where}: {error.strerror or error}. Is the disk full, or may you not write"
            " there? Nothing that was acknowledged is lost.",
            to=sys.stderr,
        )
        logging.getLogger(__name__).debug("refused", exc_info=True)
        return EXIT_PROBLEM


def _catalogue_error() -> type[Exception]:
    # Looked up when something failed: importing it takes as long as all else that comes before a signal is heeded.
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="camera-trap-al",
        description="Asks for the few labels that teach it your camera-trap photographs, through Timelapse.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show program's version number and exit")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell more")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    _add_init(verbs)
    _add_run(verbs)
    _add_readers(verbs)
    _add_audit(verbs)
    _add_wishes(verbs)
    _add_results(verbs)
    add_timelapse_verbs(verbs)
    add_simulate(verbs)
    demo = verbs.add_parser("demo", help="run the whole main job on pictures that come with the program")
    demo.add_argument("--seed", type=whole, default=1, metavar="N", help="seed of all random choices (default 1)")
    demo.add_argument("--dir", type=Path, default=None, metavar="DIR", help="new folder to work in")
    demo.set_defaults(verb=_demo)
    return parser


class _Version(argparse.Action):
    """Says the version; looking it up takes longer than all else that comes before a verb."""

    def __call__(self, parser: argparse.ArgumentParser, *_given: object) -> None:
        say(f"camera-trap-al {program_version()}")
        parser.exit()


def _add_init(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = verbs.add_parser("init", help="make a work folder and a Timelapse template")
    init.add_argument("work", type=Path, metavar="WORK", help="folder to make")
    init.add_argument("--train", default="", metavar="DIR", help="labelled images, one folder a class")
    init.add_argument("--unlabelled", default="", metavar="DIR", help="images to label (the image root of Timelapse)")
    init.add_argument("--validation", default="", metavar="DIR", help="labelled images that never train")
    init.add_argument(
        "--detections", type=Path, default=None, metavar="MD.json", help="what MegaDetector saw in the images to label"
    )
    init.add_argument(
        "-o", dest="options", action="append", default=[], metavar="KEY=VALUE", help="an option of config.toml"
    )
    init.set_defaults(verb=_init)


def _add_run(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = verbs.add_parser("run", help="train, ask for labels, take them, ask again, until stopped")
    run.add_argument("work", type=Path, metavar="WORK")
    run.add_argument("--max-rounds", type=whole, default=None, metavar="N", help="end after N requests were answered")
    run.add_argument(
        "--until",
        choices=("waiting", "idle"),
        default=None,
        help="end when labels are waited for, or when nothing at all is left to do until then",
    )
    run.set_defaults(verb=_run)


def _add_readers(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    status = verbs.add_parser("status", help="say what the program does and waits for")
    status.add_argument("work", type=Path, metavar="WORK")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(verb=_status)
    doctor = verbs.add_parser(
        "doctor", help="look for what is wrong with this computer or a work folder, and say what to do"
    )
    doctor.add_argument("work", type=Path, nargs="?", default=None, metavar="WORK")
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.set_defaults(verb=_doctor)
    check = verbs.add_parser("check", help="verify a work folder, or say what would be taken from a label file")
    check.add_argument("work", type=Path, metavar="WORK")
    check.add_argument("file", type=Path, nargs="?", metavar="FILE.csv")
    check.add_argument(
        "--salvage", type=Path, default=None, metavar="FILE", help="copy the lines of a damaged journal that are good"
    )
    check.set_defaults(verb=_check)


def _add_audit(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    audit = verbs.add_parser("audit", help="list the labels that look wrong, and write them as a selector")
    audit.add_argument("work", type=Path, metavar="WORK")
    audit.add_argument("--top", type=whole, default=50, metavar="N", help="list the N worst (default 50)")
    audit.set_defaults(verb=_audit)
    report = verbs.add_parser("report", help="write a page that shows how the work stands (report.html)")
    report.add_argument("work", type=Path, metavar="WORK")
    report.set_defaults(verb=_report)


def _add_wishes(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs that change a work folder; each works beside the running daemon and without it."""
    for name, text in {
        "next": "close the open round with the labels that are there",
        "rescan": "look for new images now, and for those that are gone",
        "rebuild-catalog": "make the catalogue anew from the journal and the images",
    }.items():
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("work", type=Path, metavar="WORK")
        verb.set_defaults(verb=_wish, wish=name)
        if name == "rescan":
            verb.add_argument("--gone", action="store_true", help="images that are not there were removed on purpose")
    labels = verbs.add_parser("labels", help="list the label files that were taken, or what was said of one image")
    labels.add_argument("work", type=Path, metavar="WORK")
    labels.add_argument("image", nargs="?", metavar="IMAGE", help="path from the folder of images on")
    labels.add_argument(
        "--undo", type=whole, default=None, metavar="SEQ", help="withdraw what the file with this number brought"
    )
    labels.set_defaults(verb=_labels)
    imported = verbs.add_parser(
        "import-labels", help="take the labels of another work folder, or of the original program"
    )
    imported.add_argument("work", type=Path, metavar="WORK")
    imported.add_argument("file", type=Path, metavar="LABELS.csv", help="its data/labels.csv")
    imported.add_argument(
        "--from",
        dest="base",
        default="",
        metavar="DIR",
        help="the folder that its paths begin with (default: the images)",
    )
    imported.set_defaults(verb=_import_labels)
    detections = verbs.add_parser("detections", help="use what MegaDetector saw: look at each animal by itself")
    detections.add_argument("work", type=Path, metavar="WORK")
    given = detections.add_mutually_exclusive_group(required=True)
    given.add_argument("file", type=Path, nargs="?", metavar="MD.json", help="takes the place of any given before")
    given.add_argument("--none", action="store_true", help="forget what was given: use whole images again")
    detections.add_argument(
        "--from",
        dest="base",
        type=Path,
        default=None,
        metavar="DIR",
        help="the folder that its paths begin in (default: the images)",
    )
    detections.set_defaults(verb=_detections)
    relocate = verbs.add_parser("relocate", help="name the new places of folders that moved")
    relocate.add_argument("work", type=Path, metavar="WORK")
    for kind in ("train", "unlabelled", "validation"):
        relocate.add_argument(f"--{kind}", default="", metavar="DIR", help="where these images are now")
    relocate.set_defaults(verb=_relocate)


def _add_results(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = verbs.add_parser("export", help="write the newest classifier for other programs")
    export.add_argument("work", type=Path, metavar="WORK")
    place = export.add_mutually_exclusive_group()
    place.add_argument("--to", type=Path, default=None, metavar="DIR", help="folder to write to (default WORK/export)")
    place.add_argument("--zip", type=Path, default=None, metavar="FILE.zip", help="one file, to be given to others")
    export.set_defaults(verb=_export)
    evaluate = verbs.add_parser("evaluate", help="measure the newest export on a labelled folder")
    evaluate.add_argument("work", type=Path, metavar="WORK")
    evaluate.add_argument("images", type=Path, metavar="DIR", help="labelled images, one folder a class")
    evaluate.add_argument("--json", action="store_true", help="as JSON")
    evaluate.set_defaults(verb=_evaluate)
    add_predict(verbs)


def _init(options: argparse.Namespace) -> int:
    from camera_trap_al_service.init import init

    given = key_values(options.options)
    folders = {
        "data.train": options.train,
        "data.unlabelled": options.unlabelled,
        "data.validation": options.validation,
    }
    bars = Bars()
    lines = init(options.work, folders, given, on_progress=bars.show, detections=options.detections)
    bars.close()
    say(*lines, f"Next: camera-trap-al run {_quoted(options.work)}")
    return 0


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)


def _run(options: argparse.Namespace) -> int:
    from camera_trap_al_service.stopping import Stopping

    stopping = Stopping()
    stopping.listen()
    from camera_trap_al_service.daemon import run

    rounds = float("inf") if options.max_rounds is None else options.max_rounds
    run(options.work, max_rounds=rounds, until=options.until or "stopped", stopping=stopping)
    return 0


def _status(options: argparse.Namespace) -> int:
    from camera_trap_al_service.reading import read_status, status_text

    status = read_status(options.work)
    say_text(json.dumps(status, ensure_ascii=False, indent=1) if options.json else status_text(status))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from camera_trap_al_service.doctor import doctor

    bars = Bars()

    def tell(line: str) -> None:
        bars.close()
        say(line)

    n_problems = doctor(options.work, say=tell, on_progress=bars.show, as_json=options.json)
    bars.close()
    return EXIT_PROBLEM if n_problems else 0


def _audit(options: argparse.Namespace) -> int:
    from camera_trap_al_service.audit import audit

    say(*audit(options.work, options.top))
    return 0


def _report(options: argparse.Namespace) -> int:
    from camera_trap_al_service.report import report

    say(report(options.work))
    return 0


def _wish(options: argparse.Namespace, **arguments: object) -> int:
    from camera_trap_al.wishes import ask

    if getattr(options, "gone", False):
        arguments["gone"] = True
    answer = ask(options.work, options.wish, say=lambda text: say(text, to=sys.stderr), **arguments)
    if answer.is_granted:
        say(answer.text)
        return 0
    say(f"camera-trap-al: {answer.text}", to=sys.stderr)
    return EXIT_PROBLEM


def _labels(options: argparse.Namespace) -> int:
    from camera_trap_al_service.labels import image_history, label_files

    if options.undo is not None:
        if options.image is not None:
            raise UsageError("--undo withdraws a whole label file, so it takes no image.")
        options.wish = "undo"
        return _wish(options, seq=options.undo)
    say(*(label_files(options.work) if options.image is None else image_history(options.work, options.image)))
    return 0


def _import_labels(options: argparse.Namespace) -> int:
    from camera_trap_al_service.labels import labels_to_import

    lines, texts = labels_to_import(options.work, options.file, options.base)
    say(*lines)
    options.wish = "import-labels"
    return max((_wish(options, text=text) for text in texts), default=0)


def _detections(options: argparse.Namespace) -> int:
    from camera_trap_al_service.detections import drop_detections, keep_detections

    if options.none:
        say(*drop_detections(options.work))
    else:
        bars = Bars()
        lines = keep_detections(options.work, options.file, options.base, bars.show)
        bars.close()
        say(*lines)
    options.wish = "detections"
    return _wish(options)


def _relocate(options: argparse.Namespace) -> int:
    named = {f"data.{kind}": getattr(options, kind) for kind in ("train", "unlabelled", "validation")}
    moved = {key: str(Path(folder).expanduser().absolute()) for key, folder in named.items() if folder}
    if not moved:
        raise UsageError("No folder is named.", hint="Such as --unlabelled 'E:\\photos'.")
    options.wish = "relocate"
    return _wish(options, **moved)


def _check(options: argparse.Namespace) -> int:
    from camera_trap_al_service.checking import check_file, check_work, salvage

    if options.salvage is not None:
        say(salvage(options.work, options.salvage))
        return 0
    lines, good = check_work(options.work) if options.file is None else check_file(options.work, options.file)
    say(*lines)
    return 0 if good else 1


def _export(options: argparse.Namespace) -> int:
    from camera_trap_al_service.verbs import export

    say(export(options.work, options.to, options.zip))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from camera_trap_al_service.verbs import evaluate, metrics_text

    bars = Bars()
    metrics = evaluate(options.work, options.images, bars.reporter("classifying"))
    bars.close()
    say_text(json.dumps(metrics, ensure_ascii=False, indent=1) if options.json else metrics_text(metrics))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from camera_trap_al_service.demo import demo

    demo(options.seed, options.dir, say=say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
