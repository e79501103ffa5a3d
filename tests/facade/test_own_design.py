"""The three classes that the reference program offers to learners of one's own, used as documented."""

from __future__ import annotations

import doctest
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from camera_trap_al import prompting
from camera_trap_al.labels import timelapse
from camera_trap_al.strategies import strategies
from camera_trap_al.utils import objects
from camera_trap_al.utils.objects import LabelRetriever

DOCS = Path(__file__).resolve().parents[2] / "docs" / "scripts.md"
UNLABELLED = float("-inf")


def truth_of(path: str) -> str:
    return ("red", "green", "blue")[int(path[-6:-4]) % 7 % 3]


def answer(folder: Path, name: str = "labels.csv", **changed: str) -> None:
    """Put a label file into the bin of a work folder: the right answer to its selector, but for some file names."""
    selected = pd.read_csv(folder / "timelapse_selector.csv", keep_default_na=False)
    rows = selected[selected["Selected"].astype(str).str.lower() == "true"].copy()
    rows["Species"] = [changed.get(file[:6], truth_of(file)) for file in rows["File"]]
    rows[rows["Species"] != ""].to_csv(folder / "new_labels_bin" / name, index=False)


@pytest.mark.slow
def test_the_documented_example_runs(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt="": answer(tmp_path / "work"))
    given = {name: str(drawn / folder) for name, folder in FOLDERS.items()}
    given |= {"work_dir": str(tmp_path / "work"), "snapshot": tmp_path / "snapshot.csv"}
    text = DOCS.read_text(encoding="utf-8").replace("```", "")
    test = doctest.DocTestParser().get_doctest(text, given, "scripts.md", str(DOCS), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test)
    assert runner.tries > 10 and runner.failures == 0
    snapshot = pd.read_csv(tmp_path / "snapshot.csv")
    assert list(snapshot) == ["path", "label"] and set(snapshot["label"]) == {"red", "green", "blue"}


FOLDERS = {"train_data": "train", "unlabelled_data": "pool", "validation_data": "validation"}


@pytest.fixture
def folder(drawn: Path) -> Any:
    from camera_trap_al.deep_learning.data_loader import ExtendedImageFolder

    return ExtendedImageFolder(drawn / "train")


@pytest.mark.slow
def test_a_folder_gives_image_class_and_path_and_takes_others(folder: Any, drawn: Path) -> None:
    from torchvision.datasets import ImageFolder

    assert isinstance(folder, ImageFolder) and folder.classes == ["blue", "green", "red"] and len(folder) == 6
    image, target, path = folder[0]
    assert image.size == (256, 256) and target == 0 and Path(path).is_absolute()
    assert folder.mean.shape == folder.std.shape == (3,) and folder.mean.dtype == np.float64
    assert 0 < folder.mean.min() < folder.mean.max() < 1
    new = folder.add_data(drawn / "pool", ignore_labels=True)
    assert new == list(range(6, 20)), "the image directly in the folder is left out"
    assert {folder[i][1] for i in new} == {UNLABELLED} == {folder.unlab_class_num}
    assert folder.add_data(drawn / "validation") == [20, 21, 22] and folder.targets[20:] == [0, 1, 2]
    assert folder.get_labelled_indices() == [*range(6), 20, 21, 22]
    assert folder.imgs is folder.samples and len(folder.samples) == len(folder.targets) == 23
    folder.update_labels({7: "red", 8: "green"})
    assert folder[7][1] == 2 and folder.targets[8] == 1 and folder.samples[8][1] == 1
    snapshot = folder.get_snapshot()
    assert list(snapshot.columns) == ["path", "label"] and list(snapshot["label"][6:9]) == [
        "unlabelled",
        "red",
        "green",
    ]
    assert list(snapshot["path"]) == [path for path, _ in folder.samples], "so that another program finds them"
    paths = folder.get_path_csv([8, 6])
    assert list(paths.index) == [8, 6] and paths.index.name == "index" and paths.loc[8, "path"] == folder.samples[8][0]


