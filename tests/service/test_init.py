"""`init`: what it finds, what it makes, and the sentence for each folder or option that cannot be used."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from camera_trap_al.config_file import read_config
from camera_trap_al.errors import EXIT_USAGE, CameraTrapAlError
from camera_trap_al.labels.template import read_template
from camera_trap_al_service.cli import main


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (90, 80, 10)).save(path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("train/fox/1.jpg", "train/Élan/1.jpg", "pool/a/1.JPG", "pool/2.jpg", "pool/b/3.png", "pool/b/v.mp4"):
        if name.endswith("mp4"):
            (tmp_path / name).write_bytes(b"")
        else:
            picture(tmp_path / name)
    return tmp_path


def init(place: Path, *more: str, train: str = "train", pool: str = "pool") -> int:
    folders = ["--train", str(place / train)] if train else []
    return main(["init", str(place / "work"), *folders, "--unlabelled", str(place / pool), *more])


def test_it_says_what_it_found_and_makes_work_folder_and_template(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(place, "-o", "active_batch=25", "-o", "embedding_arch=tiny", "-o", "classes.empty=leer") == 0
    said = capsys.readouterr().out
    for words in (
        "Training images: 2",
        "2 classes: fox 1, Élan 1",
        "Images to label: 3",
        "1 videos",
        "1 pictures that",
    ):
        assert words in said
    config = read_config(place / "work" / "config.toml")
    assert config.query.batch == 25 and config.embedding.arch == "tiny"
    template = read_template(place / "pool" / "TimelapseTemplate.tdb")
    species = template.field("Species")
    assert species is not None and species.choices == ("fox", "leer", "Élan", "unsure")
    assert {f.data_label for f in template.fields} >= {"Selected", "Prediction", "Confidence", "Confirmed", "Count"}


def test_it_says_what_embedding_again_costs_where_the_decoded_images_do_not_fit(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(place) == 0
    assert "There is room for" not in capsys.readouterr().out
    shutil.rmtree(place / "work")
    assert init(place, "-o", "cache.max_gb=0.0006") == 0
    said = capsys.readouterr().out
    assert "There is room for 3 of them decoded" in said and "With cache.px = 176 it holds all of them" in said
    shutil.rmtree(place / "work")
    assert init(place, "-o", "cache.max_gb=0") == 0
    said = capsys.readouterr().out
    assert "No decoded image is kept (cache.max_gb = 0)" in said and "cache.px" not in said


def test_a_template_that_is_there_is_not_touched(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "pool" / "Mine.tdb").write_bytes(b"theirs")
    assert init(place) == 0
    assert (place / "pool" / "Mine.tdb").read_bytes() == b"theirs" and "was not changed" in capsys.readouterr().out
    assert not (place / "pool" / "TimelapseTemplate.tdb").exists()


def test_without_any_class_the_species_are_typed(place: Path) -> None:
    assert init(place, train="") == 0
    species = read_template(place / "pool" / "TimelapseTemplate.tdb").field("Species")
    assert species is not None and species.type == "Note"
    assert read_config(place / "work" / "config.toml").classes.auto_add


def test_an_empty_class_folder_is_kept_as_a_class(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "train" / "lynx").mkdir()
    assert init(place) == 0
    assert "no image yet for 'lynx'" in capsys.readouterr().out
    assert read_config(place / "work" / "config.toml").classes.names == ("lynx",)


def no_pool(place: Path) -> list[str]:
    return ["--unlabelled", str(place / "nowhere")]


def case_twins(place: Path) -> list[str]:
    picture(place / "train" / "Fox" / "1.jpg")
    return []


def accent_twins(place: Path) -> list[str]:
    picture(place / "train" / unicodedata.normalize("NFD", "Élan") / "1.jpg")
    return []


def images_in_the_top_folder_only(place: Path) -> list[str]:
    picture(place / "flat" / "1.jpg")
    return ["--train", str(place / "flat")]


def an_empty_training_folder(place: Path) -> list[str]:
    (place / "nothing").mkdir()
    return ["--train", str(place / "nothing")]


def only_videos(place: Path) -> list[str]:
    (place / "films").mkdir()
    (place / "films" / "1.mp4").write_bytes(b"")
    return ["--unlabelled", str(place / "films")]


def a_reserved_class(place: Path) -> list[str]:
    picture(place / "train" / "unlabelled" / "1.jpg")
    return []


def a_full_work_folder(place: Path) -> list[str]:
    (place / "work").mkdir()
    (place / "work" / "theirs.txt").write_text("x", encoding="utf-8")
    return []


BAD = {
    "missing images": (no_pool, "does not exist"),
    "classes equal but for case": (case_twins, "differ only in upper and lower case"),
    "classes equal but for the form of accents": (accent_twins, "way accents are stored"),
    "images in the top folder": (images_in_the_top_folder_only, "lie directly in it"),
    "empty training folder": (an_empty_training_folder, "It needs a folder for each class"),
    "only videos": (only_videos, "no photograph in"),
    "a reserved class": (a_reserved_class, "'unlabelled'"),
    "a folder with other things": (a_full_work_folder, "not empty; nothing was changed"),
    "training inside the pool": (lambda p: ["--train", str(p / "pool" / "a")], "would count twice"),
    "unknown option": (lambda p: ["-o", "active_bach=3"], "Did you mean 'active_batch'?"),
    "unknown architecture": (lambda p: ["-o", "embedding_arch=resnet81"], "Did you mean 'resnet18'?"),
    "loss and selection that do not fit": (
        lambda p: ["-o", "embedding_loss_data_strategy=hard_pair"],
        "triplet",
    ),
    "no two of a class in a batch": (
        lambda p: ["-o", "balanced_loader_num_samples=1"],
        "Set loader.samples to 2 or more",
    ),
    "weights that are not there": (lambda p: ["-o", "embedding_weights=/no/such.pt"], "does not exist"),
    "no key": (lambda p: ["-o", "x"], "is not KEY=VALUE"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_gets_one_sentence_and_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    prepare: Callable[[Path], list[str]]
    prepare, words = BAD[name]
    more = prepare(place)
    before = sorted(place.rglob("*"))
    assert init(place, *more) == EXIT_USAGE
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert sorted(place.rglob("*")) == before


def test_a_second_init_leaves_the_first_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init(place) == 0 and init(place) == EXIT_USAGE
    assert "is a work folder already" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["run", "status", "check", "export"])
def test_a_folder_that_is_none_of_ours_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert main([verb, str(tmp_path)]) == EXIT_USAGE
    assert "is not a work folder" in capsys.readouterr().err
    (tmp_path / "config.toml").write_text("[tool]\nx = 1\n", encoding="utf-8")
    assert main([verb, str(tmp_path)]) == EXIT_USAGE
    assert "another program" in capsys.readouterr().err and len(list(tmp_path.iterdir())) == 1


def test_errors_carry_their_hint_and_code() -> None:
    error = CameraTrapAlError("It broke.", hint="Mend it.")
    assert str(error) == "It broke. Mend it." and error.exit_code == 1
