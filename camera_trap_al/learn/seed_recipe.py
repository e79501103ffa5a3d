"""The reference program's classifier, to be compared with: scikit-learn's perceptron, fitted from scratch each round."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SeedRecipe:
    """A fitted perceptron. `classes` are the names of the columns of its probabilities, sorted by code point."""

    model: Any
    classes: tuple[str, ...]

    def predict_proba(self, scaled: FloatArray) -> FloatArray:
        """Return the (b, k) float32 probabilities of (b, d) embeddings that are scaled as the fitted ones were."""
        proba: FloatArray = self.model.predict_proba(scaled).astype(np.float32)
        return proba


def fit_seed_recipe(scaled: FloatArray, species: Sequence[str], seed: int) -> SeedRecipe:
    """Fit the perceptron with the reference program's settings.

    Takes seconds for a few hundred rows, minutes for thousands.

    Parameters
    ----------
    scaled : (n, d) float32 embeddings; the reference program scales each number to 0..1 over all its images
    species : n class names, two different ones or more

    Source: the settings are those of the reference program's `active_learning_manager`; everything that it does not name
    (ReLU, Adam with betas 0.9 and 0.999, batches of at most 200 rows, the end after ten epochs in which the loss has not
    fallen by `tol`) is scikit-learn's default.
    """
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        hidden_layer_sizes=(230, 100), alpha=1e-4, max_iter=2000, tol=1e-6, learning_rate_init=1e-4, random_state=seed
    )
    # The libraries that scikit-learn has just loaded too; more threads only wait for each other in matrices this small.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # That the last of 2,000 epochs came before the loss stood still is as the reference program has it.
        warnings.simplefilter("ignore")
        model.fit(scaled, np.array(species, dtype=object).astype(str))
    return SeedRecipe(model, tuple(str(name) for name in model.classes_))
