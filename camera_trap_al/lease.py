"""The lease: the file in a work folder that tells every computer which sees the folder which daemon works there.

A lease of this computer is taken over once its process is gone; one of another computer is never taken, since nobody
here can know whether that one still works. A clean end leaves the file, held by nobody: it names the journal, and a
work folder belongs to one journal for good.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from camera_trap_al.errors import LockedError, StopRequested, WorkFolderError
from camera_trap_al.store import atomic
from camera_trap_al.store.json_files import read_object

RENEW_S = 10.0
WATCH_S = 35.0
TORN_S = 2.0
LOOK_EVERY_S = 1.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds a work folder: `nonce` is "" where nobody does.

    `boot` and `begun` tell this start of the computer and of the process from other ones, "" where the system does not
    say; `journal` is the journal's identity, and `state` the folder of the private files, as that computer spells it.
    """

    host: str
    pid: int
    boot: str
    begun: str
    nonce: str
    counter: int
    journal: str
    state: str
    since: str

    @classmethod
    def here(cls, state: Path, journal: str) -> Holder:
        """Return this process as a holder, with a new nonce."""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        pid = os.getpid()
        nonce = uuid.uuid4().hex
        return cls(socket.gethostname(), pid, boot_id(), process_begun(pid), nonce, 0, journal, str(state), since)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def is_gone(self, me: Holder) -> bool:
        """Return whether nobody holds the lease any more, as far as `me`, who has the lock in `me.state`, can know."""
        if not self.nonce:
            return True
        if self.host != me.host:
            return False
        if self.boot and me.boot and self.boot != me.boot or self.state == me.state:
            return True
        begun = process_begun(self.pid)
        return self.pid == me.pid or not process_exists(self.pid) or bool(self.begun and begun and self.begun != begun)


def read_holder(path: Path) -> Holder | None:
    """Return who holds a lease, or None where there is no such file. Raises `ValueError` where it cannot be understood."""
    try:
        noted = read_object(path)
    except FileNotFoundError:
        return None
    empty = Holder("", 0, "", "", "", 0, "", "", "")
    known = {f.name: noted[f.name] for f in fields(Holder) if type(noted.get(f.name)) is type(getattr(empty, f.name))}
    return replace(empty, **known)


def pause(seconds: float) -> bool:
    """Wait, and return that nobody said to stop."""
    time.sleep(seconds)
    return False


