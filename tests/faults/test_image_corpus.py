"""Hundreds of odd, broken and hostile image files: each is read right or refused with its code, and none is fatal."""

import csv
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import image_corpus
import numpy as np
import numpy_learner
import picture_bytes
import pytest
from picture_bytes import COLOURS, GREYS, PIXELS

from camera_trap_al.engine import Decoders, shared
from camera_trap_al.errors import ImageUnreadableError
from camera_trap_al.images import DecodeLimits, hash_file
from camera_trap_al.work import Work

pytestmark = pytest.mark.faults

FAULT = "CTAL_DECODER_FAULT"
CORNERS = ((40, 40), (40, 215), (215, 40), (215, 215))
COLOUR_TOLERANCE, GREY_TOLERANCE = 60, 25
MOST_MEGABYTES = 700


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return folder, image_corpus.build(folder)


def kinds_of(pixels):
    """Return what an image shows: the coloured quarters, the grey ones, or at least pixels."""
    assert pixels.shape == (256, 256, 3) and pixels.dtype == np.uint8
    found = {PIXELS}
    wanted = picture_bytes.quarters(256, 256)
    for kind, image, tolerance in ((COLOURS, wanted, COLOUR_TOLERANCE), (GREYS, wanted.convert("L"), GREY_TOLERANCE)):
        right = np.asarray(image.convert("RGB")).astype(int)
        if all(np.abs(pixels[at].astype(int) - right[at]).max() <= tolerance for at in CORNERS):
            found.add(kind)
    return found


class Memory:
    """Watches how much memory the decoders have: the largest at any time, in MB."""

    def __init__(self, decoders):
        self.largest = self.together = 0.0
        self._decoders, self._ended = decoders, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _watch(self):
        while not self._ended.wait(0.01):
            sizes = [_resident_mb(child.process.pid) for child in list(self._decoders._all)]
            self.largest, self.together = max([self.largest, *sizes]), max(self.together, sum(sizes))


def _resident_mb(pid):
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6
    except (OSError, IndexError):
        return 0.0


def test_every_file_is_read_right_or_refused_with_its_code(corpus, figure):
    folder, cases = corpus
    decoders = Decoders(DecodeLimits(decode_s=10.0), processes=2)

    def outcome_of(case):
        try:
            return kinds_of(decoders.read(folder / case.name).pixels)
        except ImageUnreadableError as error:
            assert case.name in str(error)
            if error.code not in ("empty_file", "not_an_image"):
                assert error.content == hash_file(folder / case.name)
            return {error.code}
        except OSError:
            return {"gone"}

    started = time.monotonic()
    with Memory(decoders) as memory, ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(outcome_of, cases))
    took = time.monotonic() - started
    assert decoders.read(folder / "baseline.jpg").pixels.any() and not decoders.in_threads
    decoders.close()
    wrong = [
        f"{c.name!r}: {o}, not {set(c.expected)}" for c, o in zip(cases, outcomes, strict=True) if not o & c.expected
    ]
    assert not wrong
    assert len(cases) >= 300
    read = sum(PIXELS in outcome for outcome in outcomes)
    codes = Counter(code for outcome in outcomes if PIXELS not in outcome for code in outcome)
    assert memory.largest <= MOST_MEGABYTES
    figure(
        "image corpus",
        f"{len(cases)} files in {took:.0f} s, 0 fatal, {read} read, refused: "
        + ", ".join(f"{n} {code}" for code, n in sorted(codes.items()))
        + f"; largest decoder {memory.largest:.0f} MB, two together {memory.together:.0f} MB",
    )


def test_the_content_decides_and_not_what_stands_behind_the_first_frame(corpus):
    """Five thousand frames, or four hundred pages, take no longer than one of each does with room to spare."""
    folder, _ = corpus
    decoders = Decoders(DecodeLimits(decode_s=2.0), processes=1)
    for name in ("5000 frames.gif", "400 pages.tif", "animated.webp", "animated.png"):
        assert decoders.read(folder / name).pixels.any() or name.startswith("5000")
    decoders.close()


def test_no_file_is_changed_by_being_read(corpus):
    folder, cases = corpus
    regular = [folder / c.name for c in cases if (folder / c.name).is_file() and not (folder / c.name).is_symlink()]
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size, hash_file(path)) for path in regular[:60]}
    decoders = Decoders(processes=1)
    for path in before:
        with suppress(ImageUnreadableError):
            decoders.read(path)
    decoders.close()
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size, hash_file(path)) for path in before}


@pytest.fixture
def stand_in():
    undo = numpy_learner.install()
    yield
    undo()
    shared.cache_clear()


BROKEN = (
    "empty.jpg",
    "text.jpg",
    "format eps.jpg",
    "format heic.jpg",
    "claims 50000x50000.png",
    "zTXt bomb before.png",
)
BROKEN += ("JPEG cut at 50.jpg", "PNG cut at 50.jpg", "lies within the limits.tif", "claims 65500.jpg", "no end.jpg")
SOUND = ("cmyk.jpg", "turned6.jpg", "16 bits.png", "animated.gif", "pages.tif", "PNG called.jpg", "exif loop.jpg")


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("folders", [(), ("train", "validation")], ids=["without a learner", "with a learner"])
def test_a_season_with_broken_files_goes_on_without_them(corpus, new_season, monkeypatch, folders, figure):
    """Broken files, and one that kills each decoder, are on the list of damaged images; no request names them."""
    source, _ = corpus
    monkeypatch.setenv(FAULT, "SIGKILL=crashes.jpg" if sys.platform != "win32" else "SIGTERM=crashes.jpg")
    shared.cache_clear()  # decoders that run already know nothing of the fault
    season = new_season(folders=folders, labels__tool="any", query__batch=40)
    odd = season.root / "pool" / "odd"
    odd.mkdir()
    for name in BROKEN + SOUND:
        (odd / name).write_bytes((source / name).read_bytes())
    (odd / "crashes.jpg").write_bytes((source / "baseline.jpg").read_bytes())
    season.run()
    with (season.work / "data" / "quarantine.csv").open(encoding="utf-8-sig", newline="") as file:
        listed = "\n".join(",".join(row) for row in csv.reader(file))
    work = Work.open(season.work)
    try:
        asked = {key.file for request in work.history.requests for key in request.keys}
        problems = {Path(path).name: code for _, path, code, _, _ in work.catalog.problems()}
    finally:
        work.close()
    assert asked
    assert asked.isdisjoint({*BROKEN, "crashes.jpg"})
    assert set(problems) == {*BROKEN, "crashes.jpg"} and problems["crashes.jpg"] == "decoder_crashed"
    assert all(name in listed for name in problems)
    figure(
        "broken images in a season", f"{len(problems)} set aside, {len(asked)} asked for, {len(SOUND)} odd ones kept"
    )
