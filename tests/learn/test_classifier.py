"""The classifier: as good as the reference's scikit-learn settings, kept as arrays, the same for the same seed."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_trap_al.errors import ModelError, UsageError
from camera_trap_al.exporters.graphs import to_scikit_learn
from camera_trap_al.learn.classifier import Classifier, fit_classifier, load_classifier, save_classifier

REFERENCE_SETTINGS = {
    "hidden_layer_sizes": (230, 100),
    "alpha": 1e-4,
    "max_iter": 2000,
    "tol": 1e-6,
    "learning_rate_init": 1e-4,
}
# By number of labels: scikit-learn 1.9 with these settings on `clusters`, mean of three draws. It takes minutes.
REFERENCE_ACCURACY = {60: 0.579, 600: 0.772}


def clusters(n: int, k: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, list[str]]:
    """Return n scaled vectors of k classes, three overlapping clusters each, with a long tail of classes."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3 * k, 12))
    mix = np.random.default_rng(98).normal(size=(12, 48))
    share = 1 / (1 + np.arange(3 * k) // 3)
    which = draw.choice(3 * k, n, p=share / share.sum())
    vectors = (centres[which] + noise * draw.normal(size=(n, 12))) @ mix
    return ((vectors + 25) / 50).astype(np.float32), [f"species {c // 3:02}" for c in which]


def accuracy(classifier: Classifier, vectors: np.ndarray, species: list[str]) -> float:
    best = classifier.predict_proba(vectors).argmax(axis=1)
    return float(np.mean([classifier.classes[b] == s for b, s in zip(best, species, strict=True)]))


def random_classifier(sizes: list[int], seed: int) -> Classifier:
    draw = np.random.default_rng(seed)
    weights = tuple(draw.normal(size=pair).astype(np.float32) for pair in zip(sizes, sizes[1:], strict=False))
    biases = tuple(draw.normal(size=size).astype(np.float32) for size in sizes[1:])
    return Classifier(weights, biases, tuple(f"class {i:03}" for i in range(sizes[-1])))


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return clusters(60, 3, seed=1)[0]


@pytest.fixture(scope="module")
def fitted() -> Classifier:
    return fit_classifier(*clusters(60, 3, seed=1), seed=4)


def test_it_learns_what_can_be_learned() -> None:
    classifier = fit_classifier(*clusters(150, 4, seed=1, noise=0.1), seed=0)
    assert accuracy(classifier, *clusters(300, 4, seed=2, noise=0.1)) > 0.95


def test_probabilities_are_float32_rows_that_sum_to_one(fitted: Classifier, vectors: np.ndarray) -> None:
    proba = fitted.predict_proba(vectors)
    assert proba.dtype == np.float32 and proba.shape == (60, 3)
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-5) and (proba >= 0).all()


def test_only_classes_with_labels_are_known_and_they_are_sorted() -> None:
    vectors, _ = clusters(6, 2, seed=1)
    classifier = fit_classifier(vectors, ["zebra", "Кабан", "Zebu", "ant", "zebra", "ant"], seed=0)
    assert classifier.classes == ("Zebu", "ant", "zebra", "Кабан")


@pytest.mark.parametrize(("species", "said"), [([], "there are none"), (["empty"] * 3, "only 'empty' has any")])
def test_fewer_than_two_classes_are_refused_in_words(species: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=f"at least two classes; {said}"):
        fit_classifier(np.zeros((len(species), 4), np.float32), species, seed=0)


def test_two_classes_are_two_columns() -> None:
    vectors, species = clusters(40, 2, seed=1, noise=0.1)
    classifier = fit_classifier(vectors, species, seed=0)
    assert classifier.predict_proba(vectors).shape == (40, 2)
    assert accuracy(classifier, vectors, species) > 0.95


def test_the_same_seed_gives_the_same_arrays_and_another_seed_others(fitted: Classifier) -> None:
    again, other = (fit_classifier(*clusters(60, 3, seed=1), seed=seed) for seed in (4, 5))
    assert all((a == b).all() for a, b in zip(fitted.weights, again.weights, strict=True))
    assert not (fitted.weights[0] == other.weights[0]).all()


def test_equal_vectors_and_one_label_a_class_are_no_reason_to_fail() -> None:
    classifier = fit_classifier(np.ones((2, 5), np.float32), ["a", "b"], seed=0)
    assert np.allclose(classifier.predict_proba(np.ones((1, 5), np.float32)), 0.5, atol=0.1)


