"""Decoding in child processes: as good as in this one, and whatever a file does to its decoder stays there."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from camera_trap_al import engine
from camera_trap_al.core.records import Box
from camera_trap_al.engine import Decoders
from camera_trap_al.errors import ImageUnreadableError, StopRequested
from camera_trap_al.images import DEFAULT_LIMITS, DecodeLimits, content_hash, hash_file, read_image

FAULT = "CTAL_DECODER_FAULT"
posix = pytest.mark.skipif(os.name != "posix", reason="signals and process groups are POSIX")


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(1)
    paths = [tmp_path / f"{i}.jpg" for i in range(6)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def make():
    made = []

    def decoders(limits=DEFAULT_LIMITS, **options):
        made.append(Decoders(limits, **options))
        return made[-1]

    yield decoders
    for each in made:
        each.close()


def problem_of(decoders, path, **options):
    with pytest.raises(ImageUnreadableError) as caught:
        decoders.read(path, **options)
    assert path.name in str(caught.value)
    return caught.value


def is_running(pid):
    """Say whether a process runs; one that ended and was not yet fetched by its parent does not."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(listed.strip()) and not listed.strip().startswith("Z")


def ends(pid, within_s=20.0):
    started = time.monotonic()
    while is_running(pid) and time.monotonic() - started < within_s:
        time.sleep(0.05)
    return not is_running(pid)


def test_a_child_reads_what_this_process_reads(pictures, make):
    decoders = make()
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(decoders.read, pictures))
    for path, result in zip(pictures, results, strict=True):
        assert np.array_equal(result.pixels, read_image(path)) and result.pixels.flags.writeable
        assert result.content == hash_file(path) == content_hash(path.read_bytes())
    box = Box(0.5, 0.0, 0.5, 0.5)
    cut = decoders.read(pictures[0], px=32, box=box).pixels
    assert np.array_equal(cut, read_image(pictures[0], px=32, box=box))
    assert not decoders.in_threads


def test_refusals_cross_over_with_code_text_and_hash(tmp_path, pictures, make):
    decoders = make(DecodeLimits(max_side=50))
    assert problem_of(decoders, pictures[0]).code == "too_large"
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
    problem = problem_of(decoders, tmp_path / "cut.jpg")
    assert problem.code in ("unreadable", "truncated") and problem.content == hash_file(tmp_path / "cut.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert problem_of(decoders, tmp_path / "empty.jpg").code == "empty_file"
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        decoders.read(tmp_path / "gone.jpg")


def test_allowed_truncated_images_are_used_as_far_as_they_go(tmp_path, make):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-2000])
    assert problem_of(make(), tmp_path / "a.jpg").code == "truncated"
    assert make(DecodeLimits(allow_truncated=True)).read(tmp_path / "a.jpg").pixels[:100].std() > 30


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["SIGKILL", "SIGSEGV", "SIGABRT"] if os.name == "posix" else ["SIGTERM"])
def test_a_decoder_that_dies_takes_one_image_with_it(pictures, make, monkeypatch, mode):
    monkeypatch.setenv(FAULT, f"{mode}=3.jpg")
    decoders = make(processes=2)

    def read(path):
        try:
            return decoders.read(path).content
        except ImageUnreadableError as error:
            return error.code, error.content

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(read, pictures * 2))
    for path, result in zip(pictures * 2, results, strict=True):
        bad = path.name == "3.jpg"
        assert result == (("decoder_crashed", hash_file(path)) if bad else hash_file(path))


def test_a_decoder_that_hangs_is_ended(pictures, make, monkeypatch):
    monkeypatch.setenv(FAULT, "hang=3.jpg")
    decoders = make(DecodeLimits(decode_s=0.3), processes=1)
    problem = problem_of(decoders, pictures[3])
    assert problem.code == "decoder_timeout" and problem.content == hash_file(pictures[3])
    decoders.limits = DEFAULT_LIMITS
    assert decoders.read(pictures[4]).pixels.any()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space of a process")
def test_a_decoder_that_wants_all_memory_gets_no_more_than_its_share(pictures, make, monkeypatch):
    monkeypatch.setenv(FAULT, "memory=3.jpg")
    decoders = make(processes=1)
    assert problem_of(decoders, pictures[3]).code == "too_large"
    assert decoders.read(pictures[4]).pixels.any()


def test_a_child_that_was_killed_from_outside_costs_no_image(pictures, make):
    decoders = make(processes=1)
    for path in pictures[:3]:
        decoders.read(path)
        (child,) = decoders._all
        child.process.kill()
    assert not decoders.in_threads


def test_where_no_process_starts_threads_decode_and_it_is_said_once(pictures, make, caplog, monkeypatch):
    for command in (["/no/such/program"], [sys.executable, "-c", "raise SystemExit(3)"]):
        caplog.clear()
        decoders = make(DecodeLimits(max_side=60), command=command)
        with caplog.at_level(logging.WARNING):
            for path in pictures:
                result = decoders.read(path)
                assert np.array_equal(result.pixels, read_image(path)) and result.content == hash_file(path)
        assert decoders.in_threads and len(caplog.records) == 1
    Image.new("RGB", (61, 5)).save(pictures[0])
    problem = problem_of(decoders, pictures[0])
    assert problem.code == "too_large" and problem.content == hash_file(pictures[0])
    never = threading.Event()

    def slow(*args, **options):
        never.wait(5)
        raise ImageUnreadableError("late", code="unreadable")

    monkeypatch.setattr(engine, "decode_wanted", slow)
    decoders.limits = DecodeLimits(decode_s=0.1)
    assert problem_of(decoders, pictures[1]).code == "decoder_timeout"
    never.set()


