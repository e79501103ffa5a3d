"""`run_active_learning` in this process: what it prints, asks, takes and refuses, and how it goes on."""

from __future__ import annotations

import errno
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from camera_trap_al import prompting
from camera_trap_al.labels import timelapse
from camera_trap_al.lock import is_held
from camera_trap_al.main_scripts import run_active_learning
from camera_trap_al.store.journal import read_journal

ASKS = """
Timelapse data selector file has been updated.
Please import it into the Timelapse database.


Please place exported Timelapse CSV in the labels bin at
{bin}

Press enter when you have placed the labels in the labels bin
"""
LIST = "Please assign a label from the list of available classes."


def lines_of(session: Any, kind: str) -> list[dict[str, Any]]:
    lines, _, _ = read_journal(session.output / "data" / "journal.jsonl")
    return [line for line in lines if line["kind"] == kind]


def metrics(session: Any) -> dict[int, dict[str, Any]]:
    found = (session.output / "test_results").glob("train_set_size_*/metrics.json")
    return {int(path.parent.name[15:]): json.loads(path.read_text(encoding="utf-8")) for path in found}


def test_it_asks_until_every_image_has_a_label_and_tests_before_each_request_and_at_the_end(
    session: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked: list[list[str]] = []
    tested: list[list[int]] = []

    def answer() -> None:
        asked.append(session.asked())
        tested.append(sorted(metrics(session)))
        session.put("labels.csv")

    assert session.run(answer, answer, answer) == 3
    images = [image for request in asked for image in request]
    assert [len(request) for request in asked] == [5, 5, 4] and len(set(images)) == 14
    assert session.labels() == {image: session.truth(image) for image in images}
    assert tested == [[6], [6, 11], [6, 11, 16]] and sorted(metrics(session)) == [6, 11, 16, 20]
    for name in ("accuracy", "micro_precision", "micro_recall", "macro_precision", "macro_recall", "conf_mat_classes"):
        assert name in metrics(session)[20], name
    said = capsys.readouterr().out
    assert said == (ASKS.format(bin=session.bin) + "Labels were loaded successfully\n") * 3
    story = [record.getMessage() for record in caplog.records]
    assert story.count("Saving checkpoint...") == story.count("Checkpoint saved successfully") == 4
    order = [
        "Will not start from checkpoint either because it should not be used or could not be found",
        "Extracting embedding...",
        "Finished extracting embedding",
        "Saving checkpoint...",
        "Checkpoint saved successfully",
        "No unlabelled images remain. Terminating program",
    ]
    places = [next(i for i, said in enumerate(story) if said.startswith(line)) for line in order]
    assert places == sorted(places)
    assert (session.bin / "labels.csv").is_file(), "what people put into the bin stays"
    assert session.run() == 0, "nothing is left to ask"


@pytest.mark.slow
def test_the_selector_lists_every_image_in_sub_folders_in_every_round(session: Any) -> None:
    seen: list[list[dict[str, str]]] = []

    def answer() -> None:
        seen.append(session.selector())
        session.put("labels.csv")

    session.run(answer)
    session.run(answer)
    for rows in seen:
        assert list(rows[0]) == ["File", "RelativePath", "Selected"]
        assert len(rows) == 14 and {row["RelativePath"] for row in rows} == {"site a", "site b/card 2"}
        assert sum(row["Selected"] == "true" for row in rows) == 5


def test_each_problem_is_told_in_the_known_words_and_nothing_of_the_file_is_taken(
    session: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    asked: list[str] = []

    def hears(act: Callable[[], object]) -> Callable[[], None]:
        def step() -> None:
            told.append(capsys.readouterr().out)
            asked[:] = asked or session.asked()
            assert not lines_of(session, "labels")
            act()

        return step

    def right() -> dict[str, str]:
        return {image: session.truth(image) for image in asked}

    def put(labels: dict[str, str], **given: Any) -> None:
        session.put("labels.csv", labels, **given)

    def several() -> None:
        first = asked[0]
        wrong = next(name for name in ("red", "green") if name != session.truth(first))
        session.write("labels.csv", [*right().items(), (first, wrong)])

    def not_text() -> None:
        (session.bin / "labels.csv").write_bytes(b"PK\x03\x04 a workbook")

    def no_bin() -> None:
        shutil.rmtree(session.bin)

    def empty_bin() -> None:
        session.bin.mkdir()
        (session.bin / "notes.txt").write_text("no labels", encoding="utf-8")

    last = hears(lambda: put(right()))
    acts = [
        no_bin,
        empty_bin,
        not_text,
        lambda: put(right(), header="Name,RelativePath,Species"),
        lambda: put(right(), header="File,Path,Species"),
        lambda: put(right(), header="File,RelativePath,Class"),
        lambda: put(dict(list(right().items())[2:])),
        several,
        lambda: put({**right(), asked[1]: "gren"}),
        lambda: put({**right(), asked[1]: "unlabelled"}),
    ]
    n = session.run(*map(hears, acts), last)
    assert n == 12 and len(lines_of(session, "labels")) == 1
    read = f"The file that was read is {session.bin / 'labels.csv'}."
    paths = [str(session.root / "pool" / image) for image in asked]
    expected: list[list[str]] = [
        ["Labels bin does not exist\n"],
        ["There are no CSV files in the labels bin\n"],
        [prompting.NOT_LOADED, read],
        ["File column does not exist in new labels CSV\n", read],
        ["RelativePath column does not exist in new labels CSV\n", read],
        ["Species column does not exist in new labels CSV\n", read],
        [
            "\nNot all label requests were fulfilled. Please label the\nfollowing images:\n\n['",
            *paths[:2],
            "']\n",
            read,
        ],
        [
            f"The following images have multiple labels. Please ensure that each image has only 1 label\n{paths[:1]}\n",
            read,
        ],
        [f"A label of 'gren' for image {asked[1]} is not a valid label. {LIST} Did you mean green", read],
        [f"A label of 'unlabelled' for image {asked[1]} is not a valid label. {LIST}", read],
    ]
    for text, parts in zip(told[1:], expected, strict=True):
        for part in parts:
            assert part in text
        assert text.endswith(f"{prompting.PROMPT}\n") and prompting.LOADED not in text
    assert prompting.LOADED in capsys.readouterr().out


@pytest.mark.slow
def test_labels_of_images_that_were_not_selected_are_ignored(session: Any) -> None:
    def answer_all() -> None:
        every = [f"{row['RelativePath']}/{row['File']}" for row in session.selector()]
        session.put("all.csv", {image: session.truth(image) for image in every})

    def answer_and_contradict() -> None:
        session.put("all.csv", dict.fromkeys(before, "blue") | {i: session.truth(i) for i in session.asked()})

    session.run(answer_all)
    before = session.labels()
    assert len(before) == 5
    session.run(answer_and_contradict)
    after = session.labels()
    assert len(after) == 10 and {image: after[image] for image in before} == before


@pytest.mark.slow
def test_one_file_with_all_labels_may_stay_in_the_bin_for_every_round(session: Any) -> None:
    def answer_all() -> None:
        session.put(
            "all.csv", {f"{r['RelativePath']}/{r['File']}": session.truth(r["File"]) for r in session.selector()}
        )

    assert session.run(answer_all, lambda: None, lambda: None) == 3
    assert len(session.labels()) == 14 and {line["name"] for line in lines_of(session, "labels")} == {"all.csv"}


@pytest.mark.slow
def test_the_first_file_by_name_that_was_not_taken_is_read(session: Any, capsys: pytest.CaptureFixture[str]) -> None:
    acts = [
        lambda: session.put("b.csv"),
        lambda: None,
        lambda: (session.put("c.csv"), session.put("d.csv", {})),
        lambda: (
            session.put("z.csv", {}),
            (session.bin / "sub").mkdir(),
            session.put("sub/a.csv"),
            session.put("a.CSV"),
        ),
    ]
    assert session.run(*acts) == 4
    assert [line["name"] for line in lines_of(session, "labels")] == ["b.csv", "c.csv", "a.CSV"]
    said = capsys.readouterr().out
    assert "b.csv. It was taken before: is the new one in the bin?" in said and said.count(prompting.LOADED) == 3


@pytest.mark.slow
def test_an_image_that_cannot_be_told_or_is_gone_does_not_stop_it(
    session: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    gone: list[str] = []

    def answer_but_two() -> None:
        first, second, *others = session.asked()
        gone.append(str(session.root / "pool" / first))
        (session.root / "pool" / first).unlink()
        session.put("labels.csv", {second: "unsure"} | {image: session.truth(image) for image in others})

    assert session.run(answer_but_two, *[lambda: session.put("labels.csv")] * 2) == 3
    assert len(session.labels()) == 12 and "1 images cannot be used and are no longer asked for" in caplog.text
    assert f"The following images are gone, so they are no longer asked for\n{gone}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_many_images_that_are_gone_are_taken_for_a_disk_that_is_away(
    session: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = session.root / "hidden"
    away: list[str] = []

    def answer_the_rest() -> None:
        images = session.asked()
        sites = [image.partition("/")[0] for image in images]
        away.append(max(set(sites), key=sites.count))  # three or more of the five images, whichever are asked for
        (session.root / "pool" / away[0]).rename(hidden)
        session.put("labels.csv", {image: session.truth(image) for image in images if not image.startswith(away[0])})

    def bring_back() -> None:
        hidden.rename(session.root / "pool" / away[0])
        session.put("labels.csv")

    assert session.run(answer_the_rest, bring_back) == 3
    said = capsys.readouterr().out
    assert "is a disk or share away?" in said and f'rescan --gone "{session.output}"' in said
    assert "Not all label requests were fulfilled" in said and len(session.labels()) == 5


@pytest.mark.slow
def test_a_selector_that_is_held_open_is_asked_to_be_closed(
    session: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, held = timelapse.write_selector, [True, True]

    def write_unless_held(*given: Any) -> None:
        if held:
            raise PermissionError(errno.EACCES, "held", str(given[0]))
        write(*given)

    monkeypatch.setattr(timelapse, "write_selector", write_unless_held)
    assert session.run(held.pop, held.pop, lambda: session.put("labels.csv")) == 4
    said = capsys.readouterr().out
    assert said.startswith(prompting.HELD.format(session.output / "timelapse_selector.csv") + "\n")
    assert said.count("CSV for selecting timelapse data could not be edited.") == 2 and len(session.labels()) == 5


@pytest.mark.slow
def test_it_goes_on_where_it_was_left_with_the_model_and_folders_it_has(
    session: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    session.run()
    asked, models = session.asked(), sorted((session.output / "models").iterdir())
    caplog.clear()
    other = session.root / "other"
    shutil.copytree(session.root / "train", other)
    session.run(lambda: session.put("labels.csv"), train_data=other, feat_dim=9, active_batch=3)
    assert len(session.asked()) == 3 and not set(session.asked()) & set(asked)
    assert set(session.labels()) == set(asked) and sorted((session.output / "models").iterdir()) == models
    assert "Starting from checkpoint" in caplog.text and "Will not start" not in caplog.text
    assert f"train_data goes on with {session.root / 'train'}; {other} is ignored" in caplog.text
    assert "feat_dim" in caplog.text
    assert not is_held(session.output / "daemon.lock")
    session.run(train_data="gone", validation_data=session.root / "nowhere")


@pytest.mark.slow
def test_without_checkpoints_it_learns_anew_and_keeps_every_label(
    session: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    session.run(lambda: session.put("labels.csv"))
    labels, request = session.labels(), session.asked()
    other = session.root / "other"
    shutil.copytree(session.root / "train", other)
    caplog.clear()
    session.run(use_checkpoints=False, train_data=other, feat_dim=9)
    assert "Will not start from checkpoint" in caplog.text
    facts = [json.loads(path.read_text()) for path in (session.output / "models").glob("gen-*/model.json")]
    assert [fact["settings"]["feat_dim"] for fact in facts] == [9]
    assert session.labels() == labels and not set(session.asked()) & set(labels)
    assert session.asked() == request, "what a person may be labelling just now stays asked for"
    session.run(lambda: session.put("labels.csv"))
    assert len(session.labels()) == 10


@pytest.mark.slow
def test_ctrl_c_at_the_prompt_ends_and_the_next_call_asks_for_the_same(session: Any) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.run(interrupt)
    asked = session.asked()
    assert not is_held(session.output / "daemon.lock")
    session.run(lambda: None)
    assert session.asked() == asked


@pytest.mark.slow
def test_fine_tuning_comes_between_two_rounds(session: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    learners: list[int] = []
    session.run(*[lambda: session.put("labels.csv")] * 2, embedding_finetuning_period=5)
    learners = [line["learner"] for line in lines_of(session, "request")]
    assert learners == [1, 2, 3], "each request is chosen by what was learned last"


@pytest.mark.slow
def test_it_can_be_told_never_to_fine_tune(session: Any) -> None:
    session.run(*[lambda: session.put("labels.csv")] * 2, embedding_finetuning_period=float("inf"))
    assert [line["learner"] for line in lines_of(session, "request")] == [1, 1, 1]


@pytest.mark.slow
def test_tests_can_be_left_out(session: Any) -> None:
    session.run(validate_model=False)
    assert metrics(session) == {}


@pytest.fixture
def bare_logging() -> Iterator[logging.Logger]:
    """Logging as in a fresh program: no handlers, level WARNING."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    root.setLevel(logging.WARNING)
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_setting_the_level_is_enough_to_see_the_log(
    session: Any, bare_logging: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger().setLevel(logging.INFO)
    bare_logging.handlers[:] = []
    session.run()
    shown = capsys.readouterr().err
    assert "Will not start from checkpoint" in shown and "Extracting embedding..." in shown
    assert "Finished extracting embedding" in shown and "Checkpoint saved successfully" in shown


def test_the_module_loads_neither_torch_nor_the_service() -> None:
    assert run_active_learning.__module__ == "camera_trap_al.main_scripts"
    import subprocess

    code = (
        "import sys, camera_trap_al.main_scripts; print(sorted({'torch', 'pandas', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"