def test_a_row_is_predicted_alike_alone_and_in_a_block(fitted: Classifier, vectors: np.ndarray) -> None:
    alone = np.concatenate([fitted.predict_proba(row[None]) for row in vectors])
    assert np.allclose(alone, fitted.predict_proba(vectors), atol=1e-6)
    assert fitted.predict_proba(vectors[:0]).shape == (0, 3)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(2, 6), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_it_predicts_as_scikit_learn_would_with_the_same_arrays(sizes: list[int], k: int, seed: int) -> None:
    classifier = random_classifier([*sizes, k], seed)
    vectors = np.random.default_rng(seed).random((5, sizes[0]), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = to_scikit_learn(classifier).predict_proba(vectors)
    assert np.allclose(classifier.predict_proba(vectors), wanted, atol=1e-5)


def test_saved_and_loaded_it_predicts_the_same_bit_for_bit(
    fitted: Classifier, vectors: np.ndarray, tmp_path: Path
) -> None:
    save_classifier(fitted, tmp_path, reference=vectors[:5], learner=2, n_labels=40)
    again = load_classifier(tmp_path)
    assert again.classes == fitted.classes and again.feat_dim == 48
    assert (again.predict_proba(vectors) == fitted.predict_proba(vectors)).all()
    reference = np.load(tmp_path / "reference_probabilities.npy", allow_pickle=False)
    assert (reference == fitted.predict_proba(vectors[:5])).all()
    facts = json.loads((tmp_path / "classifier.json").read_text(encoding="utf-8"))
    assert (facts["format"], facts["head"], facts["learner"], facts["n_labels"]) == (1, "mlp", 2, 40)


@pytest.mark.parametrize("name", ["classifier.json", "classifier.safetensors"])
@pytest.mark.parametrize("data", [None, b"", b"{}", b"[1]", b"\xff" * 100])
def test_a_damaged_or_missing_file_is_a_model_error(name: str, data: bytes | None, tmp_path: Path) -> None:
    save_classifier(random_classifier([4, 3, 2], 0), tmp_path, reference=np.zeros((1, 4), np.float32))
    (tmp_path / name).unlink()
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=name.split(".")[0]):
        load_classifier(tmp_path)


def test_arrays_that_do_not_fit_the_class_list_are_a_model_error(tmp_path: Path) -> None:
    save_classifier(random_classifier([4, 3, 2], 0), tmp_path, reference=np.zeros((1, 4), np.float32))
    facts = json.loads((tmp_path / "classifier.json").read_text(encoding="utf-8"))
    (tmp_path / "classifier.json").write_text(json.dumps({**facts, "classes": ["a", "b", "c"]}), encoding="utf-8")
    with pytest.raises(ModelError, match="do not fit together"):
        load_classifier(tmp_path)


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "classifier.json").write_text('{"format": 2}', encoding="utf-8")
    with pytest.raises(ModelError, match="format 2; this version reads format 1"):
        load_classifier(tmp_path)


@pytest.mark.slow
def test_it_is_at_least_as_accurate_as_the_references_scikit_learn_settings() -> None:
    unseen = clusters(2000, 6, seed=50)
    for n, reference in REFERENCE_ACCURACY.items():
        fits = [fit_classifier(*clusters(n, 6, seed=seed), seed=seed) for seed in range(3)]
        assert np.mean([accuracy(fit, *unseen) for fit in fits]) >= reference, n


@pytest.mark.slow
def test_the_stored_accuracy_of_the_reference_is_what_scikit_learn_reaches(long: int) -> None:
    """With `--long` that of 600 labels too, which takes minutes."""
    from sklearn.neural_network import MLPClassifier

    unseen = clusters(2000, 6, seed=50)
    for n, reference in REFERENCE_ACCURACY.items() if long > 1 else [(60, REFERENCE_ACCURACY[60])]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fits = [
                MLPClassifier(random_state=seed, **REFERENCE_SETTINGS).fit(*clusters(n, 6, seed=seed))
                for seed in range(3)
            ]
        assert np.mean([fit.score(*unseen) for fit in fits]) == pytest.approx(reference, abs=0.01)


def test_neither_fitting_nor_measuring_nor_predicting_imports_torch() -> None:
    script = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[2])]!r}
import camera_trap_al.learn.classifier, camera_trap_al.learn.evaluate, camera_trap_al.learn.predict
import camera_trap_al.exporters
heavy = {{"torch", "torchvision", "pandas", "matplotlib", "sklearn", "onnx", "onnxruntime", "skl2onnx"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)
