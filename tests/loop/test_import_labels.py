"""The verb `import-labels`: the labels of the original program, or of another work folder, come in by the same door."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from season import Season

from camera_trap_al.granting import Wish
from camera_trap_al.store.journal import read_journal
from camera_trap_al.wishes import carry_out
from camera_trap_al.work import Work
from camera_trap_al_service.cli import main


class Bomb:
    """A pickle that tells when it is opened."""

    def __init__(self, told: Path) -> None:
        self.told = told

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.told,)


def original(season: Season, root: str) -> Path:
    """Write what the original program leaves: pickles, and `path,label` with absolute paths, pool and training mixed."""
    folder = season.root / "Active Learning Files" / "data"
    folder.mkdir(parents=True)
    for name in ("data_loader.pt", "classifier.pkl"):
        (folder / name).write_bytes(pickle.dumps(Bomb(season.root / "opened")))
    rows = [f"{season.root / 'train'}/red/0.jpg,red"]
    for i, ((place, file), species) in enumerate(sorted(season.truth.items())):
        path = f"{root}/{place}/{file}" if place else f"{root}/{file}"
        rows.append(f"{path},{species if i < 20 else 'unlabelled'}")
    (folder / "labels.csv").write_text("path,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return folder / "labels.csv"


def labelled(season: Season) -> dict[tuple[str, str], str]:
    table = {tuple(path.rpartition("/")[::2]): label for path, label in season.labels_csv().items()}
    return {(str(a), str(b)): label for (a, b), label in table.items() if label != "unlabelled"}


def test_the_labels_of_the_original_program_are_taken_whoever_asked(new_season: Any, capsys: Any) -> None:
    season = new_season()
    season.turn()
    file = original(season, str(season.root / "pool"))
    assert main(["import-labels", str(season.work), str(file)]) == 0
    out = capsys.readouterr().out
    assert "20 labels of images below" in out and "1 of images elsewhere" in out and "20 labels taken" in out
    season.turn()
    assert labelled(season) == dict(sorted(season.truth.items())[:20])
    assert not (season.root / "opened").exists(), "no pickle was opened"


def test_paths_of_another_computer_need_the_folder_that_is_proposed(new_season: Any, capsys: Any) -> None:
    season = new_season()
    season.turn()
    file = original(season, "C:/Users/Lo/photos")
    before = (season.work / "data" / "journal.jsonl").read_bytes()
    assert main(["import-labels", str(season.work), str(file)]) == 2
    assert "add --from 'C:/Users/Lo/photos'" in capsys.readouterr().err
    assert (season.work / "data" / "journal.jsonl").read_bytes() == before, "nothing is guessed"
    assert main(["import-labels", str(season.work), str(file), "--from", r"c:\users\lo\photos"]) == 0
    season.turn()
    assert len(labelled(season)) == 20


def test_a_label_that_is_here_stays(new_season: Any, capsys: Any) -> None:
    season = new_season()
    season.turn()
    first = season.asked()[0]
    season.drop("a.csv", {first: "red"})
    season.turn()
    file = season.root / "labels.csv"
    file.write_text(f"path,label\n{first},blue\n{season.asked()[1]},green\n", encoding="utf-8")
    assert main(["import-labels", str(season.work), str(file)]) == 0
    assert "1 images have another label here, which stays" in capsys.readouterr().out
    season.turn()
    assert sorted(labelled(season).values()) == ["green", "red"]


def test_an_import_is_taken_once_and_can_be_undone(new_season: Any, capsys: Any) -> None:
    season = new_season()
    season.turn()
    file = original(season, str(season.root / "pool"))
    assert main(["import-labels", str(season.work), str(file)]) == 0
    season.turn()
    lines = read_journal(season.work / "data" / "journal.jsonl")[0]
    assert [line["kind"] for line in lines].count("labels") == 1, "the copy in the bin is not read again"
    seq = next(line["seq"] for line in lines if line["kind"] == "labels")
    assert main(["labels", str(season.work), "--undo", str(seq)]) == 0
    season.turn()
    assert labelled(season) == {}


@pytest.mark.slow
def test_a_crash_between_bin_and_journal_loses_nothing(new_season: Any) -> None:
    season = new_season()
    season.turn()
    files = [file for place, file in sorted(season.truth) if not place and file not in season.asked()]
    text = f"File,RelativePath,Species\r\n{files[0]},,red\r\n{files[1]},,blue\r\n"
    wish = Wish("a" * 32, "import-labels", {"text": text})
    work = Work.open(season.work)
    append, work.append = work.append, lambda kind, fields: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore
    with pytest.raises(KeyboardInterrupt):
        carry_out(work, wish)
    work.append = append  # type: ignore[method-assign]
    work.close()
    season.turn()  # the file lies in the bin, and nobody asked for these images
    work = Work.open(season.work)
    assert carry_out(work, wish).is_granted and carry_out(work, wish).text.startswith("Done")
    work.close()
    season.turn()
    assert labelled(season)["", files[1]] == "blue"
    receipts = sorted((season.work / "new_labels_bin").glob("*.receipt.json"))
    assert [json.loads(path.read_text(encoding="utf-8"))["counts"]["accepted"] for path in receipts] == [2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("File,RelativePath,Species\r\n", "no columns 'path' and 'label'"),
        ("path,label\nIMG_0000.JPG,Unicorn\n", "Nothing was taken"),
        ("path,label\n", "None of the 0 labelled paths"),
        ("", "The file is empty"),
    ],
)
def test_what_cannot_be_imported_is_said(new_season: Any, capsys: Any, content: str, words: str) -> None:
    season = new_season()
    season.turn()
    file = season.root / "labels.csv"
    file.write_text(content, encoding="utf-8")
    assert main(["import-labels", str(season.work), str(file)]) != 0
    assert words in capsys.readouterr().err
    assert not list((season.work / "new_labels_bin").iterdir())


@pytest.mark.slow
def test_labels_of_another_work_folder_are_taken(new_season: Any) -> None:
    first, second = new_season(), new_season()
    first.turn()
    first.drop("a.csv", dict.fromkeys(first.asked(), "green"))
    first.turn()
    second.turn()
    assert main(["import-labels", str(second.work), str(first.work / "data" / "labels.csv")]) == 0
    second.turn()
    assert labelled(second) == labelled(first) != {}
