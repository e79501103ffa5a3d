"""The verb `demo`: the whole main job on pictures that come with the program, with a simulated Timelapse user."""

from __future__ import annotations

import csv
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from camera_trap_al.errors import UsageError
from camera_trap_al.layout import TEMPLATE, WorkFolder
from camera_trap_al_service.daemon import run
from camera_trap_al_service.init import init
from camera_trap_al_service.reading import read_status
from camera_trap_al_service.timelapse_user import ImageSet

ARCH = "efficientnet_lite0"
ROUNDS = 5
BATCH = 30
FINETUNE_AFTER = 90
OPTIONS = {
    "query.batch": BATCH,
    "query.first": "wait",
    "query.min_answered": 1.0,
    "embedding.arch": ARCH,
    "train.epochs": 0,
    "train.min_labels": FINETUNE_AFTER,
    "finetune.period": FINETUNE_AFTER,
    "finetune.epochs": 4,
    "loader.samples": 5,
    "finetune.promote": "if_not_worse",
    "labels.settle_s": 0.2,
}
Truth = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Outcome:
    """One round of the demo: labels given so far, accuracy on the held-out pictures, the model used, seconds taken."""

    labels: int
    accuracy: float
    model: int
    seconds: float


def demo(
    seed: int,
    folder: Path | None,
    *,
    say: Callable[[str], object],
    options: Mapping[str, object] | None = None,
    change_truth: Callable[[Truth], Truth] = lambda truth: truth,
    rounds: int = ROUNDS,
) -> list[Outcome]:
    """Run the whole main job and say what happens. Leaves the folder for a look.

    Parameters
    ----------
    seed : of all random choices
    folder : a new folder; by default `camera-trap-demo` in the working directory
    say : takes each line of the account
    options, change_truth, rounds : what a test varies

    Raises
    ------
    CameraTrapAlError
        such as `WeightsMissingError` where the extra is not installed; the text says what to install
    """
    started = time.monotonic()
    folder = _new_folder(folder)
    pictures, work = folder / "pictures", folder / "work"
    with as_file(files("camera_trap_al_service") / "demo_pictures") as shipped:
        shutil.copytree(shipped, pictures)
    truth = change_truth(read_truth(pictures / "truth.csv"))
    folders = {
        "data.train": str(pictures / "train"),
        "data.unlabelled": str(pictures / "unlabelled"),
        "data.validation": str(pictures / "held_out"),
    }
    init(work, folders, {**OPTIONS, "daemon.seed": seed, **(options or {})})
    _introduce(say, pictures, truth, folder)
    quiet = logging.getLogger("camera_trap_al")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        outcomes = _play(work, pictures / "unlabelled", truth, rounds, say)
    finally:
        quiet.setLevel(level)
    _conclude(say, work, pictures, outcomes, time.monotonic() - started)
    return outcomes


def _new_folder(folder: Path | None) -> Path:
    if folder is not None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} is there and not empty.", hint="Name a new folder with --dir.")
        folder.mkdir(parents=True, exist_ok=True)
        return folder.absolute()
    n = 1
    while True:
        folder = Path.cwd() / ("camera-trap-demo" if n == 1 else f"camera-trap-demo-{n}")
        try:
            folder.mkdir()
        except FileExistsError:
            n += 1
        except OSError as error:
            text = f"The folder {folder} cannot be made: {error.strerror or error}."
            raise UsageError(text, hint="Name another one with --dir.") from error
        else:
            return folder


def read_truth(path: Path) -> dict[tuple[str, str], str]:
    """Return (RelativePath, File) → Species of a CSV with these columns."""
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["RelativePath"], row["File"]): row["Species"] for row in csv.DictReader(file)}


def _introduce(say: Callable[[str], object], pictures: Path, truth: Truth, folder: Path) -> None:
    n_train = sum(1 for _ in (pictures / "train").glob("*/*.jpg"))
    held_out = Counter(path.parent.name for path in (pictures / "held_out").glob("*/*.jpg"))
    majority = max(held_out.values()) / held_out.total()
    say(f"This runs the whole job on real photographs that come with the program, in {folder}.")
    say(f"  {n_train} pictures of {len(held_out)} classes are labelled to begin with;")
    say(f"  {len(truth)} pictures have no label yet; a simulated person labels in Timelapse what the program asks for;")
    say(f"  {held_out.total()} pictures are never shown to either and measure the accuracy")
    say(f"  (always guessing the commonest class would be right for {100 * majority:.0f} % of them).")
    say("")
    say(f"{'round':>7}{'labels given':>14}{'accuracy':>10}   what happened")


def _play(work: Path, image_root: Path, truth: Truth, rounds: int, say: Callable[[str], object]) -> list[Outcome]:
    folder = WorkFolder.at(work)
    outcomes: list[Outcome] = []
    started = time.monotonic()
    run(work, until="idle", handle_signals=False)
    outcomes.append(_outcome(work, started))
    say(f"{'start':>7}{0:>14}{100 * outcomes[-1].accuracy:>8.1f} %   learned from the training pictures alone")
    user = ImageSet.open(image_root, image_root / TEMPLATE)
    for number in range(1, rounds + 1):
        started = time.monotonic()
        user.label_round(folder.selector, truth, folder.bin / f"round{number}.csv")
        run(work, until="idle", handle_signals=False)
        outcomes.append(_outcome(work, started))
        before, now = outcomes[-2:]
        what = f"asked for {now.labels - before.labels} pictures, took their labels, learned"
        if now.model != before.model:
            what += "; fine-tuned the network"
        say(f"{number:>7}{now.labels:>14}{100 * now.accuracy:>8.1f} %   {what} ({now.seconds:.0f} s)")
        if read_status(work).get("finished"):
            break
    return outcomes


def _outcome(work: Path, started: float) -> Outcome:
    status = read_status(work)
    return Outcome(status["labels"], status["accuracy"], status["learner"], time.monotonic() - started)


def _conclude(
    say: Callable[[str], object], work: Path, pictures: Path, outcomes: list[Outcome], seconds: float
) -> None:
    folder = WorkFolder.at(work)
    first, last = outcomes[0], outcomes[-1]
    say("")
    say(
        f"{last.labels} labels raised the accuracy from {100 * first.accuracy:.1f} % to {100 * last.accuracy:.1f} % on"
        f" pictures never shown. The whole took {seconds / 60:.1f} minutes."
    )
    if last.model > 1:
        say("The network was fine-tuned on the way; the better one is in use.")
    else:
        say("The network was fine-tuned on the way, but was better before; the one before stays in use.")
    say("")
    say("Where things are:")
    say(f"  {folder.export}  the classifier for other programs (README_export.txt explains each file)")
    say(f"  {folder.test_results}  accuracy, confusion matrix and learning curve, as numbers and pictures")
    say(f"  {folder.selector}  what is asked for now; Timelapse imports it")
    say(f"  {folder.bin}  the CSV files exported from Timelapse, each with our answer beside it")
    say(f"  {folder.labels}  all labels")
    say("")
    say("Next, with your own pictures (labelled ones in a folder for each class, the others in any folders):")
    say("  camera-trap-al init MY_WORK --train LABELLED --unlabelled IMAGES -o embedding_arch=efficientnet_lite0")
    say("  camera-trap-al run MY_WORK")
    say(f"Or classify any folder now: camera-trap-al predict {folder.export} IMAGES --out predictions.csv")
