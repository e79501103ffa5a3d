from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_trap_al.config import Config, aliases, build, option_fields
from camera_trap_al.config_file import config_text, read_config, with_values
from camera_trap_al.errors import UsageError

PARAMETERS = """
train_data unlabelled_data validation_data validate_model active_batch active_learning_strategy use_pretrained
embedding_arch embedding_loss_type embedding_loss_margin embedding_loss_data_strategy feat_dim normalize_embedding
extract_embedding_batch_size embedding_finetuning_period embedding_finetuning_lr embedding_finetuning_weight_decay
embedding_finetuning_num_epochs embedding_finetuning_loader_type embedding_train_lr embedding_train_weight_decay
embedding_train_num_epochs embedding_train_loader_type balanced_loader_num_classes balanced_loader_num_samples
""".split()


def test_the_parameters_of_run_active_learning_are_aliases_of_options() -> None:
    assert set(PARAMETERS) <= set(aliases())


def test_a_written_configuration_reads_back_and_explains_every_option(tmp_path: Path) -> None:
    config = build(
        {"data.train": r'C:\Bilder "neu"\ä', "active_batch": "25", "classes.names": ["雪豹", "O'Brien"]}, "test"
    )
    path = tmp_path / "config.toml"
    path.write_text(config_text(config), encoding="utf-8")
    assert read_config(path) == config
    for key, field in option_fields().items():
        assert field.metadata["text"] in config_text(config), key


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_configuration_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("c") / "config.toml"
    config = build({"data.train": text}, "test")
    path.write_bytes(config_text(config).encode("utf-8"))
    assert read_config(path).data.train == text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"active_bach": 3}, "There is no option called 'active_bach'. Did you mean 'active_batch'?"),
        ({"batch": 3}, "Did you mean 'query.batch'?"),
        ({"query.batch": "many"}, "'query.batch' must be a whole number, not 'many'."),
        ({"query.batch": 0}, "'query.batch' must be at least 1, not 0."),
        ({"query.min_answered": 2}, "is a fraction above 0 and at most 1"),
        ({"query.min_answered": 0}, "is a fraction above 0"),
        ({"finetune.promote": "if_better"}, "must be always or if_not_worse, not 'if_better'"),
        ({"use_pretrained": "perhaps"}, "must be true or false"),
        ({"validation.by": "site"}, "'validation.by' is not in this version yet."),
        ({"output_dir": "x"}, "name the work folder"),
        ({"train.lr": float("nan")}, "must be at least 0"),
        ({"cache.px": 300}, "'cache.px' must be at most 256, not 300."),
        ({"sequences.gap_s": 1e18}, "'sequences.gap_s' must be at most 86400"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_to_do(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        build(values, "test")
    assert words in str(raised.value)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(UsageError) as raised:
        build({"a": 1, "query.batch": 0, "train.loader": "x"}, "config.toml")
    assert str(raised.value).count("'") >= 6 and str(raised.value).startswith("config.toml: ")


def test_a_windows_path_with_single_backslashes_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[data]\ntrain = "D:\\photos"\n', encoding="utf-8")
    with pytest.raises(UsageError, match="single quotes"):
        read_config(path)


def test_reading_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(config_text(Config()), encoding="utf-8")
    read_config(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("value", ["D:\\photos 2026\\ü", "/mnt/x", 'it\'s "quoted"'])
def test_a_value_is_changed_in_place(value: str, end: str) -> None:
    text = config_text(Config()).replace("\n", end) + f"# mine{end}"
    changed = with_values(text, {"data.unlabelled": value})
    before, after = text.split(end), changed.split(end)
    assert len(before) == len(after) and sum(a != b for a, b in zip(before, after, strict=True)) == 1
    assert with_values("", {"data.unlabelled": value}) and with_values("[data]\n", {"data.train": value})


def test_a_value_in_a_form_that_is_not_understood_is_left_to_the_person() -> None:
    with pytest.raises(UsageError, match="in an editor"):
        with_values("data = {train = 'x'}\n", {"data.train": "y"})
