"""What was seen in images as a Camera Trap Data Package (Camtrap DP 1.0.2), for GBIF, Agouti, camtrapR and the like.

Standard: https://camtrap-dp.tdwg.org (TDWG). What it demands and images do not tell, such as where a camera stood, is
written so that it is valid and says of itself that it is not known (docs/camtrap-dp.md).
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from camera_trap_al.core.observed import ObservedImage
from camera_trap_al.core.records import ImageKey
from camera_trap_al.core.spreadsheets import is_safe_name, safe_cell
from camera_trap_al.errors import UsageError
from camera_trap_al.exporters.camtrap_dp_rows import MEDIA_COLUMNS, OBSERVATION_COLUMNS, HumanLabel, Rows, Rules
from camera_trap_al.exporters.tables import table, write_table
from camera_trap_al.store import atomic
from camera_trap_al.version import program_version

VERSION = "1.0.2"
SOURCE = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{VERSION}"
DESCRIPTION, DEPLOYMENTS, MEDIA, OBSERVATIONS = "datapackage.json", "deployments.csv", "media.csv", "observations.csv"
DEPLOYMENT_COLUMNS = (
    "deploymentID",
    "locationID",
    "locationName",
    "latitude",
    "longitude",
    "coordinateUncertainty",
    "deploymentStart",
    "deploymentEnd",
    "setupBy",
    "cameraID",
    "cameraModel",
    "cameraDelay",
    "cameraHeight",
    "cameraDepth",
    "cameraTilt",
    "cameraHeading",
    "detectionDistance",
    "timestampIssues",
    "baitUse",
    "featureType",
    "habitat",
    "deploymentGroups",
    "deploymentTags",
    "deploymentComments",
)
NO_TIME = "1970-01-01T00:00:00"
"""Stands for a time that is not known; such deployments have `timestampIssues`."""
NO_PLACE, WHOLE_EARTH_M = "0", "20037509"
"""Latitude and longitude that are not known, and the uncertainty that says so: half of the way around the Earth."""
WORLD = [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]]
PLACE_COMMENT = "The location is not known to the program: fill in latitude, longitude and coordinateUncertainty."
NOT_STATED = "Not stated"
TOP_FOLDER = "(top folder)"
SCIENTIFIC = re.compile(r"[A-Z][a-z-]+( [a-z][a-z.-]+){0,3}")
ZONE = re.compile(r"Z|[+-](0\d|1[0-4]):[0-5]\d")
MOST_NAMED = 5


@dataclass(frozen=True)
class PackageFacts:
    """What a package says beside the images.

    Attributes
    ----------
    classifier, detector : name and version of what classified, and of what drew the boxes; "" where there was none
    written_at : with a time zone
    time_zone : offset of the cameras' clocks from UTC, such as "+02:00", or "Z"; "" where it is not known. A fixed offset,
        since few cameras change to summer time by themselves.
    title : of the data set
    empty, unknown : the classes of images without an animal, and of animals that nobody can name
    min_confidence : a species with a lower probability is not named
    labels : images that a person labelled: that label is written in place of what programs saw
    """

    classifier: str
    written_at: datetime
    detector: str = ""
    time_zone: str = ""
    title: str = "Camera trap images"
    empty: str = "empty"
    unknown: str = "unknown"
    min_confidence: float = 0.0
    labels: Mapping[ImageKey, HumanLabel] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Package:
    """What was written: numbers of images, observations and deployments; and what a person should know, as sentences.

    `left_out` are paths that the standard cannot hold.
    """

    n_images: int
    n_observations: int
    n_deployments: int
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass
class _Deployment:
    """The images of a top folder: first and last known time of capture, and whether some have none."""

    first: str = ""
    last: str = ""
    lacks_times: bool = False

    def take(self, captured: str) -> None:
        if not captured:
            self.lacks_times = True
            return
        self.first = min(self.first or captured, captured)
        self.last = max(self.last, captured)


@dataclass
class _Written:
    deployments: dict[str, _Deployment] = field(default_factory=dict)
    species: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)
    n_images: int = 0
    n_observations: int = 0
    n_without_time: int = 0


def write_package(
    folder: Path, images: Iterable[ObservedImage], classes: Sequence[str], facts: PackageFacts
) -> Package:
    """Write `datapackage.json`, `deployments.csv`, `media.csv` and `observations.csv` into a new folder, whole or not at all.

    A deployment is a top folder of the images. Observations are of single images: one for each box, or one for the image
    where there are no boxes. Images are taken one by one, and only what is known of each deployment is kept.

    Parameters
    ----------
    folder : is not there yet, or is empty; its parent is there
    images : each once, with the boxes that count
    classes : names of all classes, in the order in which the package lists those that were seen

    Raises
    ------
    UsageError
        The folder cannot be written, or the time zone is none.
    """
    _check_folder(folder)
    if facts.time_zone and not ZONE.fullmatch(facts.time_zone):
        raise UsageError(
            f"{facts.time_zone} is no time zone.",
            hint="Give the offset of the cameras' clocks from UTC, such as +02:00 or Z.",
        )
    hidden = atomic.partial_of(folder)
    atomic.discard_folder(hidden)
    try:
        atomic.make_folder(hidden)
        written = _write_tables(hidden, images, facts)
        rows = [_deployment_row(name, seen, facts) for name, seen in sorted(written.deployments.items())]
        atomic.replace_file(hidden / DEPLOYMENTS, lambda file: write_table(file, DEPLOYMENT_COLUMNS, rows))
        atomic.replace_json(hidden / DESCRIPTION, _description(written, classes, facts))
        atomic.discard_folder(folder)
        atomic.commit_folder(hidden, folder)
    except BaseException:
        with contextlib.suppress(OSError):
            atomic.discard_folder(hidden)
        raise
    numbers = (written.n_images, written.n_observations, len(written.deployments))
    return Package(*numbers, tuple(written.left_out), tuple(_remarks(written, facts)))


def _check_folder(folder: Path) -> None:
    if not folder.absolute().parent.is_dir():
        raise UsageError(
            f"There is no folder {folder.absolute().parent}.", hint="Make it first, or name another folder."
        )
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise UsageError(
            f"{folder} is there already, and is not an empty folder.",
            hint="Name a new folder for the package: what you filled in by hand in another one is never replaced.",
        )


def _write_tables(folder: Path, images: Iterable[ObservedImage], facts: PackageFacts) -> _Written:
    """Write media and observations side by side, so that images pass once."""
    written = _Written()
    rules = Rules(facts.classifier, facts.detector, _stamp(facts.written_at), facts.empty, facts.unknown)
    make = Rows(rules, facts.min_confidence)

    def write_both(media_file: BinaryIO, observations_file: BinaryIO) -> None:
        with table(media_file, MEDIA_COLUMNS) as media, table(observations_file, OBSERVATION_COLUMNS) as observations:
            for image in images:
                path = image.key.path
                if not _can_be_held(path):
                    written.left_out.append(path)
                    continue
                name = image.key.relative_path.partition("/")[0] or TOP_FOLDER
                written.deployments.setdefault(name, _Deployment()).take(image.captured)
                written.n_without_time += not image.captured
                time = _time(image.captured or NO_TIME, facts)
                media(make.media(image, name, time))
                written.n_images += 1
                for row, species in make.observations(image, name, time, facts.labels.get(image.key)):
                    observations(row)
                    written.n_observations += 1
                    if species:
                        written.species.add(species)

    atomic.replace_file(
        folder / MEDIA,
        lambda media: atomic.replace_file(folder / OBSERVATIONS, lambda observations: write_both(media, observations)),
    )
    return written


def _can_be_held(path: str) -> bool:
    """Return whether the standard's rule for `filePath`, UTF-8 and spreadsheets allow a path, which is written as it is."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return not path.startswith((".", "/", "~")) and ".." not in path and is_safe_name(path)


