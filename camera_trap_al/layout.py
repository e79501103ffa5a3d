"""Every path of a work folder, public or private, spelled only here."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

SELECTOR = "timelapse_selector.csv"
TEMPLATE = "TimelapseTemplate.tdb"
ANSWERS = (".receipt.json", ".report.txt")


@dataclass(frozen=True)
class WorkFolder:
    """The paths below a work folder.

    Parameters
    ----------
    root : the work folder itself, absolute
    state : where private files live; the work folder unless `state_dir` names a local disk
    """

    root: Path
    state: Path

    @classmethod
    def at(cls, root: Path, state_dir: str = "") -> WorkFolder:
        """Return the paths for a work folder; a relative `state_dir` is below it. Makes nothing."""
        root = root.absolute()
        return cls(root, root / state_dir if state_dir else root)

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def selector(self) -> Path:
        return self.root / SELECTOR

    @property
    def selector_new(self) -> Path:
        return self.root / "timelapse_selector.NEW.csv"

    @property
    def predictions(self) -> Path:
        return self.root / "timelapse_predictions.csv"

    @property
    def recognitions(self) -> Path:
        return self.root / "timelapse_recognitions.json"

    @property
    def counts(self) -> Path:
        return self.root / "counts.csv"

    @property
    def audit(self) -> Path:
        return self.root / "timelapse_audit.csv"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def bin(self) -> Path:
        return self.root / "new_labels_bin"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def request(self) -> Path:
        return self.data / "label_request.json"

    @property
    def labels(self) -> Path:
        return self.data / "labels.csv"

    @property
    def quarantine(self) -> Path:
        return self.data / "quarantine.csv"

    @property
    def conflicts(self) -> Path:
        return self.data / "conflicts.csv"

    @property
    def altered(self) -> Path:
        return self.data / "altered.csv"

    @property
    def detections(self) -> Path:
        return self.data / "detections.jsonl"

    @property
    def estimates(self) -> Path:
        return self.data / "estimates.json"

    @property
    def published(self) -> Path:
        return self.state / "data" / "published.npz"

    @property
    def reported(self) -> Path:
        return self.data / "reported.json"

    @property
    def notified(self) -> Path:
        return self.data / "notified.json"

    @property
    def test_results(self) -> Path:
        return self.root / "test_results"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def lease(self) -> Path:
        return self.root / "lease.json"

    @property
    def wishes(self) -> Path:
        return self.root / "wishes"

    @property
    def log(self) -> Path:
        return self.root / "log" / "camera-trap-al.log"

    @property
    def journal(self) -> Path:
        return self.state / "data" / "journal.jsonl"

    @property
    def catalog(self) -> Path:
        return self.state / "data" / "catalog.sqlite"

    @property
    def intake(self) -> Path:
        return self.state / "intake"

    @property
    def models(self) -> Path:
        return self.state / "models"

    @property
    def embedding(self) -> Path:
        return self.state / "embedding"

    @property
    def checkpoints(self) -> Path:
        return self.state / "checkpoints"

    @property
    def calibration(self) -> Path:
        return self.state / "calibration.json"

    @property
    def cache(self) -> Path:
        return self.state / "cache"

    @property
    def daemon_lock(self) -> Path:
        return self.state / "daemon.lock"

    @property
    def worker_lock(self) -> Path:
        return self.state / "worker.lock"

    @property
    def worker(self) -> Path:
        return self.state / "worker.json"

    def public_folders(self) -> list[Path]:
        """Return the folders that people look into; `init` makes them."""
        return [self.root, self.data, self.bin, self.test_results]

    def is_free(self) -> bool:
        """Return whether nothing lies where the program would write, in a folder that may hold other things.

        Empty folders, and what people put into the bin, do not count.
        """
        there = [path for path in self._ours if os.path.lexists(path)]
        return not any(not path.is_dir() or any(path.iterdir()) for path in there)

    def may_write(self, path: Path) -> bool:
        """Return whether the program writes at an absolute path: it is listed here, or lies in a folder listed here.

        The configuration and the label files in the bin belong to people; only answers are put beside those. Nothing is
        written through a link that was planted below the work folder.
        """
        if self._is_behind_link(path):
            return False
        if path.name.startswith(".") and path.name.endswith(".partial"):
            path = path.with_name(path.name[1 : -len(".partial")])
        if path.parent == self._normal_bin:
            return path.name.endswith(ANSWERS)
        return path in self._ours or not self._ours.isdisjoint(path.parents)

    @functools.cached_property
    def _ours(self) -> frozenset[Path]:
        listed = {getattr(self, name) for name, value in vars(WorkFolder).items() if isinstance(value, property)}
        ours = {*listed, *self.private_folders()} - {self.config, self.bin}
        return frozenset(Path(os.path.normpath(path)) for path in ours)

    @functools.cached_property
    def _normal_bin(self) -> Path:
        return Path(os.path.normpath(self.bin))

    def _is_behind_link(self, path: Path) -> bool:
        base = next((base for base in self._bases if path.parent.is_relative_to(base)), None)
        if base is None:
            return False
        below = path.parent.relative_to(base)
        return os.path.realpath(path.parent) != os.path.normpath(os.path.realpath(base) / below)

    @functools.cached_property
    def _bases(self) -> tuple[Path, Path]:
        return Path(os.path.normpath(self.state)), Path(os.path.normpath(self.root))

    def private_folders(self) -> list[Path]:
        """Return the folders that `state_dir` moves; `run` makes them."""
        return [self.journal.parent, self.intake, self.models, self.embedding, self.checkpoints]
