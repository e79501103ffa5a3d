"""The tables of Camtrap DP 1.0.2 as the standard publishes them, and a check of every cell of a package against them."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Field:
    """A column: its type, whether a cell may be empty, and what else binds its values."""

    kind: str = "string"
    required: bool = False
    unique: bool = False
    least: float | None = None
    most: float | None = None
    words: tuple[str, ...] = ()
    pattern: str = ""


def number(least: float | None = None, most: float | None = None, *, required: bool = False) -> Field:
    return Field("number", required, least=least, most=most)


def integer(least: float | None = None, most: float | None = None) -> Field:
    return Field("integer", least=least, most=most)


def one_of(*words: str, required: bool = False) -> Field:
    return Field(words=words, required=required)


TEXT, FACT = Field(), Field("boolean")
KEY, OTHER_KEY, TIME = Field(required=True, unique=True), Field(required=True), Field("datetime", required=True)
FEATURES = (
    "roadPaved roadDirt trailHiking trailGame roadUnderpass roadOverpass roadBridge culvert burrow nestSite carcass waterSource"
    " fruitingTree"
)
TABLES: dict[str, dict[str, Field]] = {
    "deployments": {
        "deploymentID": KEY,
        "locationID": TEXT,
        "locationName": TEXT,
        "latitude": number(-90, 90, required=True),
        "longitude": number(-180, 180, required=True),
        "coordinateUncertainty": integer(1),
        "deploymentStart": TIME,
        "deploymentEnd": TIME,
        "setupBy": TEXT,
        "cameraID": TEXT,
        "cameraModel": TEXT,
        "cameraDelay": integer(0),
        "cameraHeight": number(0),
        "cameraDepth": number(0),
        "cameraTilt": integer(-90, 90),
        "cameraHeading": integer(0, 360),
        "detectionDistance": number(0),
        "timestampIssues": FACT,
        "baitUse": FACT,
        "featureType": one_of(*FEATURES.split()),
        "habitat": TEXT,
        "deploymentGroups": TEXT,
        "deploymentTags": TEXT,
        "deploymentComments": TEXT,
    },
    "media": {
        "mediaID": KEY,
        "deploymentID": OTHER_KEY,
        "captureMethod": one_of("activityDetection", "timeLapse"),
        "timestamp": TIME,
        "filePath": Field(required=True, pattern=r"^(?=^[^./~])(^((?!\.{2}).)*$).*$"),
        "filePublic": Field("boolean", required=True),
        "fileName": TEXT,
        "fileMediatype": Field(required=True, pattern=r"^(image|video|audio)/.*$"),
        "exifData": TEXT,
        "favorite": FACT,
        "mediaComments": TEXT,
    },
    "observations": {
        "observationID": KEY,
        "deploymentID": OTHER_KEY,
        "mediaID": TEXT,
        "eventID": TEXT,
        "eventStart": TIME,
        "eventEnd": TIME,
        "observationLevel": one_of("media", "event", required=True),
        "observationType": one_of("animal", "human", "vehicle", "blank", "unknown", "unclassified", required=True),
        "cameraSetupType": one_of("setup", "calibration"),
        "scientificName": TEXT,
        "count": integer(1),
        "lifeStage": one_of("adult", "subadult", "juvenile"),
        "sex": one_of("female", "male"),
        "behavior": TEXT,
        "individualID": TEXT,
        "individualPositionRadius": number(0),
        "individualPositionAngle": number(-90, 90),
        "individualSpeed": number(0),
        "bboxX": number(0, 1),
        "bboxY": number(0, 1),
        "bboxWidth": number(1e-15, 1),
        "bboxHeight": number(1e-15, 1),
        "classificationMethod": one_of("human", "machine"),
        "classifiedBy": TEXT,
        "classificationTimestamp": Field("datetime"),
        "classificationProbability": number(0, 1),
        "observationTags": TEXT,
        "observationComments": TEXT,
    },
}
RESOURCE_PROFILE = "tabular-data-resource"
SAMPLING = ("simpleRandom", "systematicRandom", "clusteredRandom", "experimental", "targeted", "opportunistic")
ROLES = ("contact", "principalInvestigator", "rightsHolder", "publisher", "contributor")
REQUIRED = {"resources", "profile", "created", "contributors", "project", "spatial", "temporal", "taxonomic"}
PROJECT = {"title", "samplingDesign", "captureMethod", "individualAnimals", "observationLevel"}
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")


def read_table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def columns(folder: Path, name: str) -> list[str]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


def cell_problem(field: Field, cell: str) -> str:
    """Return what is wrong with a cell, or ""."""
    if not cell:
        return "empty" if field.required else ""
    if field.kind == "datetime":
        if not STAMP.fullmatch(cell):
            return "no time with a zone"
        datetime.strptime(cell, "%Y-%m-%dT%H:%M:%S%z")
    if field.kind == "boolean" and cell not in ("true", "false"):
        return "neither true nor false"
    if field.kind in ("number", "integer"):
        if not re.fullmatch(r"-?\d+" if field.kind == "integer" else r"-?\d+(\.\d+)?", cell):
            return "no number"
        value = float(cell)
        if (field.least is not None and value < field.least) or (field.most is not None and value > field.most):
            return "out of bounds"
    if field.words and cell not in field.words:
        return "not in the vocabulary"
    return "pattern" if field.pattern and not re.fullmatch(field.pattern, cell) else ""


def table_problems(folder: Path, name: str) -> list[str]:
    """Return what is wrong with the cells of a table."""
    rows = read_table(folder, name)
    found = [
        f"{name} {n} {column}: {problem} ({row[column]})"
        for n, row in enumerate(rows)
        for column in row
        if (problem := cell_problem(TABLES[name][column], row[column]))
    ]
    for column, field in TABLES[name].items():
        if field.unique and len({row[column] for row in rows}) != len(rows):
            found.append(f"{name} {column}: not unique")
    return found


def problems(folder: Path) -> list[str]:
    """Return everything in which a package differs from the standard."""
    found = [problem for name in TABLES for problem in table_problems(folder, name)]
    found += [f"{name}: columns" for name in TABLES if columns(folder, name) != list(TABLES[name])]
    deployments = {row["deploymentID"] for row in read_table(folder, "deployments")}
    media = {row["mediaID"]: row for row in read_table(folder, "media")}
    for row in [*media.values(), *read_table(folder, "observations")]:
        if row["deploymentID"] not in deployments:
            found.append(f"no such deployment: {row}")
        if row["mediaID"] not in media:
            found.append(f"no such image: {row}")
    return found + description_problems(json.loads((folder / "datapackage.json").read_text(encoding="utf-8")))


def description_problems(package: dict[str, Any]) -> list[str]:
    """Return in what a `datapackage.json` differs from the profile of the standard and from that of data packages."""
    found = [f"lacks {name}" for name in REQUIRED - set(package)]
    project = package["project"]
    found += [f"project lacks {name}" for name in PROJECT - set(project)]
    wants = {
        "profile": package["profile"].endswith("/camtrap-dp/1.0.2/camtrap-dp-profile.json"),
        "name": re.fullmatch(r"[-a-z0-9._/]+", package["name"]),
        "created": STAMP.fullmatch(package["created"]),
        "contributors": package["contributors"] and all(one["title"] for one in package["contributors"]),
        "roles": all(one.get("role", ROLES[0]) in ROLES for one in package["contributors"]),
        "samplingDesign": project["samplingDesign"] in SAMPLING,
        "captureMethod": project["captureMethod"]
        and set(project["captureMethod"]) <= {"activityDetection", "timeLapse"},
        "individualAnimals": isinstance(project["individualAnimals"], bool),
        "observationLevel": project["observationLevel"] == ["media"],
        "spatial": package["spatial"]["type"] == "Polygon" and package["spatial"]["coordinates"],
        "temporal": all(re.fullmatch(r"\d{4}-\d\d-\d\d", package["temporal"][end]) for end in ("start", "end")),
        "taxonomic": all(one["scientificName"] for one in package["taxonomic"]),
        "resources": [one["name"] for one in package["resources"]] == list(TABLES),
        "resource profiles": {one["profile"] for one in package["resources"]} == {RESOURCE_PROFILE},
        "schemas": all(
            one["schema"].endswith(f"/camtrap-dp/1.0.2/{one['name']}-table-schema.json") for one in package["resources"]
        ),
        "paths": all(one["path"] == f"{one['name']}.csv" for one in package["resources"]),
    }
    return found + [name for name, is_right in wants.items() if not is_right]
