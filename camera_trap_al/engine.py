"""Images are decoded in child processes, so that a file which crashes, hangs or bloats a decoder harms only itself.

Here they are started, lent, watched and replaced; one of them is `decoder.py`.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import logging
import os
import queue
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camera_trap_al.core.crops import Wanted
from camera_trap_al.core.records import Box
from camera_trap_al.decoder import COMMAND, Decoder, DecoderGone
from camera_trap_al.errors import ImageUnreadableError, StopRequested
from camera_trap_al.images import (
    DEFAULT_LIMITS,
    IMAGE_PX,
    NO_TIME,
    DecodeLimits,
    Picture,
    content_hash,
    decode_wanted,
    read_file,
)

if TYPE_CHECKING:
    import numpy as np

MOST_PROCESSES = 8
START_S = 60.0
# A share that answers so late is away; a slow one is not.
READ_S = 120.0
WATCH_S = 0.1
# Compared on images that come after a few dozen, so that short work, and the start of processes, take no part in it.
COMPARE_FROM, COMPARED = 48, 8
# A process also keeps a crash, a hang and the memory of a decoder to itself, which is worth some of its time.
THREADS_PAY_FROM, THREADS_PAY_MS = 2.0, 5.0
DECODER_CODES = frozenset({"decoder_crashed", "decoder_timeout"})
EXTENSIONS = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
EXTENSIONS |= {f".{name.lower()}": name for name in ("PNG", "GIF", "WEBP", "BMP")}
SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoded:
    """An image as read: uint8 pixels, RGB, upright; `images.content_hash` and `capture_time` of its file.

    `pixels` are (px, px, 3), or (n, px, px, 3) of n crops.
    """

    pixels: np.ndarray
    content: str
    taken: int = NO_TIME


class _CannotStart(Exception):
    """No child can be started here."""


class Decoders:
    """Reads images in child processes, which are started as they are needed, kept, and replaced where they die.

    Any number of threads may call it; each call takes one child. Where no process can be started, images are decoded
    in threads of this one: limits on header, pixels and time hold then, but a crash of a decoder is a crash of the
    program. That is logged once.

    Without a number of processes, a few images are also decoded in a thread, and where that is twice as fast, threads do
    the rest. Either way the outcome is logged once.

    Parameters
    ----------
    limits : what is refused
    processes : children at most, never more than cores, or 8; None for as many as that, or threads
    command : how a child is started
    """

    def __init__(
        self, limits: DecodeLimits = DEFAULT_LIMITS, *, processes: int | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        self.limits = limits
        self.in_threads = False
        self._command = command
        self._n_turns = min(MOST_PROCESSES, usable_cores(), processes or MOST_PROCESSES)
        self._turns = threading.BoundedSemaphore(self._n_turns)
        self._to_compare = 0 if processes else COMPARE_FROM + COMPARED
        self._compared: list[tuple[float, float]] = []
        self._lock = threading.Lock()
        self._idle: list[Decoder] = []
        self._all: set[Decoder] = set()
        self._is_watched = False
        self._closed = False
        self._odd_folders: set[str] = set()

    def read(
        self,
        path: Path | str,
        *,
        px: int = IMAGE_PX,
        box: Box | None = None,
        stop: threading.Event | None = None,
    ) -> Decoded:
        """Decode an image, or one crop of it, as `images.read_image` does.

        Parameters
        ----------
        stop : set from elsewhere to give up at once

        Raises
        ------
        ImageUnreadableError
            With a code of `read_image`, `decoder_crashed` or `decoder_timeout`. `content` is the file's hash.
        OSError
            The file could not be read; `TimeoutError` where that took two minutes.
        StopRequested
        """
        return self._read(Path(path), Wanted(px, box), stop)

    def read_crops(
        self, path: Path | str, boxes: Sequence[Box], *, px: int = IMAGE_PX, padding: float = 1.0
    ) -> Decoded:
        """Decode an image once, and cut the square around each of n >= 1 boxes out of it, as `core.crops` says.

        Raises as `read`.
        """
        return self._read(Path(path), Wanted(px, None, tuple(boxes), padding), None)

    def _read(self, path: Path, wanted: Wanted, stop: threading.Event | None) -> Decoded:
        with self._turns:
            for is_last_try in (False, True):
                if self._closed or (stop is not None and stop.is_set()):
                    raise StopRequested
                if self.in_threads:
                    return self._read_in_thread(path, wanted)
                try:
                    with self._child(stop) as child:
                        return self._ask(child, path, wanted, is_last_try=is_last_try)
                except DecoderGone:
                    # Killed from outside, perhaps: one more try tells a bad file from bad luck.
                    continue
                except _CannotStart as error:
                    self._note_threads(f"no process for decoding can be started ({error})")
            return self._read_in_thread(path, wanted)

    def close(self) -> None:
        """End all children. Calls under way raise `StopRequested`."""
        with self._lock:
            self._closed = True
            children = list(self._all)
        for child in children:
            child.process.kill()
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            self._discard(child)

    def _ask(self, child: Decoder, path: Path, wanted: Wanted, *, is_last_try: bool) -> Decoded:
        """Let a child read one image. Raises as `read`, and `DecoderGone` where another try is due."""
        try:
            child.send({"path": str(path), **wanted._asdict()})
            head, _ = child.receive(READ_S)
        except DecoderGone:
            self._check_stopped(child)
            if child.overdue:
                raise TimeoutError(errno.ETIMEDOUT, f"not read within {READ_S:.0f} s", str(path)) from None
            if not is_last_try:
                raise
            raise _crashed(path, "") from None
        content = str(head.get("content", ""))
        if not content:
            _raise_said(head, path, "")
        started = time.perf_counter()
        try:
            answer, pixels = child.receive(self.limits.decode_s)
        except DecoderGone:
            self._check_stopped(child)
            if child.overdue:
                raise _too_slow(path, self.limits, content) from None
            if not is_last_try:
                raise
            raise _crashed(path, content) from None
        if "format" not in answer:
            _raise_said(answer, path, content)
        self._note_format(path, str(answer["format"]))
        self._compare(path, wanted, time.perf_counter() - started)
        return Decoded(_as_array(pixels, wanted), content, int(answer["taken"]))

    def _compare(self, path: Path, wanted: Wanted, in_process_s: float) -> None:
        """Let a thread decode what a process could, if that is still to be compared; choose after the last."""
        with self._lock:
            self._to_compare -= 1
            if not 0 <= self._to_compare < COMPARED:
                return
        is_last = False
        with contextlib.suppress(ImageUnreadableError, OSError):
            data = read_file(path, self.limits)
            started = time.perf_counter()
            decode_wanted(data, path.name, wanted, self.limits)
            with self._lock:
                self._compared.append((in_process_s, time.perf_counter() - started))
                is_last = len(self._compared) == COMPARED
        if not is_last:
            return
        process_ms, thread_ms = (statistics.median(times) * 1000 for times in zip(*self._compared, strict=True))
        if process_ms > THREADS_PAY_FROM * thread_ms + THREADS_PAY_MS:
            why = f"decoding takes {process_ms:.0f} ms an image in a process of its own, {thread_ms:.0f} ms in a thread"
            self._note_threads(why)
        else:
            log.info(
                "images: decoded by %d processes, %.0f ms an image (%.0f ms in a thread)",
                self._n_turns,
                process_ms,
                thread_ms,
            )

    def _check_stopped(self, child: Decoder) -> None:
        if child.stopped or self._closed:
            raise StopRequested from None

    @contextlib.contextmanager
    def _child(self, stop: threading.Event | None) -> Iterator[Decoder]:
        """Lend a child; one that ended, or was left in the middle of an answer, is not used again."""
        child = self._idle_child() or self._start()
        child.stop = stop
        try:
            yield child
        except (ImageUnreadableError, OSError) as error:
            self._put_back(child, is_sound=getattr(error, "code", "") not in DECODER_CODES and not child.overdue)
            raise
        except BaseException:
            self._put_back(child, is_sound=False)
            raise
        self._put_back(child, is_sound=True)

    def _idle_child(self) -> Decoder | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                child = self._idle.pop()
            if child.process.poll() is None:
                return child
            self._discard(child)

    def _put_back(self, child: Decoder, *, is_sound: bool) -> None:
        child.stop, child.idle_since_s = None, time.monotonic()
        with self._lock:
            if is_sound and not self._closed:
                self._idle.append(child)
                return
        self._discard(child)

    def _discard(self, child: Decoder) -> None:
        child.end()
        with self._lock:
            self._all.discard(child)

    def _start(self) -> Decoder:
        """Start a child. Raises `_CannotStart` where two in a row could not."""
        why = ""
        for _ in range(2):
            try:
                child = Decoder(self.limits, self._command)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                why = str(error)
                continue
            with self._lock:
                self._all.add(child)
                if not self._is_watched:
                    self._is_watched = True
                    threading.Thread(target=self._watch, daemon=True, name="decoder watch").start()
            try:
                child.receive(START_S)
                return child
            except DecoderGone:
                self._discard(child)
                if self._closed:
                    raise StopRequested from None
                why = f"it ended with status {child.process.returncode}"
        raise _CannotStart(why)

    def _watch(self) -> None:
        while True:
            time.sleep(WATCH_S)
            with self._lock:
                if not self._all:
                    self._is_watched = False
                    return
                children = list(self._all)
                unused = [child for child in self._idle if child.is_over()]
                self._idle = [child for child in self._idle if child not in unused]
            for child in children:
                child.watch()
            for child in unused:
                self._discard(child)

    def _note_threads(self, why: str) -> None:
        with self._lock:
            if not self.in_threads:
                log.warning(
                    "images: %s; images are decoded without one, so a damaged file could end the program",
                    why,
                )
            self.in_threads = True

    def _read_in_thread(self, path: Path, wanted: Wanted) -> Decoded:
        data = read_file(path, self.limits)
        content = content_hash(data)
        outcome: queue.SimpleQueue[list[Picture] | ImageUnreadableError] = queue.SimpleQueue()

        def work() -> None:
            try:
                outcome.put(decode_wanted(data, path.name, wanted, self.limits))
            except ImageUnreadableError as error:
                outcome.put(error)

        threading.Thread(target=work, daemon=True, name="decode").start()
        try:
            result = outcome.get(timeout=self.limits.decode_s)
        except queue.Empty:
            raise _too_slow(path, self.limits, content) from None
        if isinstance(result, ImageUnreadableError):
            result.content = content
            raise result
        self._note_format(path, result[0].format)
        pixels = bytearray(b"".join(picture.image.tobytes() for picture in result))
        return Decoded(_as_array(pixels, wanted), content, result[0].taken)

    def _note_format(self, path: Path, kind: str) -> None:
        """Say once per folder that files there are of another format than their names tell."""
        named, kind = EXTENSIONS.get(path.suffix.lower(), ""), SAME_FORMAT.get(kind, kind)
        folder = str(path.parent)
        if named and kind and named != kind and folder not in self._odd_folders:
            self._odd_folders.add(folder)
            log.warning("images: %s: the content is %s, the name says %s; it is read by its content", path, kind, named)


@functools.lru_cache(maxsize=4)
def shared(limits: DecodeLimits = DEFAULT_LIMITS, processes: int = 0) -> Decoders:
    """Return this process's decoders with these limits, ended with it; unused children end by themselves.

    `processes` is the most children there may be; 0 for one a core.
    """
    decoders = Decoders(limits, processes=processes or None)
    atexit.register(decoders.close)
    return decoders


def usable_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _as_array(pixels: bytearray, wanted: Wanted) -> np.ndarray:
    import numpy as np

    shape = (wanted.px, wanted.px, 3)
    return np.frombuffer(pixels, np.uint8).reshape(shape if wanted.squares is None else (-1, *shape))


def _crashed(path: Path, content: str) -> ImageUnreadableError:
    text = f"{path.name} crashed the program that decodes images, twice; copy it again, or save it anew as JPEG."
    return ImageUnreadableError(text, code="decoder_crashed", content=content)


def _too_slow(path: Path, limits: DecodeLimits, content: str) -> ImageUnreadableError:
    text = f"{path.name} could not be decoded within {limits.decode_s:g} s; save it anew as JPEG."
    return ImageUnreadableError(text, code="decoder_timeout", content=content)


def _raise_said(said: dict[str, Any], path: Path, content: str) -> None:
    """Raise what a child said of an image."""
    if "os" in said:
        raise OSError(int(said["os"]), os.strerror(int(said["os"])), str(path))
    code, text = said["problem"]
    raise ImageUnreadableError(text, code=code, content=content)
