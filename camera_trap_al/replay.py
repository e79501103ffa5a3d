"""A season whose labels are known, labelled again without a person: which images a method asks for, what it then knows.

Nothing is embedded here, and nothing is written: a season comes as arrays, a replay goes as numbers. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from camera_trap_al.calibrating import COMPARED, GROWTH, TAUGHT_ROWS, heads_to_compare
from camera_trap_al.config import Config, QueryConfig
from camera_trap_al.core.acquisition import key_priority
from camera_trap_al.core.composition import Askable, compose, n_random
from camera_trap_al.core.grouping import Mask
from camera_trap_al.core.seeds import seed_from
from camera_trap_al.core.steps import waits_for_embeddings
from camera_trap_al.embed_jobs import FIRST_ROWS
from camera_trap_al.errors import UnknownNameError
from camera_trap_al.learn.calibration import calibrate
from camera_trap_al.learn.classifier import fit_classifier, one_thread
from camera_trap_al.learn.evaluate import evaluate
from camera_trap_al.learn.heads import AUTO, heads
from camera_trap_al.registry import did_you_mean
from camera_trap_al.replay_season import FloatArray, IntArray, Season
from camera_trap_al.strategies import UNIFORM, LabelledBlock, PoolBlock, strategies, usable_strategy

SEED_RECIPE = "seed_recipe"
"""The method of the reference program: margins, and a perceptron fitted from scratch in each round."""
BLOCK_ROWS = 4096
FULL_LABELS = 50_000
# scikit-learn's perceptron takes minutes for as many.
FULL_LABELS_OF_RECIPE = 5_000
# Of the images to label, how many there are in one replay: a way of choosing that leaves nothing to chance asks for others
# of other images, so that intervals over seeds say what luck with the images would do.
DRAWN_SHARE = 0.8


@dataclass(frozen=True)
class Method:
    """How images are chosen, and what learns from them. `name` is what tables call it."""

    name: str
    strategy: str
    head: str

    @classmethod
    def of(cls, strategy: str, head: str, usual_head: str = "") -> Method:
        """Return the method of a strategy and a head, called by the strategy alone where the head is the usual one."""
        return cls(strategy if head == usual_head else f"{strategy}+{head}", strategy, head)

    @property
    def is_recipe(self) -> bool:
        """Return whether this is the reference program's recipe."""
        return self.head == SEED_RECIPE


RECIPE = Method(SEED_RECIPE, "margin", SEED_RECIPE)


def usual_head() -> str:
    """Return the head that the program uses unless it is told otherwise."""
    return Config().classifier.head


def default_method() -> Method:
    """Return the method that the program uses unless it is told otherwise."""
    return Method.of(Config().query.strategy, usual_head(), usual_head())


def methods_of(chosen: Sequence[str], chosen_heads: Sequence[str]) -> list[Method]:
    """Return the methods to compare: what the program does by default, each strategy with each head, a uniform draw with
    every head among these, and the reference program's recipe last.

    Parameters
    ----------
    chosen : names of strategies; one such as `margin+mlp` is taken with this head alone

    Raises `UnknownNameError`.
    """
    known, usual = [AUTO, *heads.names()], usual_head()
    pairs = [(default_method().strategy, head) for head in chosen_heads or [usual]]
    for name in chosen:
        strategy, plus, head = name.partition("+")
        pairs += [(strategy, head)] if plus else [(strategy, head) for head in chosen_heads or [usual]]
    for strategy, head in [*pairs, *((UNIFORM, head) for head in chosen_heads)]:
        strategies.check(strategy)
        if head not in known:
            text = f"There is no head called '{head}'.{did_you_mean(head, known)}"
            raise UnknownNameError(text, hint=f"Use one of: {', '.join(known)}.")
    with_uniform = [*pairs, *((UNIFORM, head) for head in dict.fromkeys([usual, *(head for _, head in pairs)]))]
    found = [Method.of(strategy, head, usual) for strategy, head in with_uniform]
    return list(dict.fromkeys([default_method(), *found, RECIPE]))


class Fitted(Protocol):
    """What can say of embeddings which class they are of."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of the columns of the probabilities."""
        ...

    def predict_proba(self, scaled: FloatArray) -> FloatArray:
        """Return the (b, k) probabilities of (b, d) scaled embeddings."""
        ...