def _time(local: str, facts: PackageFacts) -> str:
    return f"{local[:19]}{facts.time_zone or 'Z'}"


def _stamp(at: datetime) -> str:
    text = at.replace(microsecond=0).isoformat()
    return f"{text.removesuffix('+00:00')}Z" if text.endswith("+00:00") else text


def _deployment_row(name: str, seen: _Deployment, facts: PackageFacts) -> list[str]:
    cells = dict.fromkeys(DEPLOYMENT_COLUMNS, "")
    cells["deploymentID"] = cells["locationID"] = name
    cells["locationName"] = safe_cell(name)
    cells["latitude"] = cells["longitude"] = NO_PLACE
    cells["coordinateUncertainty"] = WHOLE_EARTH_M
    cells["deploymentStart"] = _time(seen.first or NO_TIME, facts)
    cells["deploymentEnd"] = _time(seen.last or NO_TIME, facts)
    cells["timestampIssues"] = "true" if seen.lacks_times or not facts.time_zone else "false"
    comments = [PLACE_COMMENT]
    if seen.lacks_times:
        comments.append(f"Some images do not say when they were taken; {NO_TIME} stands for that.")
    if not facts.time_zone:
        comments.append("Times are those of the camera's clock, whose time zone is not known.")
    cells["deploymentComments"] = " ".join(comments)
    return list(cells.values())


