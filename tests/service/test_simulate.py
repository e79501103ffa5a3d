"""The verb `simulate`: folders and a truth file in, curves and a summary out; and what cannot be used."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from camera_trap_al_service.cli import main

HUES = ["red", "green", "blue"]
OPTIONS = ["-o", "embedding.arch=tiny", "-o", "embedding.feat_dim=8", "-o", "use_pretrained=false"]
OPTIONS += ["-o", "daemon.worker=inline", "--processes", "1", "--seeds", "1", "--batch", "10", "--budget", "20"]


def species(i: int) -> str:
    return HUES[i % 7 % 3]


def place(i: int) -> tuple[str, str]:
    return ["", "site a", "site b"][i % 3], f"IMG_{i // 3:04d}.JPG"


@pytest.fixture
def truth(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of truth files; as an export of Timelapse unless `as_paths`, of the first n images."""

    def write(n: int = 60, *, as_paths: bool = False, more: list[list[str]] | None = None) -> Path:
        path = tmp_path / "truth.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label"] if as_paths else ["File", "RelativePath", "Species"])
            for i in range(n):
                folder, name = place(i)
                writer.writerow(
                    [f"{folder}/{name}".lstrip("/"), species(i)] if as_paths else [name, folder, species(i)]
                )
            writer.writerows(more or [])
        return path

    return write


def arguments(pictures: Path, truth: Path, out: Path) -> list[str]:
    folders = ["--train", str(pictures / "train"), "--unlabelled", str(pictures / "pool")]
    return [
        "simulate",
        *folders,
        "--validation",
        str(pictures / "validation"),
        "--truth",
        str(truth),
        "--out",
        str(out),
    ]


@pytest.mark.slow
def test_a_season_is_replayed_from_its_folders_and_a_second_call_goes_on(
    pictures: Path, tmp_path: Path, truth: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [*arguments(pictures, truth(58, as_paths=True), out), *OPTIONS, "--heads", "logistic"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "58 images to label, 6 to train on, 12 for validation, 3 classes" in printed
    assert "Left out: 2 images without a true label." in printed
    said = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert said["season"]["n_pool"] == 58 and said["season"]["left_out"] == {"images without a true label": 2}
    assert {"uniform", "uniform+logistic", "seed_recipe"} <= set(said["methods"])
    assert said["saving_against_seed"].keys() == {"accuracy", "macro_f1"}
    stamps = {path.name: path.stat().st_mtime_ns for path in (out / "replays").iterdir()}
    assert main([*command, "--strategies", "entropy"]) == 0
    again = {path.name: path.stat().st_mtime_ns for path in (out / "replays").iterdir()}
    assert {name: again[name] for name in stamps} == stamps
    assert "entropy+logistic 000.json" in again
    assert main([*command, "--truth", str(truth(57)), "-o", "query.per_sequence=2", "-o", "labels.column=SPECIES"]) == 0
    assert "57 images to label" in capsys.readouterr().out
    assert main([*command, "-o", "embedding.feat_dim=9"]) == 2
    assert "another embedding.feat_dim" in capsys.readouterr().err


@pytest.mark.slow
def test_several_species_unsure_and_strange_images_are_left_out_and_counted(
    pictures: Path, tmp_path: Path, truth: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    more = [["IMG_0000.JPG", "", "RED"], ["IMG_0000.JPG", "site a", "blue"], ["IMG_9999.JPG", "", "red"]]
    pictures = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    (pictures / "pool" / "site a" / "bad.jpg").write_bytes(b"no image")
    more.append(["bad.jpg", "site a", "red"])
    file = truth(59, more=[*more, ["IMG_0019.JPG", "site b", "unsure"]])
    assert main([*arguments(pictures, file, tmp_path / "out"), *OPTIONS, "--heads", "logistic"]) == 0
    said = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert said["season"]["left_out"] == {
        "images marked as unsure": 1,
        "images with several species": 1,
        "images that cannot be read": 1,
        "rows of the truth file that name no image of this folder": 1,
    }
    assert said["season"]["classes"] == sorted(HUES)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (["--strategies", "margins"], "Did you mean 'margin'"),
        (["--heads", "logistics"], "Did you mean 'logistic'"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--truth", "nowhere.csv"], "no truth file"),
        (["--validation", "nowhere"], "does not exist"),
        (["-o", "embedding.arch=resnet19"], "Did you mean"),
        (["-o", "embedding_train_num_epochs=3"], "takes no -o embedding_train_num_epochs: in replays it is 0"),
        (["-o", "query.strategy=margin"], "Use --strategies"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_made(
    pictures: Path,
    tmp_path: Path,
    truth: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    text: str,
) -> None:
    out = tmp_path / "out"
    assert main([*arguments(pictures, truth(), out), *OPTIONS, *change]) == 2
    assert text in capsys.readouterr().err and not out.exists()


def test_the_folder_of_results_may_not_lie_among_the_images(
    pictures: Path, truth: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = pictures / "pool" / "out"
    assert main([*arguments(pictures, truth(), out), *OPTIONS]) == 2
    assert "taken for images" in capsys.readouterr().err and not out.exists()


def test_a_folder_that_holds_something_else_is_left_as_it_is(
    pictures: Path, tmp_path: Path, truth: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    assert main([*arguments(pictures, truth(), out), *OPTIONS]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("File,RelativePath,Species\nelse.jpg,,red\n", "has a label for none of the 60 images"),
        ("name,class\na.jpg,red\n", "needs the columns path and label"),
        ("", "truth.csv is no file of true labels"),
        ("path;label\nIMG_0000.JPG;grey\nIMG_0001.JPG;pink\n", "No class of the validation images occurs"),
        ("path,label\nIMG_0000.JPG,red\nIMG_0001.JPG,Red\n", "to learn from are 'red'"),
    ],
)
def test_a_truth_file_that_says_nothing_of_these_images_is_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    file = tmp_path / "truth.csv"
    file.write_text(text, encoding="utf-8")
    without_train = [*arguments(pictures, file, tmp_path / "out"), *OPTIONS, "--train", ""]
    assert main(without_train) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "out" / "work" / "models").glob("*")), "said before hours of embedding"