class Lease:
    """A lease that this process holds. `on_lost` is called, from a thread, once another daemon has taken it."""

    def __init__(self, path: Path, holder: Holder, on_lost: Callable[[], None] = lambda: None) -> None:
        self.path, self.holder, self._on_lost = path, holder, on_lost
        self.lost_to: Holder | None = None
        self._renewing = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def take(
        cls,
        path: Path,
        state: Path,
        journal: str,
        *,
        on_lost: Callable[[], None] = lambda: None,
        wait: Callable[[float], bool] = pause,
        clock: Callable[[], float] = time.monotonic,
    ) -> Lease:
        """Take the lease of a work folder; durable on return. The caller holds the lock in `state`.

        Parameters
        ----------
        journal : identity of the journal in `state`, "" where there is none yet
        wait, clock : wait some seconds, and return whether to stop; monotonic seconds

        Raises
        ------
        LockedError
            a daemon holds it, here or on another computer; the latter is watched for 35 s
        WorkFolderError
            the work folder belongs to another journal
        """
        me = Holder.here(state, journal)
        began, watched = clock(), None
        while True:
            try:
                there = read_holder(path)
            except ValueError:
                # Made, and not filled: a moment ago, or by a computer that then lost its power.
                if clock() - began < TORN_S:
                    _wait_or_stop(wait)
                    continue
                there = replace(me, nonce="")
            if there is None:
                with contextlib.suppress(FileExistsError):
                    atomic.create_file(path, _encoded(me))
                continue
            if there.nonce == me.nonce:
                return cls(path, me, on_lost)
            _check_journal(path, there, me)
            if there.is_gone(me):
                atomic.replace_bytes(path, _encoded(me))
                continue
            if there.host == me.host:
                raise held_by(path, there)
            if watched is None:
                log.info(
                    "%s holds %s: looking for %.0f s whether it is at work there", there.host, path.parent, WATCH_S
                )
                began, watched = clock(), there
            if there.counter != watched.counter or clock() - began >= WATCH_S:
                raise _refusal(path, there, moved=there.counter != watched.counter)
            _wait_or_stop(wait)

    def start(self) -> None:
        """Renew the lease every 10 s from now on, in a thread of its own, whatever the loop does."""
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")
        self._thread.start()

    def renew(self) -> bool:
        """Count on, and return whether the lease is still ours. A lease that was deleted is made again."""
        with self._renewing:
            try:
                there = read_holder(self.path)
            except ValueError:
                there = self.holder
            if there is None:
                with contextlib.suppress(FileExistsError):
                    atomic.create_file(self.path, _encoded(self.holder))
                there = read_holder(self.path) or self.holder
            if there.nonce != self.holder.nonce:
                self.lost_to = there
                return False
            self.holder = replace(self.holder, counter=self.holder.counter + 1)
            atomic.replace_bytes(self.path, _encoded(self.holder))
            return True

    def note_journal(self, identity: str) -> None:
        """Name the journal that the work folder belongs to; durable on return."""
        if self.holder.journal != identity:
            self.holder = replace(self.holder, journal=identity)
            self.renew()

    def check(self) -> None:
        """Raise `LockedError` if another daemon has taken over."""
        if self.lost_to is not None:
            who = f" ({self.lost_to})" if self.lost_to.nonce else ""
            raise LockedError(
                f"Another daemon took over {self.path.parent}{who}; this one ended.",
                hint="Two must not work in one folder. All labels are safe.",
            )

    def release(self) -> None:
        """Stop renewing, and say that nobody holds the work folder any more."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        if self.lost_to is not None:
            return
        # A share that is away keeps the lease; it is of this computer, and taken over at the next start.
        with contextlib.suppress(OSError, ValueError):
            there = read_holder(self.path)
            if there is not None and there.nonce == self.holder.nonce:
                atomic.replace_bytes(self.path, _encoded(replace(self.holder, nonce="")))

    def _keep(self) -> None:
        atomic.failpoints.leave_out_this_thread()
        while not self._ending.wait(RENEW_S):
            try:
                if not self.renew():
                    log.warning("another daemon took over %s", self.path.parent)
                    self._on_lost()
                    return
            except OSError as error:
                log.debug("the lease could not be renewed: %s", error)


def held_by(path: Path, there: Holder | None) -> LockedError:
    """Return the error that says who works in the folder of a lease."""
    who = f" ({there})" if there is not None and there.nonce else ""
    return LockedError(
        f"Another camera-trap-al works in {path.parent}{who}.",
        hint="Stop that one first (Ctrl-C in its window), or use `camera-trap-al status` to see what it does.",
    )


def _refusal(path: Path, there: Holder, *, moved: bool) -> LockedError:
    seen = "is at work there now" if moved else f"did not say that it is at work in the last {WATCH_S:.0f} s"
    hint = "Stop it there first." if moved else f"If it is gone for good, delete {path} and start again."
    return LockedError(f"camera-trap-al on another computer ({there}) holds {path.parent} and {seen}.", hint=hint)


def _check_journal(path: Path, there: Holder, me: Holder) -> None:
    if not there.journal or there.journal == me.journal or not me.journal and there.state == me.state:
        return
    found = f"holds that of another one, {me.journal}" if me.journal else "holds none"
    raise WorkFolderError(
        f"{path.parent} belongs to the journal {there.journal}, kept in {there.state}, but {me.state} {found}.",
        hint=f"Set daemon.state_dir in config.toml to the right folder. If the other journal is meant, delete {path}.",
    )


def _wait_or_stop(wait: Callable[[float], bool]) -> None:
    if wait(LOOK_EVERY_S):
        raise StopRequested


def _encoded(holder: Holder) -> bytes:
    return (json.dumps({"format": 1, **asdict(holder)}, ensure_ascii=False, indent=1) + "\n").encode("utf-8")


def boot_id() -> str:
    """Return what tells this start of the computer from earlier ones, or "" where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def process_exists(pid: int) -> bool:
    """Return whether a process of this computer has this number."""
    if sys.platform == "win32":
        return bool(process_begun(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def process_begun(pid: int) -> str:
    """Return when a process started, in the system's own units, or "" where there is none or the system does not say."""
    if sys.platform == "win32":
        return _begun_windows(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _begun_windows(pid: int) -> str:
    import ctypes
    from ctypes import wintypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined, unused-ignore]
    kernel.OpenProcess.restype = wintypes.HANDLE
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return "unknown" if ctypes.get_last_error() == 5 else ""  # type: ignore[attr-defined, unused-ignore]
    try:
        times = [wintypes.FILETIME() for _ in range(4)]
        code = wintypes.DWORD()
        kernel.GetExitCodeProcess(wintypes.HANDLE(handle), ctypes.byref(code))
        if code.value != 259:  # STILL_ACTIVE
            return ""
        kernel.GetProcessTimes(wintypes.HANDLE(handle), *map(ctypes.byref, times))
        return str(times[0].dwHighDateTime << 32 | times[0].dwLowDateTime)
    finally:
        kernel.CloseHandle(wintypes.HANDLE(handle))
