"""One process that decodes images: the parent's handle, and what the child does.

The child gets limits, then requests, as JSON lines on its standard input, and ends when that is closed, which also happens when
its parent dies. It answers in frames on its standard output: two lengths, JSON, raw bytes. Neither torch nor, for most
images, numpy is imported, so that it starts in a tenth of a second.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from camera_trap_al.core.crops import Wanted
from camera_trap_al.core.records import Box
from camera_trap_al.errors import ImageUnreadableError
from camera_trap_al.images import DecodeLimits, content_hash, decode_wanted, read_file

COMMAND = (sys.executable, "-m", "camera_trap_al.decoder")
FRAME = struct.Struct("<II")
PIPE_BYTES = 1 << 20
IDLE_S, END_S = 30.0, 5.0
# Beside what the interpreter has: 100 million pixels of 4 bytes, turned upright, and the file.
MEMORY_BYTES, MEMORY_BYTES_PER_PIXEL = 2_000_000_000, 20
ALARM_GRACE_S = 5.0
# Makes a decoder fail for tests, "MODE=NAME": NAME is part of a file's name, MODE `hang`, `memory` or a signal (SIGKILL).
FAULT = "CTAL_DECODER_FAULT"


class DecoderGone(Exception):
    """A decoder ended before it answered."""


def own_group() -> dict[str, Any]:
    """Return how `Popen` keeps a Ctrl-C at the terminal from a child: it is for the parent, which then ends the child.

    Linux lets a session have its share of the processor whatever its priority is (autogroups), so a child in its own
    session would slow its parent down however low its priority: a group in the same one is enough.
    """
    return {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}


class Decoder:
    """A decoding process as its parent sees it; one request at a time."""

    def __init__(self, limits: DecodeLimits, command: Sequence[str]) -> None:
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        flags = own_group()
        if sys.platform == "win32":
            flags = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        self.overdue = self.stopped = False
        self.deadline_s = self.idle_since_s = float("inf")
        self.stop: threading.Event | None = None
        self.process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **one_thread},
            **flags,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout
        _widen(self._out)
        with contextlib.suppress(DecoderGone):
            self.send(asdict(limits))

    def send(self, what: dict[str, Any]) -> None:
        """Send one line. Raises `DecoderGone`."""
        try:
            self._in.write(json.dumps(what).encode() + b"\n")
        except OSError as error:
            raise DecoderGone from error

    def receive(self, within_s: float) -> tuple[dict[str, Any], bytearray]:
        """Return the next frame. Raises `DecoderGone` where the child ended, or was ended since the time was over."""
        self.deadline_s = time.monotonic() + within_s
        try:
            n_text, n_data = FRAME.unpack(self._read(FRAME.size))
            return json.loads(bytes(self._read(n_text))), self._read(n_data)
        finally:
            self.deadline_s = float("inf")

    def _read(self, n: int) -> bytearray:
        data = bytearray(n)
        view, start = memoryview(data), 0
        while start < n:
            try:
                got = self._out.readinto(view[start:])  # type: ignore[attr-defined]
            except (OSError, ValueError) as error:
                raise DecoderGone from error
            if not got:
                raise DecoderGone
            start += got
        return data

    def watch(self) -> None:
        """End the child if its time is over or its caller is told to stop."""
        if self.deadline_s == float("inf"):
            return
        if self.stop is not None and self.stop.is_set():
            self.stopped = True
            self.process.kill()
        elif time.monotonic() > self.deadline_s:
            self.overdue = True
            self.process.kill()

    def is_over(self) -> bool:
        """Return whether an idle child has ended, or was not needed for so long that it should."""
        return self.process.poll() is not None or time.monotonic() - self.idle_since_s > IDLE_S

    def end(self) -> None:
        """End the child at once; it holds nothing that could be lost."""
        self.process.kill()
        # Where a dead share holds it back, it ends when the share lets go.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        for pipe in (self._in, self._out):
            with contextlib.suppress(OSError):
                pipe.close()


def _widen(pipe: Any) -> None:
    """Let a pipe hold a whole image, where the system can: one write and one read instead of many."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def main() -> None:
    """Answer requests until the standard input is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore")
    limits = DecodeLimits(**json.loads(sys.stdin.buffer.readline()))
    _bound_memory(limits)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    # Listens beside the decoding, so that the end of the parent ends this process even in the middle of an image.
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    _send({"ready": True})
    while True:
        request = json.loads(requests.get())
        _answer(Path(request.pop("path")), wanted_of(request), limits)


def wanted_of(request: dict[str, Any]) -> Wanted:
    """Return what a request, as JSON holds it, wants of an image."""
    box, squares = request["box"], request["squares"]
    boxes = None if squares is None else tuple(Box(*square) for square in squares)
    return Wanted(request["px"], Box(*box) if box else None, boxes, request["padding"])


def _listen(requests: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


def _answer(path: Path, wanted: Wanted, limits: DecodeLimits) -> None:
    try:
        data = read_file(path, limits)
        _send({"content": content_hash(data)})
        _set_alarm(limits.decode_s + ALARM_GRACE_S)
        _fail_as_told(path.name)
        found = decode_wanted(data, path.name, wanted, limits)
        pixels = b"".join(picture.image.tobytes() for picture in found)
        _send({"format": found[0].format, "taken": found[0].taken}, pixels)
    except ImageUnreadableError as error:
        _send({"problem": [error.code, str(error)]})
    except MemoryError:
        _send({"problem": ["too_large", f"{path.name} needs more memory than one image may have."]})
    except OSError as error:
        _send({"os": error.errno or errno.EIO})
    finally:
        _set_alarm(0)


def _send(what: dict[str, Any], data: bytes = b"") -> None:
    text = json.dumps(what).encode()
    try:
        sys.stdout.buffer.write(FRAME.pack(len(text), len(data)) + text + data)
        sys.stdout.buffer.flush()
    except OSError:
        os._exit(0)


def _set_alarm(seconds: float) -> None:
    """Have the system end this process by itself, for the case that its parent, who watches the time, is gone."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _bound_memory(limits: DecodeLimits) -> None:
    """Limit the address space and write no core dumps, where the system knows such limits (not on Windows)."""
    if sys.platform == "win32":
        import ctypes

        ctypes.windll.kernel32.SetErrorMode(0x8003)  # no message box when a decoder crashes
        return
    import resource

    used = 1_000_000_000
    with contextlib.suppress(OSError, ValueError):
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    most = used + max(MEMORY_BYTES, MEMORY_BYTES_PER_PIXEL * limits.max_pixels)
    # macOS knows the limit and refuses to set it.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _fail_as_told(name: str) -> None:
    mode, _, wanted = os.environ.get(FAULT, "").partition("=")
    if not wanted or wanted not in name:
        return
    if mode == "hang":
        time.sleep(3600)
    hoard: list[bytes] = []
    while mode == "memory":
        hoard.append(bytes(1 << 26))
    os.kill(os.getpid(), getattr(signal, mode))


if __name__ == "__main__":
    main()