@dataclass(frozen=True)
class ReplayPool:
    """What is left to label, as a query strategy sees it.

    Parameters
    ----------
    open : (m,) rows of the season that have no label yet
    known : (n,) rows that have one
    """

    season: Season
    open: IntArray
    known: IntArray
    fitted: Fitted | None

    @property
    def classes(self) -> Sequence[str]:
        """The classes, in the order of the columns of `proba`."""
        return self.fitted.classes if self.fitted else ()

    def only(self, which: Mask) -> ReplayPool:
        """Return the pool of some of its rows."""
        return replace(self, open=self.open[which])

    def tick(self) -> None:
        """Go on: a replay is ended by ending its process."""

    def unlabelled_blocks(self) -> Iterator[PoolBlock]:
        """Yield the rows without a label."""
        for start in range(0, len(self.open), BLOCK_ROWS):
            rows = self.open[start : start + BLOCK_ROWS]
            vectors = np.ascontiguousarray(self.season.vectors[rows])
            nothing = np.zeros((len(rows), 0), np.float32)
            proba = self.fitted.predict_proba(vectors) if self.fitted else nothing
            yield PoolBlock(rows, self.season.key_hashes[rows], proba, vectors)

    def labelled_blocks(self) -> Iterator[LabelledBlock]:
        """Yield the labelled rows, in the order of their key hashes."""
        place = {name: i for i, name in enumerate(self.classes)}
        in_order = _in_order(self.season, self.known)
        for start in range(0, len(in_order), BLOCK_ROWS):
            rows = in_order[start : start + BLOCK_ROWS]
            labels = np.array([place.get(name, -1) for name in self.season.names_of(rows)], np.int64)
            yield LabelledBlock(np.ascontiguousarray(self.season.vectors[rows]), labels)


@dataclass(frozen=True)
class Rules:
    """How a season is asked about.

    Parameters
    ----------
    batch : images in one request
    budget : images that may be asked for in all
    per_sequence, random_share, first : as in the configuration
    """

    batch: int
    budget: int
    per_sequence: int = QueryConfig.per_sequence
    random_share: float = QueryConfig.random_share
    first: str = QueryConfig.first


def replay(season: Season, method: Method, seed: int, rules: Rules) -> Iterator[dict[str, Any]]:
    """Label a season as a method asks for it, and yield what it knows before the first request and after each.

    The images to label are a random four fifths of those of the season, the same for each method. The first request is
    drawn at random where there is nothing to choose by, as the program does it. Same arguments, same points on one machine.

    Parameters
    ----------
    seed : of the images, the draws and the fits

    Yields
    ------
    JSON values: `asked`, images asked for so far; `labels`, those and the training images; `accuracy` and `macro_f1` on
    the validation images; `hits`, how many of each class of the season were recognised
    """
    scaled = _for_recipe(season) if method.is_recipe else season
    known, open_ = np.arange(season.n_train), drawn(season, seed)
    asked, head = 0, _Head(method.head)
    with one_thread():
        while True:
            fitted = fit(scaled, known, open_, head.now, seed_from(str(seed), "fit", asked), head.temperature)
            if len(known):
                yield {"asked": asked, "labels": len(known), "head": head.now, **measure(scaled, known, fitted)}
            n = min(rules.batch, rules.budget - asked, len(open_))
            if n <= 0:
                return
            pool = ReplayPool(scaled, open_, known, fitted)
            rows = choose(pool, method, n, seed_from(str(seed), "request", asked), rules)
            head.look_again(scaled, known, open_, seed_from(str(seed), "calibration"))
            known, open_ = np.concatenate([known, rows]), open_[~np.isin(open_, rows)]
            asked += len(rows)


def drawn(season: Season, seed: int) -> IntArray:
    """Return the rows that may be asked for in the replay of a seed, ascending; at least one."""
    rows = np.arange(season.n_train, season.n_known)
    return np.sort(
        in_random_order(season, rows, seed_from(str(seed), "pool"))[: max(1, round(DRAWN_SHARE * len(rows)))]
    )


def in_random_order(season: Season, rows: IntArray, seed: int) -> IntArray:
    """Return rows in an order that is a matter of their images and the seed alone."""
    return rows[np.argsort(key_priority(season.key_hashes[rows], seed), kind="stable")]


class _Head:
    """Which head is next, by what labels say of the heads; as the program chooses it, after a request is out."""

    def __init__(self, choice: str) -> None:
        self.choice, self.now, self.temperature = choice, COMPARED[0] if choice == AUTO else choice, 1.0
        self._n_labels, self._n_classes = 0, 0

    def look_again(self, season: Season, known: IntArray, open_: IntArray, seed: int) -> None:
        """Compare the heads, and measure the temperature, where there are a tenth more labels or classes than last time."""
        species = season.names_of(known)
        n_classes = len(set(species))
        if self.choice == SEED_RECIPE or n_classes < 2:
            return
        if n_classes == self._n_classes and len(known) < GROWTH * self._n_labels:
            return
        self._n_labels, self._n_classes = len(known), n_classes
        rows = _in_order(season, known)
        names = heads_to_compare(self.choice, len(rows))
        vectors = np.ascontiguousarray(season.vectors[rows])
        groups = np.stack([season.folders[rows], season.sequences[rows]], axis=1)
        sample = _sample(season, open_)
        found = calibrate(vectors, season.names_of(rows), groups, names, seed, unlabelled=sample)
        self.now, self.temperature = found.head, found.temperature


