"""Any sequence of label files, undos, kills, clock steps and lost shares, against a reference model of the labels."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kit
import numpy as np
import pytest
import scenario
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from label_model import DELETE, UNSURE, WORDS, Effects, Model, Row

from camera_trap_al import rounds, wishes
from camera_trap_al.catalog import catalog
from camera_trap_al.core.history import History
from camera_trap_al.core.steps import JOBS
from camera_trap_al.engine import Decoded
from camera_trap_al.granting import Wish
from camera_trap_al.loop import Loop, Rests
from camera_trap_al.store import atomic
from camera_trap_al.work import Work

pytestmark = pytest.mark.faults

IMAGES, BATCH = 24, 5
SEQUENCES, STEPS = 80, 36
MOST_TURNS = 400
TIMES = st.sampled_from([0, 1_000_000_000, 4_102_444_800, None])
"""When a file says that it was written: in 1970, 2001, 2100, now (seconds)."""
WORD = st.one_of(st.sampled_from(kit.SPECIES), st.sampled_from(kit.SPECIES), st.sampled_from(WORDS))
ROWS = st.lists(st.tuples(st.integers(0, IMAGES - 1), st.booleans(), WORD), min_size=1, max_size=8)


class Killed(BaseException):
    """The process ends here."""


class Reads:
    """Stands in for the decoders: an image that is there can be read."""

    def read(self, path: Path, **_: Any) -> Decoded:
        Path(path).stat()
        return Decoded(np.zeros((1, 1, 3), np.uint8), "")


class Tally:
    """How much was tried in one test."""

    def __init__(self) -> None:
        self.sequences = self.steps = self.kills = self.files = self.undos = 0


class Season(RuleBasedStateMachine):
    """A work folder whose daemon lives in this process; `at` holds a scanned copy of it to begin with."""

    template: Path
    at: Path
    tally: Tally

    @initialize()
    def begin(self) -> None:
        shutil.rmtree(self.at, ignore_errors=True)
        shutil.copytree(self.template, self.at)
        self.tally.sequences += 1
        self.begin_anew()

    def begin_anew(self) -> None:
        self.model, self.read_lines = Model(), 0
        self.bin: dict[str, list[Row]] = {}
        self.pending: dict[str, list[Row]] = {}
        self.dropped = 0
        self.is_online = True
        self.clock = contextlib.ExitStack()
        pool = self.at / "pool"
        self.pool = {path.relative_to(pool).as_posix() for path in pool.rglob("*.JPG")}
        self.open()
        self.settle()

    def teardown(self) -> None:
        if hasattr(self, "work"):
            self.clock.close()
            self.work.close()

    def open(self) -> None:
        self.work = Work.open(self.at / "work")
        self.loop = Loop(self.work)
        self.rest_jobs()
        history = History.of(self.work.journal.lines)
        assert (history.labels, history.skips) == (self.work.history.labels, self.work.history.skips)

    def rest_jobs(self) -> None:
        """Let every job rest, so that no network is needed."""
        self.loop.rests = Rests()
        self.loop.rests.until |= {job.name: float("inf") for job in JOBS}

    def turn(self) -> bool:
        """Take one turn; return whether anything was due."""
        facts, step = self.loop.look()
        if step.name == "WAITING":
            return False
        self.loop.take(facts, step)
        return True

    def settle(self) -> None:
        """Take turns until nothing is due, then compare everything."""
        assert any(not self.turn() for _ in range(MOST_TURNS)), "it never comes to rest"
        self.follow()
        self.compare()

    def follow(self) -> None:
        """Tell the model what the journal says has happened, which must be what could happen."""
        for line in self.work.journal.lines[self.read_lines :]:
            match line["kind"]:
                case "labels":
                    rows = self.pending.pop(line["name"])
                    done = self.model.effects(rows)
                    assert self.effects_of(line) == done, (rows, line)
                    self.model.take(line["seq"], rows)
                case "request":
                    self.model.ask(line, self.pool, BATCH)
                case "undo":
                    self.model.undo(line["seq"], line["withdraws"])
                case "close":
                    assert line["round"] == self.model.open_round()
                    self.model.closed.add(line["round"])
                case kind:
                    assert kind in ("open", "config", "classes"), kind
        self.read_lines = self.work.journal.end

    @staticmethod
    def effects_of(line: dict[str, Any]) -> Effects:
        labels = {f"{folder}/{name}".lstrip("/"): species for folder, name, species, _ in line["rows"]}
        skips = {f"{folder}/{name}".lstrip("/") for folder, name, _ in line["skips"]}
        return Effects(labels, skips, {f"{folder}/{name}".lstrip("/") for folder, name in line["unlabels"]}, True)

    def compare(self) -> None:
        """Compare what everybody can see with the model."""
        model, work = self.model, self.at / "work"
        expected = {path: model.labels.get(path, "unlabelled") for path in self.pool}
        assert kit.labels_csv(work) == expected
        assert {key.path for key in self.work.history.skips} == model.skips
        if self.is_online:
            request = json.loads((work / "data" / "label_request.json").read_text(encoding="utf-8"))
            assert request["round"] == (model.open_round() or "finished")
            assert set(request["images"]) == set(model.requests[request["round"]] if model.open_round() else ())
        withdrawn = model.withdrawn()
        for name in self.bin:
            receipt = kit.receipt(work, name)
            assert receipt["mtime_ns"] == (work / "new_labels_bin" / name).stat().st_mtime_ns, "an older receipt"
            undone = [remark for remark in receipt.get("remarks", ()) if remark["what"] == "undone"]
            assert bool(undone) == (receipt["seq"] in withdrawn)
        for name in self.pending:
            assert kit.receipt(work, name)["seq"] is None, "a file with a number is not in the journal"
        self.pending.clear()

    def put(self, name: str, rows: list[Row], seconds: int | None) -> None:
        text = "File,RelativePath,Species,DeleteFlag,Note\r\n"
        for path, word in rows:
            folder, _, file = path.rpartition("/")
            species = "" if word == DELETE else word
            text += f"{file},{folder},{species},{'true' if word == DELETE else 'false'},{self.dropped}\r\n"
        path = self.at / "work" / "new_labels_bin" / name
        path.write_bytes(text.encode("utf-8"))
        if seconds is not None:
            os.utime(path, ns=(seconds * 10**9 + self.dropped,) * 2)
        self.dropped += 1
        self.tally.files += 1
        self.bin[name] = self.pending[name] = rows

    def images(self, drawn: list[tuple[int, bool, str]]) -> list[Row]:
        """Return rows of images, those of the newest request where that is wished."""
        newest = sorted(self.model.requests.get(len(self.model.requests), ()))
        pool = sorted(self.pool)
        return [((newest if wished and newest else pool)[n % len(newest or pool)], word) for n, wished, word in drawn]

    @rule(drawn=ROWS, seconds=TIMES)
    def drop(self, drawn: list[tuple[int, bool, str]], seconds: int | None) -> None:
        self.put(f"{self.dropped}.csv", self.images(drawn), seconds)

    @rule(species=st.sampled_from([*kit.SPECIES, UNSURE]), seconds=TIMES)
    def label_the_round(self, species: str, seconds: int | None) -> None:
        keys = self.model.requests.get(self.model.open_round(), ())
        if keys:
            self.put(f"{self.dropped}.csv", [(path, species) for path in keys], seconds)

    @precondition(lambda self: self.bin)
    @rule(n=st.integers(0, 99), drawn=ROWS, seconds=TIMES)
    def drop_another_of_the_same_name(self, n: int, drawn: list[tuple[int, bool, str]], seconds: int | None) -> None:
        self.put(sorted(self.bin)[n % len(self.bin)], self.images(drawn), seconds)

    @precondition(lambda self: self.bin)
    @rule(n=st.integers(0, 99))
    def save_one_again(self, n: int) -> None:
        self.settle()
        name = sorted(self.bin)[n % len(self.bin)]
        path = self.at / "work" / "new_labels_bin" / name
        os.utime(path, ns=(path.stat().st_mtime_ns + 10**9,) * 2)
        self.pending[name] = self.bin[name]

    @precondition(lambda self: self.bin)
    @rule(n=st.integers(0, 99))
    def remove_one(self, n: int) -> None:
        name = sorted(self.bin)[n % len(self.bin)]
        (self.at / "work" / "new_labels_bin" / name).unlink()
        del self.bin[name]
        self.follow()
        self.pending.pop(name, None)

    @precondition(lambda self: self.model.files)
    @rule(n=st.integers(0, 99))
    def undo(self, n: int) -> None:
        self.wish_undo(sorted(self.model.files)[n % len(self.model.files)])

    @precondition(lambda self: self.model.undos)
    @rule(n=st.integers(0, 99))
    def undo_an_undo(self, n: int) -> None:
        self.wish_undo(sorted(self.model.undos)[n % len(self.model.undos)])

    def wish_undo(self, number: int) -> None:
        self.follow()
        is_gone = number in self.model.withdrawn()
        assert self.wish("undo", seq=number) != is_gone
        self.tally.undos += not is_gone

    @rule()
    def next(self) -> None:
        self.follow()
        is_open = self.model.open_round() > 0
        assert self.wish("next") == is_open

    def wish(self, what: str, **arguments: Any) -> bool:
        """Have a wish carried out twice over, which must come to the same; return whether it was granted."""
        wish = Wish(uuid.uuid4().hex, what, arguments)
        answer = wishes.carry_out(self.work, wish)
        self.follow()
        if answer.is_granted:
            end = self.work.journal.end
            assert wishes.carry_out(self.work, wish).is_granted and self.work.journal.end == end
        return answer.is_granted

    @rule(n=st.integers(1, 9))
    def run(self, n: int) -> None:
        for _ in range(n):
            self.turn()
        self.follow()

    @rule()
    def come_to_rest(self) -> None:
        self.settle()

    @rule()
    def restart(self) -> None:
        self.work.close()
        self.open()

    @rule(n=st.integers(1, 60))
    def kill(self, n: int) -> None:
        """Kill the daemon at its n-th durable operation from now on, or when it comes to rest; start again."""
        points = atomic.failpoints
        points.mode, points.exception, points.fail_at = "raise", Killed(), points.count + n
        try:
            with contextlib.suppress(Killed):
                while self.turn():
                    pass
                raise Killed
        finally:
            points.fail_at = 0
        self.work.close()
        self.open()
        self.follow()
        self.tally.kills += 1

    @rule(days=st.sampled_from([-3650, -1, 1, 3650]))
    def step_the_clock(self, days: int) -> None:
        now, now_ns = time.time, time.time_ns
        patch = pytest.MonkeyPatch()
        patch.setattr(time, "time", lambda: now() + days * 86_400)
        patch.setattr(time, "time_ns", lambda: now_ns() + days * 86_400 * 10**9)
        self.clock.callback(patch.undo)

    @precondition(lambda self: self.is_online)
    @rule()
    def lose_the_share(self) -> None:
        (self.at / "pool").rename(self.at / "pool away")
        self.is_online = False

    @precondition(lambda self: not self.is_online)
    @rule()
    def find_the_share(self) -> None:
        (self.at / "pool away").rename(self.at / "pool")
        self.is_online = True
        self.rest_jobs()

    @invariant()
    def count_steps(self) -> None:
        self.tally.steps += 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is synced and nothing decoded, since only what is written is looked at."""
    monkeypatch.setattr(atomic, "sync", lambda descriptor: None)
    monkeypatch.setattr(atomic, "_sync_names", lambda path: None)
    monkeypatch.setattr(catalog, "create_engine", scenario.quick_engine)
    monkeypatch.setattr(rounds, "shared", lambda limits, processes: Reads())
    yield
    atomic.failpoints.fail_at, atomic.failpoints.exception = 0, None