@pytest.mark.slow
def test_labels_and_folders_that_cannot_be_used_change_nothing(folder: Any, drawn: Path, tmp_path: Path) -> None:
    targets = list(folder.targets)
    with pytest.raises(ValueError, match="'rad'.*Did you mean 'red'"):
        folder.update_labels({0: "red", 1: "rad"})
    with pytest.raises(ValueError, match="no image number 6"):
        folder.update_labels({0: "red", 6: "red"})
    with pytest.raises(ValueError, match="no class"):
        folder.add_data(drawn / "pool")
    with pytest.raises(ValueError, match="no photograph"):
        folder.add_data(tmp_path)
    assert folder.targets == targets and len(folder) == 6


@pytest.mark.slow
def test_a_class_can_be_taken_out(folder: Any) -> None:
    folder.remove_label("green")
    assert folder.classes == ["blue", "red"] and folder.targets == [0, 0, UNLABELLED, UNLABELLED, 1, 1]


@pytest.mark.slow
def test_loaders_give_images_targets_and_paths(folder: Any, drawn: Path) -> None:
    folder.add_data(drawn / "pool", ignore_labels=True)
    images, targets, paths = next(iter(folder.getSingleLoader(num_workers=0, shuffle=False, transfm="val")))
    assert images.shape == (20, 3, 224, 224) and str(images.dtype) == "torch.float32"
    assert targets.tolist() == folder.targets and list(paths) == [path for path, _ in folder.samples]
    assert abs(float(images[:6].mean())) < 0.3
    balanced = folder.getBalancedLoader(P=20, K=10, num_workers=0, sub_indices=range(6))
    (batch,) = list(balanced)
    assert len(balanced) == 1 and np.bincount(batch[1].numpy()).tolist() == [10, 10, 10]
    train = folder.getSingleLoader(num_workers=0, shuffle=False, sub_indices=[0])
    folder.getSingleLoader(num_workers=0, transfm="val")
    first, again = (next(iter(train))[0] for _ in range(2))
    assert not bool((first == again).all()), "a loader for tests does not change one for training"


@pytest.mark.slow
def test_loading_processes_of_any_kind_work(folder: Any) -> None:
    assert pickle.loads(pickle.dumps(folder)).samples == folder.samples
    loader = folder.getSingleLoader(batch_size=3, num_workers=1, shuffle=False, transfm="val")
    loader.multiprocessing_context, loader.timeout = "spawn", 300
    assert [len(batch[2]) for batch in loader] == [3, 3]


class FakeFolder:
    """A data set without images: 6 labelled ones of two classes on a line, and others between them."""

    classes = ["left", "right"]

    def __init__(self, n: int = 20) -> None:
        self.targets: list[float] = [0, 0, 0, 1, 1, 1] + [UNLABELLED] * (n - 6)
        self.samples = [(f"{i}.jpg", target) for i, target in enumerate(self.targets)]
        self.places = np.concatenate([[-3, -2, -2.5, 2, 3, 2.5], np.linspace(-1, 1, n - 6)])[:, None]

    def __len__(self) -> int:
        return len(self.targets)

    def get_labelled_indices(self) -> list[int]:
        return [i for i, target in enumerate(self.targets) if target >= 0]

    def relative_path(self, index: int) -> str:
        return f"site/{index}.jpg"

    def update_labels(self, labels: dict[int, str]) -> None:
        for index, name in labels.items():
            self.targets[index] = self.classes.index(name)


class Line:
    """A classifier that is sure at the ends of the line."""

    classes_ = np.array([0, 1])

    def predict_proba(self, places: np.ndarray) -> np.ndarray:
        right = 1 / (1 + np.exp(-3 * places[:, 0]))
        return np.stack([1 - right, right], axis=1)


def environment_of(folder: Any, strategy: str = "margin", **given: Any) -> Any:
    from camera_trap_al.deep_learning.active_learning_manager import ActiveLearningEnvironment

    return ActiveLearningEnvironment(folder, None, strategy, embedding=folder.places, **given)


