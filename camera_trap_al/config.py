"""Every option, with its default, unit and meaning: checked whole, passed down in parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from camera_trap_al.config_items import ItemsConfig
from camera_trap_al.config_sequences import SequencesConfig
from camera_trap_al.config_service import DaemonConfig, LogConfig, NotifyConfig, ReportConfig
from camera_trap_al.errors import UsageError
from camera_trap_al.option import option
from camera_trap_al.registry import did_you_mean


@dataclass(frozen=True)
class DataConfig:
    """Where the images are."""

    train: str = option(
        "", "Folder of labelled images, one sub-folder a class. Empty: start without.", alias="train_data"
    )
    unlabelled: str = option("", "Folder of images to label (the image root of Timelapse).", alias="unlabelled_data")
    validation: str = option("", "Folder of labelled images that never train. Empty: none.", alias="validation_data")


@dataclass(frozen=True)
class LabelsConfig:
    """How label files are read."""

    column: str = option("Species", "Column of the label files that holds the class.")
    tool: str = option(
        "timelapse",
        "timelapse: ask only for .jpg files, which Timelapse can show; any: ask for every image.",
        choices=("timelapse", "any"),
    )
    settle_s: float = option(2.0, "Seconds for which a label file must stay unchanged before it is read.", low=0)
    unrequested: str = option(
        "ignore", "Labels for images that were never asked for: ignore or accept.", choices=("ignore", "accept")
    )
    skip_words: tuple[str, ...] = option(("unsure",), "Words that mean 'cannot tell', in your language.")
    unlabel_token: str = option("", "Word that takes a label away again, such as __unlabel__. Empty: none.")
    path_alias: tuple[str, ...] = option((), "Beginnings of paths to read as others: 'old=new'.")


@dataclass(frozen=True)
class ClassesConfig:
    """Which classes there are, beside the folders of `data.train`."""

    names: tuple[str, ...] = option((), "Class names that no training folder has.")
    empty: str = option("", "The class that means 'no animal', in your language. Empty: none.")
    person: tuple[str, ...] = option(
        (), "Classes that show people or vehicles: such images neither train nor measure, and are in no report."
    )
    reserved: tuple[str, ...] = option(("unlabelled",), "Words that are never a class.")
    auto_add: bool = option(False, "Let a label file bring new classes.")
    auto_add_min: int = option(3, "Images, in all label files, that must bear a new name before it is a class.", low=1)

    def named(self) -> list[str]:
        """Return the classes that these options name."""
        return [*self.names, *([self.empty] if self.empty else []), *self.person]


@dataclass(frozen=True)
class QueryConfig:
    """What is asked for."""

    batch: int = option(100, "Images in one request.", low=1, alias="active_batch")
    strategy: str = option(
        "uncertainty_herding", "How images are chosen: see docs/strategies.md.", alias="active_learning_strategy"
    )
    first: str = option(
        "auto",
        "Before there is a classifier. embedded: ask when a thousand images are embedded (a minute), by the strategy, which"
        " saves labels; now: at once, at random; auto: embedded up to 10,000 images, else now; wait: ask for nothing.",
        choices=("auto", "embedded", "now", "wait"),
    )
    min_answered: float = option(0.9, "Fraction of a request that must be answered before the next one.", low=0)
    budget: int = option(0, "Images that may be asked for in all. 0: no limit.", low=0)
    per_sequence: int = option(
        1, "Images of one sequence in one request, as long as there are others. 0: any number, near-copies too.", low=0
    )
    random_share: float = option(
        0.1, "Fraction of a request that is drawn at random, to say how good the classifier is.", low=0, high=1
    )


@dataclass(frozen=True)
class SelectorConfig:
    """Which images are shown."""

    allow_formula_names: bool = option(
        False, "Ask also for images whose names a spreadsheet could run as a formula (=cmd|…)."
    )
    top_images: bool = option(
        True, "Use also images that lie directly in the folder of images to label, in none of its sub-folders."
    )


@dataclass(frozen=True)
class ImagesConfig:
    """How image files are read, and which are refused."""

    processes: int = option(
        0,
        "Processes that decode images, never more than cores, or 8. 0 or auto: as many as that, or threads where these"
        " prove to be twice as fast.",
        low=0,
        alias="num_workers",
    )

    allow_truncated: bool = option(
        False, "Use what can be decoded of images that are cut short or damaged, instead of setting them aside."
    )
    max_pixels: int = option(100_000_000, "Pixels (width x height) of the largest image that is read.", low=1)
    max_side: int = option(20_000, "Pixels of the longest side of an image that is read.", low=1)


@dataclass(frozen=True)
class CacheConfig:
    """Decoded images, kept in `cache/` so that each is decoded once. May be deleted at any time."""

    max_gb: float = option(
        25.0,
        "Gigabytes that it may take, at most half of the free disk: 5,000 images a gigabyte. 0: decode each time.",
        low=0,
    )
    px: int = option(
        256,
        "Side in pixels at which images are decoded and kept, 32 to 256. With 128 the cache holds four times as many"
        " images, which lose detail for the network. Counts from the next training on.",
        low=32,
        high=256,
    )


@dataclass(frozen=True)
class EmbeddingConfig:
    """The network that turns an image into numbers. Fixed once the first model is trained."""

    arch: str = option(
        "resnet18",
        "Architecture: a classification network of torchvision by its name (resnet18, resnet50, mobilenet_v3_large,"
        " efficientnet_b0, convnext_tiny, …), timm:NAME for one of timm (extra [timm]), efficientnet_lite0, or tiny.",
        alias="embedding_arch",
    )
    pretrained: bool = option(True, "Start from weights learned on ImageNet.", alias="use_pretrained")
    weights: str = option(
        "", "File of start weights (.pt, .pth, .safetensors). Empty: as `pretrained` says.", alias="embedding_weights"
    )
    feat_dim: int = option(256, "Numbers in one embedding.", low=1, alias="feat_dim")
    loss: str = option(
        "triplet", "Loss of the training: triplet, siamese (pairs) or softmax.", alias="embedding_loss_type"
    )
    margin: float = option(
        1.0,
        "Margin of the triplet loss (squared distance) or of the siamese one (distance).",
        low=0,
        alias="embedding_loss_margin",
    )
    selection: str = option(
        "random",
        "Which of a batch count. triplet: random, hardest or semi_hard; siamese: random or hard_pair; softmax: all.",
        alias="embedding_loss_data_strategy",
    )
    normalize: bool = option(True, "Scale each number of the embedding to 0..1.", alias="normalize_embedding")
    batch_size: int = option(256, "Images embedded at once.", low=1, alias="extract_embedding_batch_size")


@dataclass(frozen=True)
class TrainConfig:
    """The first training of the network."""

    epochs: int = option(
        5,
        "Passes over the labelled images. 0: use the start weights as they are.",
        low=0,
        alias="embedding_train_num_epochs",
    )
    lr: float = option(0.00001, "Learning rate (Adam).", low=0, alias="embedding_train_lr")
    weight_decay: float = option(0.0005, "Weight decay (Adam).", low=0, alias="embedding_train_weight_decay")
    loader: str = option(
        "single",
        "Batches: single (shuffled) or balanced (by class).",
        choices=("single", "balanced"),
        alias="embedding_train_loader_type",
    )
    min_labels: int = option(200, "Labels that must be there before the network is trained.", low=1)


@dataclass(frozen=True)
class FinetuneConfig:
    """Later trainings of the network, in the background."""

    period: int = option(
        2000, "New labels after which the network is fine-tuned.", low=1, alias="embedding_finetuning_period"
    )
    epochs: int = option(
        20, "Passes over the labelled images. 0: never fine-tune.", low=0, alias="embedding_finetuning_num_epochs"
    )
    lr: float = option(0.0001, "Learning rate (Adam).", low=0, alias="embedding_finetuning_lr")
    weight_decay: float = option(0.0, "Weight decay (Adam).", low=0, alias="embedding_finetuning_weight_decay")
    loader: str = option(
        "balanced",
        "Batches: single (shuffled) or balanced (by class).",
        choices=("single", "balanced"),
        alias="embedding_finetuning_loader_type",
    )
    layers: str = option(
        "all",
        "What is trained. all; last: only the embedding layer, a third of the work; all images are embedded anew either way.",
        choices=("all", "last"),
    )
    promote: str = option(
        "always",
        "Use a fine-tuned network always, or only if_not_worse on the validation images.",
        choices=("always", "if_not_worse"),
    )


@dataclass(frozen=True)
class ClassifierConfig:
    """What learns classes from embeddings and labels."""

    head: str = option(
        "auto",
        "mlp, logistic, semi (uses images without a label too) or auto: what does best on labels it had not seen.",
    )


@dataclass(frozen=True)
class LoaderConfig:
    """Balanced batches."""

    classes: int = option(20, "Classes in one balanced batch.", low=1, alias="balanced_loader_num_classes")
    samples: int = option(10, "Images of each class in one balanced batch.", low=1, alias="balanced_loader_num_samples")


@dataclass(frozen=True)
class ValidationConfig:
    """Measuring accuracy."""

    enabled: bool = option(True, "Measure accuracy on the validation images after each refit.", alias="validate_model")


@dataclass(frozen=True)
class ExportConfig:
    """What an export says to those who get it."""

    licence: str = option(
        "", "What others may do with the exported classifier, such as CC BY 4.0. Empty: the owner of the data decides."
    )


@dataclass(frozen=True)
class Config:
    """The whole configuration, one record a concern."""

    data: DataConfig = DataConfig()
    labels: LabelsConfig = LabelsConfig()
    classes: ClassesConfig = ClassesConfig()
    query: QueryConfig = QueryConfig()
    sequences: SequencesConfig = SequencesConfig()
    items: ItemsConfig = ItemsConfig()
    selector: SelectorConfig = SelectorConfig()
    images: ImagesConfig = ImagesConfig()
    cache: CacheConfig = CacheConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    train: TrainConfig = TrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    loader: LoaderConfig = LoaderConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    validation: ValidationConfig = ValidationConfig()
    export: ExportConfig = ExportConfig()
    daemon: DaemonConfig = DaemonConfig()
    report: ReportConfig = ReportConfig()
    log: LogConfig = LogConfig()
    notify: NotifyConfig = NotifyConfig()

    def flat(self) -> dict[str, Any]:
        """Return every option as `group.name` → value, tuples as lists."""
        return {
            f"{group.name}.{f.name}": list(value) if isinstance(value, tuple) else value
            for group in fields(self)
            for f in fields(getattr(self, group.name))
            for value in [getattr(getattr(self, group.name), f.name)]
        }


NOT_YET = frozenset({"validation.audit_fraction", "validation.by"})
ELSEWHERE = {"output_dir": "name the work folder after `init`"}


def option_fields() -> dict[str, dataclasses.Field[Any]]:
    """Return every option as `group.name` → its field."""
    return {f"{g.name}.{f.name}": f for g in fields(Config) for f in fields(getattr(Config(), g.name))}


def aliases() -> dict[str, str]:
    """Return the flat parameter names of `run_active_learning` and the options that they mean."""
    return {f.metadata["alias"]: key for key, f in option_fields().items() if f.metadata["alias"]}


def build(values: Mapping[str, Any], where: str) -> Config:
    """Return a checked configuration.

    Parameters
    ----------
    values : `group.name` or alias → value (str values are read as the option's type)
    where : what the values come from, for messages

    Raises
    ------
    UsageError
        names every unknown option and every value that cannot be used, with the nearest spelling
    """
    known, by_alias = option_fields(), aliases()
    taken: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in values.items():
        key = by_alias.get(name, name)
        if key not in known:
            problems.append(_unknown(name, [*known, *by_alias]))
            continue
        try:
            taken[key] = _typed(name, known[key], value)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise UsageError(f"{where}: " + " ".join(problems))
    groups = {
        g.name: dataclasses.replace(
            getattr(Config(), g.name),
            **{k.partition(".")[2]: v for k, v in taken.items() if k.startswith(f"{g.name}.")},
        )
        for g in fields(Config)
    }
    return Config(**groups)


def _unknown(name: str, known: list[str]) -> str:
    if name in NOT_YET:
        return f"The option '{name}' is not in this version yet."
    if name in ELSEWHERE:
        return f"'{name}' is no option here: {ELSEWHERE[name]}."
    short = {k.rpartition(".")[2]: k for k in known if "." in k}
    full = (
        f" Did you mean '{short[name]}'?" if name in short else did_you_mean(name, known) or did_you_mean(name, short)
    )
    return f"There is no option called '{name}'.{full}"


def _typed(key: str, f: dataclasses.Field[Any], value: Any) -> Any:
    wanted = f.default
    if f.metadata["alias"] == "num_workers" and value == "auto":
        return wanted
    if isinstance(value, str) and not isinstance(wanted, str):
        value = _parse(key, wanted, value)
    if isinstance(wanted, tuple) and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        value = tuple(value)
    if isinstance(wanted, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(wanted):
        raise ValueError(f"'{key}' must be {_kind(wanted)}, not {value!r}.")
    choices, low, high = f.metadata["choices"], f.metadata["low"], f.metadata["high"]
    if choices and value not in choices:
        raise ValueError(f"'{key}' must be {' or '.join(choices)}, not '{value}'.{did_you_mean(str(value), choices)}")
    if low is not None and not low <= value < float("inf"):
        raise ValueError(f"'{key}' must be at least {low:g}, not {value}.")
    if low is not None and value > high:
        raise ValueError(f"'{key}' must be at most {high:g}, not {value}.")
    if key == "query.min_answered" and not 0 < value <= 1:
        raise ValueError(f"'{key}' is a fraction above 0 and at most 1, not {value}.")
    return value


def _parse(key: str, wanted: Any, text: str) -> Any:
    if isinstance(wanted, bool):
        answers = {"true": True, "false": False, "yes": True, "no": False}
        if text.strip().casefold() not in answers:
            raise ValueError(f"'{key}' must be true or false, not '{text}'.")
        return answers[text.strip().casefold()]
    if isinstance(wanted, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return int(text) if isinstance(wanted, int) else float(text)
    except ValueError:
        raise ValueError(f"'{key}' must be {_kind(wanted)}, not '{text}'.") from None


def _kind(wanted: Any) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text", tuple: "a list of texts"}
    return kinds[type(wanted)]
