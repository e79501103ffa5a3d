"""Which images go into which training batch of an epoch: the single and the balanced loader. No torch."""

from __future__ import annotations

import numpy as np

# Distinguishes these draws from others that are seeded with the same numbers.
_STREAM = 0xBA7C


def single_batches(labels: np.ndarray, batch_size: int = 128, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Shuffle all images and cut them into batches of nearly equal size.

    Parameters
    ----------
    labels : (n,) int array, n >= 1
    batch_size : the largest batch, >= 2
    seed, epoch : same numbers, same batches

    Returns
    -------
    Arrays of indices into `labels`, together each index once; but in a batch that would be of one class, the last
    image is replaced by one of another class, if there is any (else it could teach nothing).
    """
    rng = np.random.default_rng([_STREAM, seed, epoch])
    order = rng.permutation(len(labels))
    batches = np.array_split(order, max(1, -(-len(order) // batch_size)))
    return [_with_two_classes(batch, labels, rng) for batch in batches]


def _with_two_classes(batch: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    only = labels[batch[0]]
    if np.any(labels[batch] != only):
        return batch
    others = np.flatnonzero(labels != only)
    if len(others) == 0 or len(batch) < 2:
        return batch
    return np.append(batch[:-1], rng.choice(others))


def balanced_batches(
    labels: np.ndarray, n_classes: int = 20, n_samples: int = 10, *, seed: int, epoch: int
) -> list[np.ndarray]:
    """Fill each batch with equally many images of several classes drawn at random.

    Parameters
    ----------
    labels : (n,) int array, n >= 1
    n_classes : classes in a batch; capped at those there are, and at least two where there are two
    n_samples : images of each; a class that has fewer gives all of them and some again, as evenly as can be
    seed, epoch : same numbers, same batches

    Returns
    -------
    max(1, n // (classes × samples)) arrays of classes × samples indices, shuffled, so that any part of a batch holds
    several classes.
    """
    rng = np.random.default_rng([_STREAM + 1, seed, epoch])
    present = np.unique(labels)
    n_classes = min(len(present), max(2, n_classes))
    decks = {label: _Deck(np.flatnonzero(labels == label), rng) for label in present.tolist()}
    batches = []
    for _ in range(max(1, len(labels) // (n_classes * n_samples))):
        chosen = rng.choice(present, n_classes, replace=False)
        batch = np.concatenate([decks[label].draw(n_samples) for label in chosen.tolist()])
        batches.append(rng.permutation(batch))
    return batches


class _Deck:
    """The images of one class, dealt in shuffled order and shuffled anew when too few are left."""

    def __init__(self, images: np.ndarray, rng: np.random.Generator) -> None:
        self._images = images
        self._rng = rng
        self._left = rng.permutation(images)

    def draw(self, n: int) -> np.ndarray:
        """Return n images; none twice, unless the class has fewer than n."""
        if len(self._images) < n:
            shuffles = [self._rng.permutation(self._images) for _ in range(-(-n // len(self._images)))]
            return np.concatenate(shuffles)[:n]
        if len(self._left) < n:
            self._left = self._rng.permutation(self._images)
        drawn, self._left = self._left[:n], self._left[n:]
        return drawn
