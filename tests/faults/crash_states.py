"""What a power cut may leave, from a log of operations: a small model of files, names, and what was made durable.

All operations before the cut happened. Of those, data that no sync followed may be absent, cut at a block, or zeros; a
name that no sync of its folder followed may be as before. One of them at a time is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from camera_trap_al.store.atomic import Operation

BLOCK = 512
MOST_CUTS = 40
Names = dict[Path, "File | None"]
"""Every path that is there, with its file, or None for a folder."""


@dataclass(eq=False)
class File:
    """A file as the running system sees it, and as the disk holds it."""

    seen: bytes
    durable: bytes


@dataclass(frozen=True)
class Rename:
    """A change of names that no sync of its folder has followed: what was at its paths before."""

    name: str
    folder: Path
    before: tuple[tuple[Path, File | None, bool], ...]


@dataclass
class Disk:
    """Names and files at and below `root` after some operations."""

    root: Path
    names: Names
    pending: list[Rename] = field(default_factory=list)

    def apply(self, operation: Operation) -> None:
        """Let one operation happen."""
        path, source = operation.path, operation.source
        match operation.name:
            case "write":
                file = self._file(path)
                file.seen = file.seen[: operation.at] + operation.data + file.seen[operation.at + len(operation.data) :]
            case "sync":
                file = self._file(path)
                file.durable = file.seen
            case "cut":
                file = self._file(path)
                file.seen = file.seen[: operation.at]
            case "sync folder":
                self.pending = [change for change in self.pending if change.folder != path]
            case "open for appending":
                pass
            case "create":
                self._change(operation, {path: File(b"", b"")})
            case "make folder":
                self._change(operation, {path: None})
            case "remove" | "remove folder":
                self._change(operation, {}, gone=[path])
            case _:
                assert source is not None
                moved = [p for p in self.names if p == source or source in p.parents]
                self._change(operation, {path / p.relative_to(source): self.names[p] for p in moved}, gone=moved)

    def states(self) -> Iterator[tuple[str, dict[Path, bytes | None]]]:
        """Yield what may be there after a cut now, each with a word for what differs from what was seen."""
        seen = {path: file.seen if file else None for path, file in self.names.items()}
        yield "all kept", seen
        for path, file in self.names.items():
            if file is not None and file.seen != file.durable:
                for word, data in _torn(file):
                    yield f"{path.name} {word}", {**seen, path: data}
        for change in self.pending:
            yield f"{change.name} undone", self._undone(change)

    def _undone(self, change: Rename) -> dict[Path, bytes | None]:
        names = dict(self.names)
        for path, file, was_there in change.before:
            names.pop(path, None)
            if was_there:
                names[path] = file
        whole: dict[Path, bytes | None] = {}
        for path in sorted(names):
            # What was in a folder that is not there is not there either.
            if path == self.root or path.parent in whole:
                file = names[path]
                whole[path] = file.seen if file else None
        return whole

    def _change(self, operation: Operation, put: Names, gone: list[Path] | None = None) -> None:
        paths = [*put, *(gone or ())]
        before = tuple((path, self.names.get(path), path in self.names) for path in paths)
        for path in gone or ():
            self.names.pop(path, None)
        self.names.update(put)
        self.pending.append(Rename(f"{operation.name} {operation.path.name}", operation.path.parent, before))

    def _file(self, path: Path) -> File:
        file = self.names[path]
        assert file is not None
        return file


def _torn(file: File) -> Iterator[tuple[str, bytes]]:
    """Yield what may be on the disk of data that was not synced."""
    yield "absent", file.durable
    start = next(
        (i for i, (a, b) in enumerate(zip(file.seen, file.durable, strict=False)) if a != b),
        min(len(file.seen), len(file.durable)),
    )
    first = (start // BLOCK + 1) * BLOCK
    cuts = list(range(first, len(file.seen), BLOCK))
    for cut in cuts[:: max(1, -(-len(cuts) // MOST_CUTS))]:
        yield f"cut at {cut}", file.seen[:cut] if len(file.durable) <= cut else file.seen[:cut] + file.durable[cut:]
        yield f"zeros from {cut}", file.seen[:cut] + bytes(len(file.seen) - cut)
        hole = bytes(len(file.seen[cut : cut + BLOCK]))
        yield f"without the block at {cut}", file.seen[:cut] + hole + file.seen[cut + BLOCK :]
    yield "zeros", file.durable[:start] + bytes(max(0, len(file.seen) - start))
    if len(file.seen) - start > 2:
        half = (start + len(file.seen)) // 2
        yield "a beginning", file.seen[:half]
        yield "an end", file.seen[:start] + bytes(half - start) + file.seen[half:]
