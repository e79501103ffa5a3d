"""Wishes: what a verb wants of the daemon. A verb writes one whole, the daemon carries it out once and answers beside it.

Without a daemon the verb takes its lock and carries the wish out itself, by the same code.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camera_trap_al.config_file import read_work_config
from camera_trap_al.errors import LockedError, StopRequested, UsageError
from camera_trap_al.granting import Wish, grants
from camera_trap_al.layout import WorkFolder
from camera_trap_al.lock import DaemonLock
from camera_trap_al.store import atomic
from camera_trap_al.store.json_files import read_object
from camera_trap_al.work import Work

FORMAT = 1
LOOK_EVERY_S = 0.1
SAY_AFTER_S = 5.0
KEPT_ANSWERS_S = 3600.0
_NAME = re.compile(r"[0-9]{19}-[0-9a-f]{32}\.json")
ANSWER = ".answer.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What became of a wish, in words; `is_granted` is False where it makes no sense, and `text` says why."""

    is_granted: bool
    text: str


def pending(folder: Path) -> tuple[str, ...]:
    """Return the names of the wishes in `folder` that have no answer, oldest first."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError:
        return ()
    return tuple(sorted(name for name in names if _NAME.fullmatch(name) and _answer_name(name) not in names))


def grant(work: Work, name: str) -> None:
    """Carry out one wish. Commits: the journal line that names it, where it needs one, else its answer."""
    path = work.folder.wishes / name
    try:
        wish = _read(path)
    except FileNotFoundError:
        return
    except ValueError as error:
        answer = Answer(False, f"The wish {path} cannot be read: {error}")
    else:
        answer = carry_out(work, wish)
    log.info("wish: %s", answer.text)
    facts = {"format": FORMAT, "granted": answer.is_granted, "text": answer.text}
    atomic.replace_json(path.with_name(_answer_name(name)), facts)
    _remove_old(path.parent)


def carry_out(work: Work, wish: Wish) -> Answer:
    """Carry out a wish, unless the journal says that it was; a refusal is an answer too."""
    seq = work.history.granted.get(wish.id)
    if seq is not None:
        return Answer(True, f"Done; it is number {seq} of the journal.")
    try:
        return Answer(True, grants[wish.what](work, wish))
    except UsageError as error:
        return Answer(False, str(error))


def ask(root: Path, what: str, *, say: Callable[[str], None] = lambda text: None, **arguments: Any) -> Answer:
    """Have a wish carried out, by the running daemon or here, and return the answer.

    Parameters
    ----------
    root : the work folder
    what : one of `grants`
    say : told once that the daemon is busy, if it takes more than a few seconds

    Raises what opening the work folder raises, and what carrying the wish out raises where that is not a refusal.
    """
    folder, _ = read_work_config(root)
    wish = Wish(uuid.uuid4().hex, what, arguments)
    path = folder.wishes / f"{time.time_ns():019d}-{wish.id}.json"
    say_at = time.monotonic() + SAY_AFTER_S
    is_written = False
    try:
        while True:
            answer = _here(root, folder, wish) or (_read_answer(path) if is_written else None)
            if answer is not None:
                return answer
            if not is_written:
                atomic.make_folder(folder.wishes)
                atomic.replace_json(path, {"format": FORMAT, "id": wish.id, "what": what, "arguments": arguments})
                is_written = True
            if time.monotonic() > say_at:
                say("Waiting for the running daemon, which is busy (Ctrl-C takes the wish back) …")
                say_at = float("inf")
            time.sleep(LOOK_EVERY_S)
    finally:
        if is_written:
            atomic.discard_file(path)
            atomic.discard_file(path.with_name(_answer_name(path.name)))


def _here(root: Path, folder: WorkFolder, wish: Wish) -> Answer | None:
    """Carry the wish out in this process, or return None where a daemon holds the work folder."""
    try:
        # A daemon on another computer carries wishes out too, so nobody watches here whether it is at work.
        lock = DaemonLock.take(folder, wait=lambda seconds: True)
    except (LockedError, StopRequested):
        return None
    try:
        work = Work.open(root)
        try:
            return carry_out(work, wish)
        finally:
            work.close()
    finally:
        lock.release()


def _remove_old(folder: Path) -> None:
    """Remove answered wishes for which nobody waits any more (their verb was killed)."""
    for answer in folder.glob(f"*{ANSWER}"):
        with contextlib.suppress(FileNotFoundError):
            if abs(time.time() - answer.stat().st_mtime) > KEPT_ANSWERS_S:
                atomic.discard_file(answer.with_name(answer.name.removesuffix(ANSWER) + ".json"))
                atomic.discard_file(answer)


def _answer_name(name: str) -> str:
    return name.removesuffix(".json") + ANSWER


def _read(path: Path) -> Wish:
    """Read a wish. Raises `FileNotFoundError` if it was taken back, `ValueError` if it is none."""
    value = read_object(path)
    try:
        wish = Wish(str(value["id"]), str(value["what"]), dict(value["arguments"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"it lacks {error}.") from error
    if value.get("format", FORMAT) != FORMAT:
        raise ValueError("another version of this program wrote it.")
    if path.name[20:] != f"{wish.id}.json":
        raise ValueError("it has the name of another one.")
    return wish


def _read_answer(path: Path) -> Answer | None:
    try:
        value = read_object(path.with_name(_answer_name(path.name)))
        return Answer(bool(value["granted"]), str(value["text"]))
    except (OSError, ValueError, KeyError):
        return None