def _description(written: _Written, classes: Sequence[str], facts: PackageFacts) -> dict[str, Any]:
    """Return `datapackage.json`."""
    known = [seen for seen in written.deployments.values() if seen.first]
    first = min((seen.first for seen in known), default=NO_TIME)
    last = max((seen.last for seen in known), default=NO_TIME)
    order = {name: place for place, name in enumerate(classes)}
    species = sorted(written.species, key=lambda name: (order.get(name, len(order)), name))
    return {
        "resources": [_resource(name) for name in (DEPLOYMENTS, MEDIA, OBSERVATIONS)],
        "profile": f"{SOURCE}/camtrap-dp-profile.json",
        "name": re.sub(r"[^a-z0-9]+", "-", facts.title.lower()).strip("-") or "camera-trap-images",
        "id": str(uuid.uuid4()),
        "created": _stamp(facts.written_at),
        "title": facts.title,
        "contributors": [{"title": NOT_STATED, "role": "contact"}],
        "description": "Written by camera_trap_al. Locations, contributors and the project are to be filled in by hand.",
        "version": "1.0",
        "sources": [{"title": "camera_trap_al", "version": program_version()}],
        "project": {
            "title": facts.title,
            "samplingDesign": "opportunistic",
            "captureMethod": ["activityDetection"],
            "individualAnimals": False,
            "observationLevel": ["media"],
        },
        "spatial": {"type": "Polygon", "coordinates": WORLD},
        "temporal": {"start": first[:10], "end": last[:10]},
        "taxonomic": [{"scientificName": name} for name in species],
    }


def _resource(file: str) -> dict[str, str]:
    name = file.removesuffix(".csv")
    return {
        "name": name,
        "path": file,
        "profile": "tabular-data-resource",
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "schema": f"{SOURCE}/{name}-table-schema.json",
    }


def _remarks(written: _Written, facts: PackageFacts) -> list[str]:
    """Return what to tell a person of a package, one sentence or two each."""
    found = [
        f"Where the cameras stood is not known: all deployments ({len(written.deployments)}) are at 0, 0 with an uncertainty of"
        f" half the Earth. Fill in latitude, longitude and coordinateUncertainty in {DEPLOYMENTS}, and contributors, project"
        f" and spatial in {DESCRIPTION}."
    ]
    if not facts.time_zone:
        found.append(
            "The time zone of the cameras is not known: times are marked Z as if it were UTC, and timestampIssues is true."
        )
    if written.n_without_time:
        found.append(f"{written.n_without_time} images do not say when they were taken: {NO_TIME} stands for that.")
    vernacular = [name for name in sorted(written.species) if not SCIENTIFIC.fullmatch(name)]
    if vernacular:
        found.append(
            f"scientificName holds your class names as they are, and these are hardly scientific: {_some(vernacular)}. Replace"
            f" them in {OBSERVATIONS} and {DESCRIPTION} before you publish the package."
        )
    if written.left_out:
        found.append(
            f"{len(written.left_out)} images are left out, since the standard, UTF-8 or a spreadsheet cannot hold their path:"
            f" {_some([path.encode('utf-8', 'replace').decode() for path in written.left_out])}."
        )
    return found


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
