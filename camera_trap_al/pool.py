"""The askable rows as a query strategy sees them: vectors read and classified a shard at a time, on a few threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from camera_trap_al.engine import usable_cores
from camera_trap_al.errors import StopRequested
from camera_trap_al.learn.classifier import Classifier, one_thread
from camera_trap_al.learn.pace import fixed_threads
from camera_trap_al.store.embeddings import Places, Vectors
from camera_trap_al.store.shards import SHARD_ROWS, FloatArray
from camera_trap_al.strategies import LabelledBlock, PoolBlock, check_numbers

MOST_THREADS = 4
T = TypeVar("T")


@dataclass(frozen=True)
class WorkPool:
    """The askable rows as a query strategy sees them.

    Parameters
    ----------
    rows, key_hashes : (n,) int64 and (n,) uint64, of rows that `vectors` has
    vectors, classifier : None before the first learner, and before the first checkpoint
    labelled : gives the rows that have a label, in the order of their key hashes, and their species
    stop : whether the program is to end; looked at between blocks, and by strategies that compute for long
    """

    rows: npt.NDArray[np.int64]
    key_hashes: npt.NDArray[np.uint64]
    vectors: Vectors | None
    classifier: Classifier | None
    labelled: Callable[[], tuple[npt.NDArray[np.int64], Sequence[str]]]
    stop: Callable[[], bool] = lambda: False

    @property
    def classes(self) -> Sequence[str]:
        """The classes, in the order of the columns of `proba`."""
        return self.classifier.classes if self.classifier else ()

    def only(self, which: npt.NDArray[np.bool_]) -> WorkPool:
        """Return the pool of some of its rows."""
        return replace(self, rows=self.rows[which], key_hashes=self.key_hashes[which])

    def tick(self) -> None:
        """Raise `StopRequested` where the program is to end."""
        if self.stop():
            raise StopRequested

    def unlabelled_blocks(self) -> Iterator[PoolBlock]:
        """Yield the askable rows a shard at a time, in the order of the shards. Raises `StopRequested`."""
        vectors, classifier = self.vectors, self.classifier
        if vectors is None:
            nothing = np.zeros((len(self.rows), 0), dtype=np.float32)
            yield PoolBlock(self.rows, self.key_hashes, nothing, nothing)
            return

        def classified(places: Places, load: Callable[[], FloatArray]) -> PoolBlock:
            embeddings = load()
            nothing = np.zeros((len(embeddings), 0), dtype=np.float32)
            proba = classifier.predict_proba(embeddings) if classifier else nothing
            return PoolBlock(self.rows[places], self.key_hashes[places], proba, embeddings)

        with one_thread():
            for block in ahead(classified, vectors.pieces(self.rows)):
                self.tick()
                yield block

    def labelled_blocks(self) -> Iterator[LabelledBlock]:
        """Yield the labelled rows that have a vector, in the order of their key hashes, a block at a time.

        Raises `StopRequested`.
        """
        if self.vectors is None:
            return
        rows, species = self.labelled()
        place = {name: i for i, name in enumerate(self.classes)}
        labels = np.array([place.get(name, -1) for name in species], dtype=np.int64)
        usable = self.vectors.usable(rows)
        rows, labels = rows[usable], labels[usable]
        for start in range(0, len(rows), SHARD_ROWS):
            self.tick()
            here = slice(start, start + SHARD_ROWS)
            embeddings = self.vectors.read(rows[here])
            check_numbers(rows[here], embeddings)
            yield LabelledBlock(embeddings, labels[here])


def ahead(call: Callable[..., T], tasks: Iterable[tuple[object, ...]]) -> Iterator[T]:
    """Yield what `call` returns for each task, in their order, while threads work on the next few.

    One thread a core, or as many as `OMP_NUM_THREADS` says, and at most four. They run beside each other as long as `call`
    spends its time in numpy.
    """
    n_threads = min(fixed_threads() or usable_cores(), MOST_THREADS)
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="pool") as threads:
        try:
            for task in tasks:
                waiting.append(threads.submit(call, *task))
                if len(waiting) > n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