@pytest.fixture
def scanned(tmp_path: Path, quick: None) -> Iterator[Path]:
    """A folder that holds `template`, a season whose first round is open, made in `at`, where copies of it are tried."""
    options = {"query__batch": BATCH, "query__strategy": "uniform", "labels__unlabel_token": "__unlabel__"}
    with kit.fast_folder(tmp_path) as root:
        season = Season()
        season.at, season.tally = root / "at", Tally()
        kit.make_season(season.at, IMAGES, **options)
        try:
            season.begin_anew()
        finally:
            season.work.close()
        shutil.copytree(season.at, root / "template")
        yield root


@pytest.mark.parametrize("number", range(4))
def test_any_sequence_ends_as_the_model_says(
    number: int, long: int, scanned: Path, figure: Callable[[str, str], None]
) -> None:
    class Here(Season):
        pass

    Here.template, Here.at, Here.tally = scanned / "template", scanned / "at", Tally()
    machine = seed(number)(Here)
    checks = list(HealthCheck)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=SEQUENCES * long,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=checks,
        ),
    )
    t = Here.tally
    text = f"{t.sequences} sequences, {t.steps} steps, {t.kills} kills, {t.files} label files, {t.undos} undos, 0 differences"
    figure(f"model {number}", text)
    assert t.sequences >= SEQUENCES * long
