"""Every folder that a power cut may leave opens again, with all that was acknowledged, and goes on."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import scenario
from crash_states import Disk, File
from kit import fast_folder
from sweeps import METHOD, Sweep

from camera_trap_al.store.atomic import Operation

pytestmark = pytest.mark.faults

# At least so many different folders of each stage. A classifier of one layer is a small file, torn in few places.
LEAST = {0: 350, 1: 100, 2: 500, 3: 200, 4: 400}
PLAY_ON_EVERY = 25
IN_PLACE = ("journal.jsonl", "catalog.sqlite")


class PowerCuts:
    """The power cuts of one stage: its log, and the folders that they leave."""

    def __init__(self, sweep: Sweep, store: Path) -> None:
        self.sweep, self.store = sweep, store
        self.log: list[Operation] = []
        self.catalogues: list[bytes] = []
        self._seen: set[str] = set()
        self._kept: dict[int, tuple[bytes, Path]] = {}
        store.mkdir()

    def record(self) -> None:
        """Play the stage; the catalogue, whose database does its own syncs, is copied as it is."""

        catalogue = self.sweep.folder.catalog

        def note(operation: Operation) -> None:
            self.catalogues.append(catalogue.read_bytes() if catalogue.exists() else b"")

        self.sweep.play_watched(note)
        self.log = self.sweep.operations

    def replay(self) -> None:
        """Open each folder that a cut before each operation may leave."""
        self.sweep.restore(self.sweep.begin)
        work = self.sweep.work
        names = {p: None if p.is_dir() else File(p.read_bytes(), p.read_bytes()) for p in work.rglob("*")}
        disk = Disk(work, {work: None, **names})
        catalogue = self.sweep.folder.catalog
        for n, operation in enumerate(self.log):
            for word, content in disk.states():
                if self.catalogues[n] and catalogue.parent in content:
                    content[catalogue] = self.catalogues[n]
                self._try(f"cut before {n + 1}, {operation.name} {operation.path.name}: {word}", content)
            disk.apply(operation)

    def _try(self, where: str, content: dict[Path, bytes | None]) -> None:
        digest = self._digest(content)
        if digest in self._seen:
            return
        self._seen.add(digest)
        counts = self.sweep.counts
        counts["states"] += 1
        self._build(content)
        self.sweep.forget()
        if self.sweep.recover(where) is not None and counts["states"] % PLAY_ON_EVERY == 0:
            counts["played on"] += 1
            self.sweep.finish(where)
        if counts["states"] % 50 == 0:
            gc.collect()

    def _digest(self, content: dict[Path, bytes | None]) -> str:
        digest = hashlib.sha256()
        for path in sorted(content):
            data = content[path]
            digest.update(f"{path} {'folder' if data is None else self._stored(data).name}\n".encode())
        return digest.hexdigest()

    def _stored(self, data: bytes) -> Path:
        if id(data) not in self._kept:
            path = self.store / hashlib.sha256(data).hexdigest()
            if not path.exists():
                path.write_bytes(data)
            # The data is kept, so that its id stays its own.
            self._kept[id(data)] = (data, path)
        return self._kept[id(data)][1]

    def _build(self, content: dict[Path, bytes | None]) -> None:
        scenario.remove_tree(self.sweep.work)
        for path in sorted(content):
            data = content[path]
            if data is None:
                path.mkdir()
            elif path.name.startswith(IN_PLACE) or path.parent.name == "new_labels_bin":
                path.write_bytes(data)
            else:
                os.link(self._stored(data), path)
            if path.suffix == ".csv" and path.parent.name == "new_labels_bin":
                scenario.set_time(path)


def _cut(base: Path, stage: int, answer: Path) -> None:
    """Be the child process: replay the power cuts of one stage, write what was found to `answer`."""
    scenario.quicken()
    logging.disable(logging.CRITICAL)
    cuts = PowerCuts(Sweep(base, stage), base / "store")
    cuts.record()
    gc.freeze()
    gc.disable()
    cuts.replay()
    found = {"counts": cuts.sweep.counts, "problems": cuts.sweep.problems, "operations": len(cuts.log)}
    answer.write_text(json.dumps(found), encoding="utf-8")


@pytest.mark.parametrize("stage", sorted(LEAST, reverse=True))
def test_a_power_cut_leaves_a_folder_that_opens_with_every_acknowledged_label(
    stage: int, tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    answer = tmp_path / "answer.json"
    with fast_folder(tmp_path) as base:
        child = multiprocessing.get_context(METHOD).Process(target=_cut, args=(base, stage, answer))
        child.start()
        child.join()
    assert child.exitcode == 0, f"the replay of stage {stage} ended with {child.exitcode}"
    found = json.loads(answer.read_text(encoding="utf-8"))
    counts = Counter(found["counts"])
    figure(
        f"crash states, stage {stage}",
        f"{found['operations']} operations, {counts['states']} states, {counts['played on']} played on,"
        f" {len(found['problems'])} violations",
    )
    assert not found["problems"], f"{len(found['problems'])} problems:\n" + "\n".join(found["problems"][:5])
    assert counts["states"] >= LEAST[stage]
