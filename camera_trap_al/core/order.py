"""The order in which images are looked at when not all can be at once: each folder takes part in proportion to its size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.acquisition import HashArray, key_priority

ORDER_SEED = "first rows"
"""What the seed of the order is made from, beside the work folder's identity."""


def stratified_order(key_hashes: HashArray, folders: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.intp]:
    """Return the places of all images in a random order whose every beginning holds each folder by its share.

    Within a folder of s images the order is random; its i-th image gets the number (i + u) / s, with u in [0, 1) drawn
    for each folder, and these numbers are sorted: systematic sampling with a random start, for each stratum.

    Parameters
    ----------
    key_hashes : (n,) uint64 of image keys
    folders : (n,) int64 >= 0, which folder each image lies in; only which are alike counts
    seed : of the order, which does not depend on the order of the arguments

    Returns
    -------
    (n,) places: the first m of them hold a folder of s images about m * s / n times; one image of many folders of one
    image each counts as the share of all of these

    Source: Cochran 1977, "Sampling techniques", chapters 5 and 8.
    """
    priority = key_priority(key_hashes, seed)
    within = np.lexsort((key_hashes, priority, folders))
    sizes = np.bincount(folders)
    sizes = sizes[sizes > 0]
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(len(within)) - np.repeat(starts, sizes)
    least = np.minimum.reduceat(key_hashes[within], starts) if len(within) else key_hashes
    begin = key_priority(least, seed + 1) / 2.0**64
    number = (rank + np.repeat(begin, sizes)) / np.repeat(sizes, sizes)
    order: npt.NDArray[np.intp] = within[np.lexsort((priority[within], number))]
    return order
