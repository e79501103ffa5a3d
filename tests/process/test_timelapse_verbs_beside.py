"""The verbs for Timelapse beside a running program, and what they bring when it does not run."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands import LONGEST_S, Commands, shows, wait_for
from image_database import write_database
from season import Season

from camera_trap_al.labels.template import read_template
from camera_trap_al.store.journal import read_journal
from camera_trap_al_service.timelapse_user import ImageSet

pytestmark = pytest.mark.slow


def labelled_database(season: Season) -> Path:
    """Play the person who labels what is asked for in Timelapse and exports nothing."""
    template = season.root / "pool" / "TimelapseTemplate.tdb"
    user = ImageSet.open(season.root / "pool", template)
    user.import_csv(season.work / "timelapse_selector.csv")
    for row in user.select_selected():
        user.set_species(row, season.truth[row.key])
    rows = [row.values for row in user.select_all()]
    return write_database(season.root / "pool" / "TimelapseData.ddb", rows, template=template)


def n_labels(season: Season) -> int:
    lines, _, _ = read_journal(season.work / "data" / "journal.jsonl")
    return sum(len(line.get("rows", ())) for line in lines)


def test_labels_of_a_database_that_timelapse_has_open_close_the_round(
    new_season: Callable[..., Any], commands: Commands
) -> None:
    season = new_season(daemon__worker="process")
    daemon = commands.start("run", season.work)
    wait_for(shows(season.work, 1), "round 1 is shown", daemon)
    database = labelled_database(season)
    with closing(sqlite3.connect(database)) as timelapse:
        timelapse.execute("SELECT * FROM DataTable").fetchone()
        code, said = commands.run("import-timelapse", season.work, database)
        assert code == 2 and "9 labels would be taken" in said and "Add --yes" in said
        code, said = commands.run("import-timelapse", season.work, database, "--yes")
    assert code == 0 and "9 labels taken" in said, said
    wait_for(shows(season.work, 2), "round 2 is shown", daemon)
    wait_for(lambda: list((season.work / "new_labels_bin").glob("*.receipt.json")), "a receipt", daemon)
    daemon.terminate()
    daemon.communicate(timeout=LONGEST_S)
    assert n_labels(season) == 9
    season.turn()
    code, said = commands.run("import-timelapse", season.work, labelled_database(season), "--yes")
    assert code == 0 and n_labels(season) == 18, said


def test_classes_are_added_while_the_program_runs(new_season: Callable[..., Any], commands: Commands) -> None:
    season = new_season(daemon__worker="process", classes__names=("owl",))
    template = season.root / "pool" / "TimelapseTemplate.tdb"
    with closing(sqlite3.connect(template)) as editor, editor:
        editor.execute("UPDATE TemplateTable SET List = '' WHERE DataLabel = 'Species'")
    daemon = commands.start("run", season.work)
    wait_for(shows(season.work, 1), "round 1 is shown", daemon)
    database = labelled_database_of_nothing(season)
    os.utime(database, (time.time() - 3600,) * 2)
    code, said = commands.run("template", season.work, "--add-classes")
    assert code == 0 and "blue, green, owl, red" in said
    species = read_template(template).field("Species")
    assert species is not None and species.choices == ("blue", "green", "owl", "red")
    assert commands.run("template", season.work)[0] == 0 and daemon.poll() is None


def labelled_database_of_nothing(season: Season) -> Path:
    template = season.root / "pool" / "TimelapseTemplate.tdb"
    return write_database(season.root / "pool" / "TimelapseData.ddb", [], template=template)
