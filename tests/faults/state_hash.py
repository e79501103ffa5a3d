"""What a work folder says, without times and identities: equal after a crash and without one."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from camera_trap_al.layout import WorkFolder
from camera_trap_al.store import generations, shards
from camera_trap_al.store.journal import Line, read_journal

TIMES = frozenset({"at", "time", "identity", "crc32", "placed_at"})
NOT_HASHED_COLUMNS = {"images": {"problem_since", "altered_since", "seen", "away_s", "missed"}}
FACTS_OF_ONE_RUN = frozenset({"identity", "catalog_id", "scan_ended", "scans", "pool_version", "scan"})


def state_of(folder: WorkFolder) -> dict[str, str]:
    """Return the parts of the state by name, each as text: journal, catalogue, results and what is shown."""
    lines, _, _ = read_journal(folder.journal)
    return {
        "journal": _text([_timeless(line) for line in lines]),
        "catalogue": _catalogue(folder.catalog),
        "models": _text(_models(folder)),
        "vectors": _text(_vectors(folder)),
        "checkpoint": _text(_newest_checkpoint(folder)),
        **{path.name: _content(path) for path in (folder.selector, folder.labels, folder.predictions)},
        **{path.name: _text(_json(path)) for path in (folder.request, folder.reported)},
        "metrics": _text({p.parent.name: _json(p) for p in folder.test_results.glob("*/metrics.json")}),
        "export": _text([_export(folder.export / "manifest.json"), _json(folder.export / "check.json")]),
        "answers": _text({p.name: _answer(p) for p in sorted(folder.bin.glob("*.receipt.json"))}),
    }


def acknowledged(folder: WorkFolder) -> list[tuple[str, int, str, str]]:
    """Return what receipts say was taken: (file, seq of the journal line, path of the image, species)."""
    found = []
    for path in folder.bin.glob("*.receipt.json"):
        receipt = json.loads(path.read_text(encoding="utf-8"))
        for row in receipt.get("accepted", ()):
            found.append((receipt["file"], receipt["seq"], row["path"], row["label"]))
    return found


def lost(told: list[tuple[str, int, str, str]], lines: list[Line]) -> list[tuple[str, int, str, str]]:
    """Return what was acknowledged and is in no journal line of that number."""
    there = {
        (line["name"], line["seq"], f"{place}/{file}" if place else file, species)
        for line in lines
        if line["kind"] == "labels"
        for place, file, species, _ in line["rows"]
    }
    return [label for label in told if label not in there]


def difference(wanted: dict[str, str], got: dict[str, str]) -> str:
    """Return where two states differ, "" where they do not."""
    said = []
    for name in wanted:
        if wanted[name] != got[name]:
            a, b = wanted[name], got[name]
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            said.append(f"{name} at {at}:\n  {a[max(0, at - 150) : at + 150]}\n  {b[max(0, at - 150) : at + 150]}")
    return "\n".join(said)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _json(path: Path) -> Any:
    return _timeless(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _export(manifest: Path) -> Any:
    facts = _json(manifest)
    # It says when the classifier was fitted.
    if facts is not None:
        facts["files"].pop("model_card.md", None)
    return facts


def _answer(path: Path) -> Any:
    # How often a file was answered, and what was awaited then, depends on when.
    return {k: v for k, v in _json(path).items() if k != "requested_left"}


def _content(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _catalogue(path: Path) -> str:
    parts: dict[str, Any] = {}
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        for (table,) in sorted(database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")):
            cursor = database.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            kept = [i for i, name in enumerate(names) if name not in NOT_HASHED_COLUMNS.get(table, ())]
            rows = [[row[i] for i in kept] for row in cursor]
            if table == "meta":
                rows = [row for row in rows if row[0] not in FACTS_OF_ONE_RUN]
            parts[table] = sorted(rows, key=repr)
    return _text(parts)


def _models(folder: WorkFolder) -> list[Any]:
    found = []
    for number in generations.numbers(folder.models):
        manifest = generations.read_manifest(generations.folder_of(folder.models, number)) or {}
        files = {name: noted["sha256"] for name, noted in manifest.get("files", {}).items()}
        found.append([number, manifest.get("parent"), manifest.get("trained"), manifest.get("n_labels"), files])
    return found


def _vectors(folder: WorkFolder) -> list[Any]:
    found = []
    for number in generations.numbers(folder.embedding):
        place = generations.folder_of(folder.embedding, number)
        rows: dict[int, str] = {}
        for name in shards.shard_names(place):
            vectors = np.load(place / f"{name}.npy", allow_pickle=False)
            for row, vector in zip(shards.read_shard_facts(place, name).rows.tolist(), vectors, strict=True):
                rows[row] = hashlib.sha256(vector.tobytes()).hexdigest()[:8]
        found.append([number, (generations.read_manifest(place) or {}).get("kept_back"), sorted(rows.items())])
    return found


def _newest_checkpoint(folder: WorkFolder) -> Any:
    newest = generations.newest(folder.checkpoints)
    if newest is None:
        return None
    facts = {name: newest.manifest[name] for name in ("learner", "n_labels", "journal", "classes")}
    return [newest.number, facts, newest.manifest["files"]["classifier.safetensors"]["sha256"]]