@pytest.mark.parametrize(("in_process_s", "is_slow"), [(0.010, False), (0.024, False), (0.026, True)])
def test_threads_take_over_only_where_processes_prove_to_be_slow_and_it_is_said_once(
    pictures, make, caplog, monkeypatch, in_process_s, is_slow
):
    clock, receive, decode = [0.0], engine.Decoder.receive, engine.decode_wanted

    def receive_for(*given):
        clock[0] += in_process_s
        return receive(*given)

    def decode_for_10_ms(*given, **options):
        clock[0] += 0.010
        return decode(*given, **options)

    turned_by_hand = SimpleNamespace(perf_counter=lambda: clock[0], monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr(engine, "time", turned_by_hand)
    monkeypatch.setattr(engine.Decoder, "receive", receive_for)
    monkeypatch.setattr(engine, "decode_wanted", decode_for_10_ms)
    monkeypatch.setattr(engine, "COMPARE_FROM", 1)
    monkeypatch.setattr(engine, "COMPARED", 3)
    decoders = make()
    with caplog.at_level(logging.INFO):
        for n, path in enumerate(pictures):
            assert np.array_equal(decoders.read(path).pixels, read_image(path))
            assert decoders.in_threads == (is_slow and n >= 3)
    (said,) = [record.getMessage() for record in caplog.records]
    assert ("in a process of its own" if is_slow else "processes") in said


def test_a_number_of_processes_is_not_questioned(pictures, make, caplog, monkeypatch):
    monkeypatch.setattr(engine, "COMPARE_FROM", 0)
    monkeypatch.setattr(engine, "decode_wanted", None)
    decoders = make(processes=1)
    with caplog.at_level(logging.INFO):
        for path in pictures * 2:
            decoders.read(path)
    assert not caplog.records


@pytest.mark.slow
def test_a_told_stop_does_not_wait_for_a_hanging_decoder(pictures, make, monkeypatch):
    monkeypatch.setenv(FAULT, "hang=3.jpg")
    decoders, stop = make(), threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(StopRequested):
        decoders.read(pictures[3], stop=stop)
    assert decoders.read(pictures[4]).pixels.any()
    with pytest.raises(StopRequested):
        decoders.read(pictures[4], stop=stop)


def test_closing_ends_calls_under_way_and_all_children(pictures, make, monkeypatch):
    monkeypatch.setenv(FAULT, "hang=3.jpg")
    decoders = make(processes=2)
    decoders.read(pictures[0])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(decoders.read, pictures[3])
        time.sleep(0.5)
        processes = [child.process for child in decoders._all]
        decoders.close()
        with pytest.raises(StopRequested):
            waiting.result(20)
    assert processes and all(process.poll() is not None for process in processes)
    with pytest.raises(StopRequested):
        decoders.read(pictures[0])


@pytest.mark.slow
def test_children_that_are_not_needed_end(pictures, make, monkeypatch):
    decoders = make()
    decoders.read(pictures[0])
    (child,) = decoders._all
    monkeypatch.setattr("camera_trap_al.decoder.IDLE_S", 0.2)
    assert child.process.wait(20) is not None
    assert decoders.read(pictures[1]).pixels.any()


def test_another_format_than_the_name_says_is_told_once_a_folder(tmp_path, make, caplog):
    decoders = make()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("1.png", "2.png", "3.jpg"):
            Image.new("RGB", (4, 4)).save(tmp_path / folder / name, "JPEG")
    with caplog.at_level(logging.WARNING):
        for path in sorted(tmp_path.rglob("*.*")):
            decoders.read(path)
    assert [("JPEG" in r.getMessage(), "PNG" in r.getMessage()) for r in caplog.records] == [(True, True)] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are no text")
def test_a_name_that_is_no_text_is_read(pictures, tmp_path, make):
    odd = tmp_path / os.fsdecode(b"\xff\xfe.jpg")
    odd.write_bytes(pictures[0].read_bytes())
    assert make().read(odd).pixels.any()


def test_a_child_loads_neither_torch_nor_numpy():
    script = "import sys, camera_trap_al.decoder; sys.exit(bool({'numpy', 'torch', 'sqlalchemy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", script], check=True)


PARENT = """
import os, signal, sys, threading, time
from camera_trap_al.engine import Decoders
# A test run that was started in the background ignores interrupts, and so would this process.
signal.signal(signal.SIGINT, signal.default_int_handler)
decoders = Decoders(processes=1)
threading.Thread(target=decoders.read, args=(sys.argv[1],), daemon=True).start()
while not [child for child in decoders._all if child.deadline_s < float("inf")]:
    time.sleep(0.01)
time.sleep(0.5)
try:
    print(next(iter(decoders._all)).process.pid, flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    decoders.close()
"""


def parent_of_a_hanging_child(path, monkeypatch):
    monkeypatch.setenv(FAULT, "hang=3.jpg")
    command = [sys.executable, "-c", PARENT, str(path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    parent = subprocess.Popen(command, start_new_session=True, **pipes)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@posix
def test_children_end_with_their_parent_even_in_the_middle_of_an_image(pictures, monkeypatch):
    parent, child = parent_of_a_hanging_child(pictures[3], monkeypatch)
    assert is_running(child)
    parent.kill()
    parent.communicate()
    assert ends(child)


@posix
def test_an_interrupt_of_the_process_group_leaves_no_traceback(pictures, monkeypatch):
    parent, child = parent_of_a_hanging_child(pictures[3], monkeypatch)
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate()
    assert "decoder" not in said and "KeyboardInterrupt" not in said
    assert ends(child)
