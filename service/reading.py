"""The verb `status`: what the daemon last said of itself, without changing anything and without a running daemon.

It is asked often, and answers at once: nothing here imports numpy or SQLAlchemy.
"""

from __future__ import annotations

import calendar
import socket
import time
from pathlib import Path
from typing import Any

from camera_trap_al.config_file import read_work_config
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lease import Holder, read_holder
from camera_trap_al.lock import is_held
from camera_trap_al.store.json_files import read_object
from camera_trap_al_service.progress import how_far

FRESH_S = 120.0


def read_status(root: Path, now: float | None = None) -> dict[str, Any]:
    """Return what the daemon last said of itself, and whether it runs now. Raises `WorkFolderError`.

    `silent`: it is on another computer, which has given no sign of it for two minutes, so nobody here can know.

    How long something still takes is left out where that was said more than two minutes before `now` (seconds since
    1970; by default the computer's clock): the computer slept, or the daemon hangs.
    """
    folder, _ = read_work_config(root)
    try:
        status = read_object(folder.status)
        if "state" not in status or not {"hint", "images"} <= status.keys():
            raise ValueError("not of ours")
    except (OSError, ValueError):
        status = {"format": 1, "state": "never started", "hint": f'Start it with `camera-trap-al run "{root}"`.'}
    now = time.time() if now is None else now
    holder = _holder(folder)
    elsewhere = holder is not None and holder.host != socket.gethostname()
    status["running"] = elsewhere or is_held(folder.daemon_lock)
    status["silent"] = elsewhere and not _is_renewed(folder, now)
    if not _is_fresh(status, now):
        for part in (status.get("worker"), status.get("scan")):
            if isinstance(part, dict):
                part.pop("left_s", None)
    status["holder"] = str(holder) if status["running"] and holder else ""
    if (
        status["running"]
        and holder is not None
        and (status.get("host"), status.get("pid")) != (holder.host, holder.pid)
    ):
        # What lies there is of a run before this one.
        status |= {"state": "starting", "hint": "Nothing is needed now.", "problems": [], "deaths": {}}
        status.pop("worker", None)
        status.pop("scan", None)
    if status["silent"] and holder is not None:
        status["hint"] = (
            f"If {holder.host} is not at work any more, start the program here: it makes sure of that, and says what to do."
        )
    if not status["running"] and "round" in status:
        status["state"] = "stopped"
        status["hint"] = f'Start it with `camera-trap-al run "{root}"`.'
    return status


def _is_renewed(folder: WorkFolder, now: float) -> bool:
    """Return whether the lease, which a running daemon writes every ten seconds, was written lately."""
    try:
        return abs(now - folder.lease.stat().st_mtime) <= FRESH_S
    except OSError:
        return False


def _is_fresh(status: dict[str, Any], now: float) -> bool:
    try:
        said = calendar.timegm(time.strptime(str(status.get("at")), "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return False
    return abs(now - said) <= FRESH_S


def _holder(folder: WorkFolder) -> Holder | None:
    """Return who holds the work folder, as far as its lease says."""
    try:
        holder = read_holder(folder.lease)
    except (OSError, ValueError):
        return None
    return holder if holder is not None and holder.nonce else None


def status_text(status: dict[str, Any]) -> str:
    """Return a status as lines for a person."""
    try:
        return "\n".join(_lines(status))
    except (KeyError, TypeError, ValueError, AttributeError):
        seen = "running" if status["running"] else "not running"
        return f"State: {seen}\nProblem: status.json is damaged or of another version; the program writes it anew when it runs."


def _lines(status: dict[str, Any]) -> list[str]:
    runs = "perhaps running; no sign of it for two minutes" if status.get("silent") else "running"
    lines = [f"State: {status['state']} ({runs if status['running'] else 'not running'})"]
    if status["holder"]:
        lines.append(f"At work: {status['holder']}")
    if "round" in status:
        images = status["images"]
        lines += [
            f"Images: {images['unlabelled']} without a label, {images['labelled']} labelled, {images['skipped']} skipped,"
            f" {images['train']} to train on, {images['validation']} for validation",
            f"Cannot be used: {images['quarantined']} unreadable, {images['missing']} missing,"
            f" {images['not_listed']} not shown by Timelapse",
        ]
        if images.get("looked_at"):
            lines.append(
                f"Detections: {images['with_animals']} images with animals, {images['private']} kept back for people or"
                f" vehicles, {images['without_animal']} left out since nothing was seen in them"
            )
        if images.get("altered"):
            lines.append(f"Changed after they were labelled: {images['altered']} images, see data/altered.csv")
        if status["open"]:
            lines.append(
                f"Round {status['round']}: {status['awaited']} of {status['requested']} images still want a label"
            )
        accuracy = status["accuracy"]
        lines.append(
            f"Model {status['learner']}, classifier {status['checkpoint']}"
            + (f", accuracy {accuracy:.3f} on the validation images" if accuracy is not None else "")
        )
        lines += status.get("advice", {}).get("words", ())
        if training := status.get("training"):
            said = {"yes": "helped", "no": "did not help", "unclear": "made no clear difference"}[training["helped"]]
            lines.append(
                f"The last training of the network {said}: accuracy {training['accuracy']:.3f}, before it"
                f" {training['before']:.3f}, cross-validated on {training['n_judged']} labels"
            )
        if only := status.get("only_class"):
            lines.append(f"All labels say '{only}' so far; a classifier needs labels of two classes")
        if names := [_new_name(found) for found in status.get("new_names", ())]:
            lines.append(f"No class yet: {', '.join(names)}; see the reports beside the label files")
    lines += [f"Predictions: {text}" for text in status.get("predictions", ())]
    worker = status.get("worker")
    if worker and status["running"]:
        lines.append(f"In the background: {worker['job']}" + (f" ({_how_far(worker)})" if "phase" in worker else ""))
    if status.get("scan") and status["running"]:
        lines.append(f"At present: {_how_far(status['scan'])}")
    if status["running"]:
        lines += [f"In the background {job} died {n} times" for job, n in status.get("deaths", {}).items() if n]
    lines += [f"Problem: {problem}" for problem in status.get("problems", ())]
    return [*lines, f"Next: {status['hint']}"]


def _new_name(found: dict[str, Any]) -> str:
    like = f", or is it {' or '.join(found['like'])}?" if found["like"] else ""
    return f"'{found['name']}' ({found['images']} image{'' if found['images'] == 1 else 's'}{like})"


def _how_far(phase: dict[str, Any]) -> str:
    return how_far(phase["phase"], phase["done"], phase["total"], phase.get("left_s"))