def test_an_environment_asks_where_the_model_is_least_sure_and_moves_what_is_labelled() -> None:
    environment = environment_of(FakeFolder())
    assert environment.active_pool == list(range(6)) and environment.default_pool == list(range(6, 20))
    asked = environment.sample_labels(4, Line())
    assert all(type(index) is int for index in asked) and sorted(asked) == [11, 12, 13, 14]
    assert asked == environment.sample_labels(4, Line()), "the same pools, the same request"
    environment.add_new_labels({11: "left", 12: "left", 13: "right", 14: "right"})
    assert environment.num_new_labels == 4 and environment.get_pool_size("active") == 10
    assert not set(asked) & set(environment.default_pool) and environment.get_pool_size("default") == 10
    places, targets = environment.get_train_set()
    assert places.shape == (10, 1) and targets.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    assert not environment.val_pool_exists()
    assert sorted(environment.sample_labels(100, Line())) == environment.default_pool


@pytest.mark.slow
@pytest.mark.parametrize("name", strategies.names())
def test_an_environment_works_with_every_strategy(name: str) -> None:
    environment = environment_of(FakeFolder(30), name)
    asked = environment.sample_labels(5, Line())
    assert len(set(asked)) == 5 and set(asked) <= set(environment.default_pool)


def test_an_environment_goes_on_with_the_pools_it_is_given() -> None:
    pools = {"active": [0, 3], "default": [6, 7], "val": [1, 4]}
    environment = environment_of(FakeFolder(), data_pools=pools, num_new_labels=7)
    assert environment.get_test_set()[1].tolist() == [0, 1] and environment.val_pool_exists()
    assert environment.num_new_labels == 7 and environment.get_pools()["default_indices"] == [6, 7]
    with pytest.raises(TypeError):
        environment_of(FakeFolder(), data_pools=[0, 1])


def test_what_an_environment_does_not_know_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'margin'"):
        environment_of(FakeFolder(), "margn")
    with pytest.raises(ValueError, match="'defalt'.*Did you mean 'default'"):
        environment_of(FakeFolder()).get_pool_size("defalt")


@pytest.fixture
def retriever(drawn: Path, tmp_path: Path) -> LabelRetriever:
    paths = sorted(str(path) for path in (drawn / "pool").rglob("IMG_*.jpg"))
    frame = pd.DataFrame({"index": range(40, 40 + len(paths)), "path": paths}).set_index("index")
    return LabelRetriever(drawn / "pool", tmp_path / "deep" / "work", frame)


def test_a_request_is_shown_answered_and_forgotten(
    retriever: LabelRetriever, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Path(retriever.work_dir)
    acts = [lambda: None, lambda: answer(work, IMG_00=""), lambda: answer(work)]
    monkeypatch.setattr("builtins.input", lambda prompt="": acts.pop(0)())
    assert not retriever.label_request_exist()
    retriever.save_label_request([40, 48, 53])
    assert retriever.label_request_exist() and retriever.load_label_request() == [40, 48, 53]
    labels = retriever.request_labels([40, 48, 53])
    names = {index: Path(path).name for index, path in retriever.df_lr_template["path"].items()}
    assert labels == {index: truth_of(names[index]) for index in (40, 48, 53)}
    assert list(retriever.df_lr_template["Selected"]).count(True) == 3
    assert retriever.df_new_labels is not None and list(retriever.df_new_labels.index) == [40, 48, 53]
    said = capsys.readouterr().out
    assert said.startswith(prompting.UPDATED) and prompting.PLACE.format(retriever.label_bin_dir) in said
    assert prompting.NO_FILE in said and "Not all label requests were fulfilled" in said and "IMG_00.jpg" in said
    assert said.endswith(f"{prompting.LOADED}\n")
    retriever.delete_label_request()
    assert not retriever.label_request_exist()


def test_the_selector_lists_every_image_as_timelapse_reads_it(retriever: LabelRetriever) -> None:
    retriever.submit_label_request([41])
    rows = Path(retriever.timelapse_selector_path).read_bytes().decode().split("\r\n")
    assert rows[0] == "File,RelativePath,Selected" and len(rows) == 16
    assert rows[1:3] == ["IMG_00.jpg,site a,false", "IMG_02.jpg,site a,true"] and rows[-3].startswith(
        "IMG_11.jpg,site b/card 2,"
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["IMG_00.jpg,site a,red", "IMG_00.jpg,site a,blue"], "have multiple labels"),
        (["IMG_02.jpg,site a,red"], "Not all label requests were fulfilled"),
        (["IMG_00.jpg,site a,"], "Not all label requests were fulfilled"),
        (["IMG_00.jpg,site a,red", "IMG_02.jpg,site a,blue", "IMG_02.jpg,site a,red"], ""),
        (["IMG_00.jpg,site a,unsure"], ""),
        (["IMG_00.jpg,site a,None"], ""),
    ],
)
def test_a_file_is_good_if_each_image_asked_for_has_one_label(
    retriever: LabelRetriever, capsys: pytest.CaptureFixture[str], rows: list[str], words: str
) -> None:
    text = "\n".join(["File,RelativePath,Species", *rows, ""])
    (Path(retriever.label_bin_dir) / "a.csv").write_text(text, encoding="utf-8")
    assert retriever.labels_file_valid([40], overwrite_new_labels=False) is (not words)
    assert words in capsys.readouterr().out and retriever.df_new_labels is None
    if not words:
        assert retriever.labels_file_valid([40]) and retriever.unpack_new_labels() == {40: rows[0].split(",")[2]}