def choose(pool: ReplayPool, method: Method, n: int, seed: int, rules: Rules) -> IntArray:
    """Return the rows of the next request.

    The program's own requests are composed as it composes them: a random share, few images of one sequence. The recipe of
    the reference program and the uniform draw, which others are compared with, are taken as they are.
    """
    # The program asks before anything is embedded, or once the first images are.
    has_embeddings = len(pool.known) > 0 or waits_for_embeddings(rules.first, pool.season.n_pool)
    if not len(pool.known) and len(pool.open) > 2 * FIRST_ROWS:
        pool = pool.only(np.isin(pool.open, in_random_order(pool.season, pool.open, seed)[:FIRST_ROWS]))
    name = usable_strategy(method.strategy, has_classifier=pool.fitted is not None, has_embeddings=has_embeddings)
    if method.is_recipe or method.strategy == UNIFORM:
        return strategies[name].query(pool, n, seed)
    season = pool.season
    askable = Askable(pool.open, season.key_hashes[pool.open], season.sequences[pool.open], season.folders[pool.open])
    rows, _ = compose(
        askable,
        n,
        n_drawn=n if name == UNIFORM else n_random(n, rules.random_share, seed),
        per_sequence=rules.per_sequence,
        seed=seed,
        choose=lambda may, wanted: strategies[name].query(pool.only(may), wanted, seed),
        read=lambda rows: np.ascontiguousarray(season.vectors[rows]),
    )
    return rows


def fit(
    season: Season, known: IntArray, open_: IntArray, head: str, seed: int, temperature: float = 1.0
) -> Fitted | None:
    """Return the classifier of a head that knows some rows, in any order; None where they are of fewer than two classes."""
    rows = _in_order(season, known)
    species = season.names_of(rows)
    if len(set(species)) < 2:
        return None
    vectors = np.ascontiguousarray(season.vectors[rows])
    if head == SEED_RECIPE:
        from camera_trap_al.learn.seed_recipe import fit_seed_recipe

        return fit_seed_recipe(vectors, species, seed)
    return fit_classifier(vectors, species, seed, head, unlabelled=_sample(season, open_), temperature=temperature)


def _in_order(season: Season, rows: IntArray) -> IntArray:
    return rows[np.argsort(season.key_hashes[rows], kind="stable")]


def _sample(season: Season, open_: IntArray) -> FloatArray:
    """Return the vectors of a sample of the rows without a label, which changes little from round to round."""
    return np.ascontiguousarray(season.vectors[in_random_order(season, open_, 0)[:TAUGHT_ROWS]])


def measure(season: Season, known: IntArray, fitted: Fitted | None) -> dict[str, Any]:
    """Return accuracy, macro F1 and hits on the validation images; of one class that alone is predicted."""
    truth = season.names_of(season.validation)
    if fitted is None:
        predicted = [season.classes[season.labels[known[0]]]] * len(truth)
    else:
        best = [
            fitted.predict_proba(np.ascontiguousarray(season.vectors[start : start + BLOCK_ROWS])).argmax(axis=1)
            for start in range(season.n_known, len(season.labels), BLOCK_ROWS)
        ]
        predicted = [fitted.classes[i] for i in np.concatenate(best).tolist()]
    metrics = evaluate(truth, predicted, season.classes)
    right = [season.classes.index(t) for t, p in zip(truth, predicted, strict=True) if t == p]
    hits = np.bincount(np.array(right, np.int64), minlength=len(season.classes))
    return {
        "accuracy": round(metrics["accuracy"], 6),
        "macro_f1": round(metrics["macro_f1"], 6),
        "hits": hits.tolist(),
    }


def with_all_labels(season: Season, head: str, seed: int) -> dict[str, Any]:
    """Return what a head knows, as `replay` yields it, once every image of the season is labelled.

    Of more than 50,000 images (of the reference program's recipe, 5,000) as many are drawn at random.
    """
    scaled = _for_recipe(season) if head == SEED_RECIPE else season
    most = FULL_LABELS_OF_RECIPE if head == SEED_RECIPE else FULL_LABELS
    known = np.arange(season.n_known)
    if len(known) > most:
        known = np.sort(np.random.default_rng(seed).choice(known, most, replace=False))
    with one_thread():
        left = np.setdiff1d(np.arange(season.n_known), known)
        fitted = fit(scaled, known, left, head, seed_from(str(seed), "fit", "all"))
        return {"asked": season.n_pool, "labels": len(known), **measure(scaled, known, fitted)}


def _for_recipe(season: Season) -> Season:
    """Return the season with each number of an embedding scaled to 0..1 over all images, as the reference program does."""
    low = np.min([part.min(axis=0) for part in _parts(season.vectors)], axis=0)
    high = np.max([part.max(axis=0) for part in _parts(season.vectors)], axis=0)
    spread = np.where(high > low, high - low, 1)
    vectors = np.concatenate([((part - low) / spread).astype(np.float32) for part in _parts(season.vectors)])
    return replace(season, vectors=vectors)


def _parts(vectors: FloatArray) -> Iterator[FloatArray]:
    for start in range(0, len(vectors), BLOCK_ROWS):
        yield np.asarray(vectors[start : start + BLOCK_ROWS])
