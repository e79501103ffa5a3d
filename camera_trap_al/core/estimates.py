"""How good the classifier is on the images that have no label, told by the images that were drawn at random.

What a query strategy chooses is no sample of anything; the random share of each request is. How wrong the classifier's
confidence was on it corrects what the classifier says of all images now.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camera_trap_al.core.history import History
from camera_trap_al.core.matching import folded
from camera_trap_al.core.records import ImageKey

FEWEST_JUDGED = 10
"""With fewer images drawn at random and labelled since, nothing is said."""
# Nobody is surer of an image than this; so few surprises among few images do not make an interval narrow.
LEAST_DOUBT = 0.02
# So many images' worth of belief that confidences are right as they stand, when their spread is estimated.
BELIEF = 10.0
# Standard deviations: of how far confidence and accuracy are apart before anything is known, and of how far that moves
# from one request to the next, each with its probability.
FIRST_GAP = 0.2
DRIFTS, OF_DRIFTS = (0.0, 0.01, 0.02, 0.05), (0.4, 0.4, 0.15, 0.05)
NORMAL_975 = 1.959964

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Share:
    """The images of one request that were drawn at random, of which something was predicted, and that a person answered since.

    Parameters
    ----------
    checkpoint, n_labels : what predicted, and how many labels it knew
    confidence : (n,) probability in [0, 1] of what was predicted, n >= 1
    is_right : (n,) whether the label says the same
    """

    checkpoint: int
    n_labels: int
    confidence: FloatArray
    is_right: BoolArray


@dataclass(frozen=True)
class Accuracy:
    """The accuracy on images without a label, a fraction, with its 95 % interval.

    `error` is the standard error of `value`; `n_judged` the number of images that it was told by.
    """

    value: float
    low: float
    high: float
    error: float
    n_judged: int


def random_shares(history: History, n_others: int = 0) -> list[Share]:
    """Return the random share of each request, the oldest first; requests that tell nothing are left out.

    Images without an answer, and those that a person could not tell, are left out; a name that is no class yet counts as a
    species of its own. Of an image that was drawn twice the last prediction counts. `n_others` is the number of labels that
    no journal line gave: those of the training folder.
    """
    seqs = np.sort(np.array([label.seq for label in history.labels.values()], dtype=np.int64))
    found, seen = list[Share](), set[ImageKey]()
    for request in reversed(history.requests):
        if not request.checkpoint:
            continue
        drawn = [
            key for key in request.keys if key in request.random and key in request.predictions and key not in seen
        ]
        drawn = [key for key in drawn if _said(history, key)]
        if not drawn:
            continue
        seen.update(drawn)
        predicted = [request.predictions[key] for key in drawn]
        is_right = [p.species == _said(history, key) for key, p in zip(drawn, predicted, strict=True)]
        n_labels = n_others + int(np.searchsorted(seqs, request.seq))
        found.append(
            Share(request.checkpoint, n_labels, np.array([p.confidence for p in predicted]), np.array(is_right))
        )
    return found[::-1]


def drawn_species(history: History) -> tuple[Counter[str], set[str]]:
    """Return how often each species was found among all images drawn at random, and the species of all other labels."""
    drawn = {key for request in history.requests for key in request.random}
    counts, elsewhere = Counter[str](), set[str]()
    for key in itertools.chain(history.labels, history.waiting):
        if key in drawn:
            counts[_said(history, key)] += 1
        else:
            elsewhere.add(_said(history, key))
    return counts, elsewhere


def _said(history: History, key: ImageKey) -> str:
    """Return what a person said is on an image, be it no class yet, or ""."""
    label = history.labels.get(key)
    return label.species if label else folded(history.waiting.get(key, ""))


def estimate_accuracy(
    shares: Sequence[Share], pool_confidence: npt.NDArray[np.floating], n_pool: int
) -> Accuracy | None:
    """Return the accuracy of the classifier as it is now on the images without a label, or None: too few were drawn.

    The mean confidence on these images, plus how far accuracy was above confidence in the random share of each request.
    That difference is followed through the requests as one that may drift: how far is weighed by what they show, so that
    older requests count less where it moved and as much as others where it did not; the first request, made before
    probabilities are calibrated, counts less in any case. The interval is Wilson's, for as many
    images as would leave the same standard error, widened as Student's distribution says for few.

    Parameters
    ----------
    shares : the oldest first
    pool_confidence : (m,) confidences, by the classifier of now, of a sample of the `n_pool` images without a label

    Sources: the difference estimator, Särndal, Swensson and Wretman 1992, section 6.3; prediction-powered inference,
    Angelopoulos et al. 2023 (arXiv:2301.09633). Local level model: Durbin and Koopman 2012, chapter 2. Wilson 1927 with
    an effective sample size: Korn and Graubard 1998.
    """
    n = sum(len(share.confidence) for share in shares)
    if n < FEWEST_JUDGED or not len(pool_confidence):
        return None
    gap, gap_variance = _gap_now(shares)
    sure = np.asarray(pool_confidence, dtype=np.float64)
    sampling = float(sure.var()) / len(sure) * max(0.0, 1 - len(sure) / max(n_pool, 1))
    error = math.sqrt(gap_variance + sampling)
    value = min(1.0, max(0.0, float(sure.mean()) + gap))
    low, high = wilson(value, error, student_975(n - 1), least=0.5 / (n + 1))
    return Accuracy(value, low, high, error, n)


def wilson(value: float, error: float, quantile: float, *, least: float) -> tuple[float, float]:
    """Return Wilson's interval of a fraction for as many draws as would have that standard error.

    `least` is how near to 0 and 1 the fraction is taken to be at most; the interval holds `value` in any case.
    """
    inner = min(1 - least, max(least, value))
    n = inner * (1 - inner) / error**2
    shrunk = quantile**2 / n
    centre = (inner + shrunk / 2) / (1 + shrunk)
    half = quantile / (1 + shrunk) * math.sqrt(inner * (1 - inner) / n + shrunk / (4 * n))
    return max(0.0, min(value, centre - half)), min(1.0, max(value, centre + half))


def student_975(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's distribution, to 0.01 from 4 degrees of freedom on.

    Source: the Cornish-Fisher expansion, Abramowitz and Stegun 26.7.5.
    """
    z = NORMAL_975
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _gap_now(shares: Sequence[Share]) -> tuple[float, float]:
    """Return by how much accuracy is above confidence now, and the variance of that."""
    gaps = np.array([float((share.is_right - share.confidence).mean()) for share in shares])
    variances = _variances(shares)
    means, spreads, likelihoods = [], [], []
    for drift in DRIFTS:
        mean, variance, likelihood = 0.0, FIRST_GAP**2, 0.0
        for n, (gap, noise) in enumerate(zip(gaps.tolist(), variances.tolist(), strict=True)):
            total = variance + noise
            likelihood -= (math.log(total) + (gap - mean) ** 2 / total) / 2
            mean += variance / total * (gap - mean)
            # The classifier of the first request knew too few labels to be calibrated by; later ones are.
            variance = variance * noise / total + drift**2 + (FIRST_GAP**2 if n == 0 else 0)
        means.append(mean)
        spreads.append(variance)
        likelihoods.append(likelihood)
    weights = np.array(OF_DRIFTS) * np.exp(np.array(likelihoods) - max(likelihoods))
    weights /= weights.sum()
    centre = float(weights @ np.array(means))
    return centre, float(weights @ (np.array(spreads) + (np.array(means) - centre) ** 2))


def _variances(shares: Sequence[Share]) -> FloatArray:
    """Return the (r,) variances of the mean difference between right or not and confidence, of each share."""
    doubts = [_doubt(share.confidence) for share in shares]
    every = np.concatenate(doubts)
    misses = np.concatenate([(share.is_right - share.confidence) ** 2 for share in shares])
    usual = float(every.mean())
    # Above 1 where confidences say too little of what is right.
    spread = (float(misses.sum()) + BELIEF * usual) / (float(every.sum()) + BELIEF * usual)
    means = [(float(doubt.sum()) + BELIEF * usual) / (len(doubt) + BELIEF) for doubt in doubts]
    return np.array([spread * mean / len(doubt) for mean, doubt in zip(means, doubts, strict=True)])


def _doubt(confidence: FloatArray) -> FloatArray:
    """Return the variance of whether images are right that are so sure."""
    sure = np.clip(confidence, LEAST_DOUBT, 1 - LEAST_DOUBT)
    return np.asarray(sure * (1 - sure), dtype=np.float64)