def test_classes_that_differ_only_in_upper_and_lower_case_stay_apart(retriever: LabelRetriever) -> None:
    rows = ["IMG_00.jpg,site a,Fox", "IMG_02.jpg,site a,fox", "IMG_04.jpg,site a,fox", ""]
    text = "\n".join(["File,RelativePath,Species", *rows])
    (Path(retriever.label_bin_dir) / "a.csv").write_text(text, encoding="utf-8")
    assert retriever.labels_file_valid([40, 41, 42])
    assert retriever.unpack_new_labels() == {40: "Fox", 41: "fox", 42: "fox"}
    frame = retriever.df_new_labels
    assert frame is not None and list(frame.columns) == ["path", "File", "RelativePath", "Species"]


def test_a_file_that_answered_an_earlier_request_does_not_hide_a_new_one(
    retriever: LabelRetriever, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Path(retriever.work_dir)
    acts = [lambda: answer(work, "a.csv"), lambda: None, lambda: answer(work, "b.csv")]
    monkeypatch.setattr("builtins.input", lambda prompt="": acts.pop(0)())
    assert list(retriever.request_labels([40])) == [40] and list(retriever.request_labels([41])) == [41]
    said = capsys.readouterr().out
    assert said.count("Not all label requests") == 1
    assert f"The file that was read is {work / 'new_labels_bin' / 'a.csv'}." in said


def test_a_held_selector_is_asked_to_be_closed(
    retriever: LabelRetriever, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = [True]

    def write_unless_held(*given: Any) -> None:
        if held:
            raise PermissionError(13, "held", str(given[0]))
        timelapse.write_selector(*given)

    monkeypatch.setattr(objects, "write_selector", write_unless_held)
    monkeypatch.setattr("builtins.input", held.pop)
    retriever.submit_label_request([40])
    said = capsys.readouterr().out
    assert said == f"{prompting.HELD.format(retriever.timelapse_selector_path)}\n{prompting.UPDATED}\n"
    assert Path(retriever.timelapse_selector_path).is_file()


def test_a_folder_may_be_named_by_way_of_another(drawn: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": [str(drawn / "pool" / "site a" / "IMG_00.jpg")]})
    retriever = LabelRetriever(drawn / "train" / ".." / "pool", tmp_path / "work", frame)
    assert list(retriever.df_lr_template["RelativePath"]) == ["site a"]


def test_images_elsewhere_cannot_be_asked_for(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": [str(tmp_path / "other" / "a.jpg")]})
    with pytest.raises(ValueError, match="is not below"):
        LabelRetriever(tmp_path / "pool", tmp_path / "work", frame)
