"""Signals become events at once, whatever the main thread does, and what heeds nothing is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from camera_trap_al_service.stopping import Stopping

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that only one process gets")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_sets_the_events_and_calls_who_wants_to_know(name: str) -> None:
    before = signal.getsignal(getattr(signal, name))
    stopping, told = Stopping(), threading.Event()
    stopping.also.append(told.set)
    stopping.listen()
    try:
        assert not stopping.stop.is_set()
        os.kill(os.getpid(), getattr(signal, name))
        os.kill(os.getpid(), getattr(signal, name))
        assert stopping.stop.wait(10) and stopping.wake.wait(10) and told.wait(10)
    finally:
        stopping.close()
    assert signal.getsignal(getattr(signal, name)) == before


def test_what_heeds_nothing_is_ended_with_status_0() -> None:
    code = """
import os, signal, sys
sys.path.insert(0, "tests"); import conftest
from camera_trap_al_service import stopping
stopping.END_S = 0.2
told = stopping.Stopping()
told.at_last = lambda: print("at last", flush=True)
told.listen()
os.kill(os.getpid(), signal.SIGTERM)
while True: pass
"""
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert child.returncode == 0 and child.stdout == "at last\n", child.stderr


def test_a_program_that_ended_in_time_is_not_ended_again() -> None:
    stopping = Stopping()
    stopping.listen()
    stopping.close()
    stopping.close()
    stopping.tell()
    assert stopping.stop.is_set()


@pytest.mark.slow
def test_a_program_that_heeded_the_signal_is_not_ended() -> None:
    code = """
import os, signal, sys, threading
sys.path.insert(0, "tests"); import conftest
from camera_trap_al_service import stopping
told = stopping.Stopping()
told.listen()
os.kill(os.getpid(), signal.SIGTERM)
told.stop.wait()
(last_resort,) = [thread for thread in threading.enumerate() if thread.name == "last resort"]
told.close()
last_resort.join()
print("went on")
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout == "went on\n", run.stderr
