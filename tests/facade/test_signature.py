"""The 28 parameters of `run_active_learning`: names, order and defaults are those of the reference program."""

from __future__ import annotations

import inspect

from camera_trap_al.config import aliases, build
from camera_trap_al.main_scripts import run_active_learning

EMPTY = inspect.Parameter.empty
PARAMETERS = {
    "train_data": EMPTY,
    "unlabelled_data": EMPTY,
    "validation_data": None,
    "validate_model": True,
    "use_checkpoints": True,
    "num_workers": 0,
    "output_dir": "default",
    "active_batch": 100,
    "active_learning_strategy": "margin",
    "use_pretrained": True,
    "embedding_arch": "resnet18",
    "embedding_loss_type": "triplet",
    "embedding_loss_margin": 1.0,
    "embedding_loss_data_strategy": "random",
    "feat_dim": 256,
    "normalize_embedding": True,
    "extract_embedding_batch_size": 256,
    "embedding_finetuning_period": 2000,
    "embedding_finetuning_lr": 0.0001,
    "embedding_finetuning_weight_decay": 0,
    "embedding_finetuning_num_epochs": 20,
    "embedding_finetuning_loader_type": "balanced",
    "embedding_train_lr": 0.00001,
    "embedding_train_weight_decay": 0.0005,
    "embedding_train_num_epochs": 5,
    "embedding_train_loader_type": "single",
    "balanced_loader_num_classes": 20,
    "balanced_loader_num_samples": 10,
}


def test_names_order_and_defaults_are_those_of_the_reference_program() -> None:
    parameters = inspect.signature(run_active_learning).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == PARAMETERS
    assert list(parameters) == list(PARAMETERS) and len(PARAMETERS) == 28
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


def test_each_parameter_is_an_option_with_the_same_default() -> None:
    options = {name: default for name, default in PARAMETERS.items() if default not in (EMPTY, None)}
    del options["output_dir"]
    assert options.keys() <= aliases().keys()
    # The program asks by a rule that needs fewer labels; the original's name keeps its meaning.
    assert build(options, "here") == build({"query.strategy": "margin"}, "here")
    assert build({}, "here").query.strategy == "uncertainty_herding"


def test_each_parameter_is_documented() -> None:
    text = inspect.getdoc(run_active_learning) or ""
    assert [name for name in PARAMETERS if name not in text] == []
