"""The façade `LabelRetriever`: asks for labels through a CSV and waits for Enter, for learners of your own.

Its interface is that of the class of this name in train_image_classifier_al (Apache License 2.0). Label files are read
as by the whole program.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import camera_trap_al.prompting as prompting
from camera_trap_al.core.intake import IntakeSettings, decide
from camera_trap_al.core.matching import ClassMatch, KnownClasses, KnownImages, nfc
from camera_trap_al.core.records import ImageKey
from camera_trap_al.errors import HELD, LabelFileError, UsageError
from camera_trap_al.labels.inbox import BinFile
from camera_trap_al.labels.lines import SelectorLines
from camera_trap_al.labels.species_csv import read_species_csv
from camera_trap_al.labels.timelapse import write_selector
from camera_trap_al.layout import WorkFolder
from camera_trap_al.prompting import Refused, say
from camera_trap_al.store import atomic

if TYPE_CHECKING:
    import pandas as pd

COLUMN = "Species"


class _AnyClass(KnownClasses):
    """Each name is a class, as it is spelled: which there are is the data set's to say."""

    def match(self, text: str) -> ClassMatch:
        return ClassMatch("class", nfc(text).strip())


class LabelRetriever:
    """Requests of images by index, the selector CSV that shows them, and the bin into which the labels come.

    `label_bin_dir`, `timelapse_selector_path` and `label_request_path` say where these are. `df_new_labels` holds the
    labels of the last label file that was whole, a data frame by index with `path`, `File`, `RelativePath` and `Species`.

    Parameters
    ----------
    unlabelled_dir : the folder of images to label, where the Timelapse template is
    work_dir : where selector, request and bin are; made if it is not there
    data_paths : data frame with the absolute paths of all images that may be asked for as `path`, by index, as
        `get_path_csv` gives it

    Raises `UsageError` for an image that is not below `unlabelled_dir`.
    """

    def __init__(
        self, unlabelled_dir: str | os.PathLike[str], work_dir: str | os.PathLike[str], data_paths: pd.DataFrame
    ) -> None:
        folder = WorkFolder.at(Path(work_dir))
        self.unlabelled_root_dir, self.work_dir = os.fspath(unlabelled_dir), os.fspath(work_dir)
        self.label_bin_dir, self.label_request_dir = str(folder.bin), str(folder.data)
        self.label_request_path, self.timelapse_selector_path = str(folder.request), str(folder.selector)
        self._root = Path(unlabelled_dir).expanduser().absolute()
        self._keys = {index: self._key(path) for index, path in data_paths["path"].items()}
        self._images = KnownImages(self._keys.values())
        self.df_lr_template = self._template(data_paths)
        self.df_new_labels: pd.DataFrame | None = None
        self._read_last: BinFile | None = None
        self._taken: set[BinFile] = set()
        for path in (folder.bin, folder.data):
            atomic.make_folder(path)

    def save_label_request(self, label_request: Sequence[int]) -> None:
        """Note which images are asked for, so that another start can go on; durable on return."""
        atomic.replace_json(Path(self.label_request_path), [int(index) for index in label_request])

    def label_request_exist(self) -> bool:
        """Return whether a request is noted that was not deleted."""
        return Path(self.label_request_path).is_file()

    def load_label_request(self) -> list[int]:
        """Return the request that is noted. Raises `OSError` if there is none."""
        return [int(index) for index in json.loads(Path(self.label_request_path).read_text(encoding="utf-8"))]

    def delete_label_request(self) -> None:
        """Forget the request that is noted: its labels are safe elsewhere. Durable on return."""
        atomic.discard_file(Path(self.label_request_path))

    def request_labels(self, label_request: Sequence[int]) -> dict[int, str]:
        """Show a request, wait for Enter until a label file answers it whole, and return index → class name."""
        self.submit_label_request(label_request)
        say(prompting.PLACE.format(self.label_bin_dir))
        while True:
            input(prompting.PROMPT)
            if self.labels_file_valid(label_request):
                if self._read_last is not None:
                    self._taken.add(self._read_last)
                return self.unpack_new_labels()

    def submit_label_request(self, label_request: Sequence[int]) -> None:
        """Write the selector CSV; durable on return. Where another program holds it, ask the person to close that."""
        selected = [self._keys[index] for index in label_request]
        while True:
            try:
                write_selector(Path(self.timelapse_selector_path), SelectorLines(self._keys.values()), selected)
                break
            except OSError as error:
                if error.errno not in HELD:
                    raise
            say(prompting.HELD.format(self.timelapse_selector_path))
            input()
        self.df_lr_template["Selected"] = [key in set(selected) for key in self._keys.values()]
        say(prompting.UPDATED)

    def labels_file_valid(self, lr_indices: Sequence[int], overwrite_new_labels: bool = True) -> bool:
        """Return whether the first label file in the bin gives each of these images one label; print why if not.

        A file that answered an earlier request is read where there is no other. Labels of other images do not matter.
        Unless `overwrite_new_labels` is False, `df_new_labels` then holds them.
        """
        try:
            labels = self._read(list(lr_indices))
        except Refused as refused:
            say(str(refused))
            if self._read_last is not None:
                say(f"The file that was read is {self._read_last.path}.")
            return False
        if overwrite_new_labels:
            self.df_new_labels = self._frame(labels)
            say(prompting.LOADED)
        return True

    def unpack_new_labels(self, df_new_labels: pd.DataFrame | None = None) -> dict[int, str]:
        """Return index → class name of a data frame such as `df_new_labels`, by default that one."""
        frame: Any = self.df_new_labels if df_new_labels is None else df_new_labels
        labels: dict[int, str] = frame[COLUMN].to_dict()
        return labels

    def _read(self, indices: list[int]) -> dict[int, str]:
        """Return index → class name. Raises `Refused`."""
        asked = [self._keys[index] for index in indices]
        self._read_last = None
        self._read_last = file = prompting.first_label_file(Path(self.label_bin_dir), self._taken.__contains__)
        try:
            source = read_species_csv(file.path, column=COLUMN, knows=self._images.knows)
            decision = decide(
                source.rows,
                images=self._images,
                classes=_AnyClass(()),
                requested=frozenset(asked),
                awaited=asked,
                current=lambda key: None,
                published={},
                settings=IntakeSettings(),
            )
        except LabelFileError as error:
            raise prompting.refusal(error, asked, self._path_of) from error
        except OSError as error:
            raise Refused(f"{prompting.NOT_LOADED}\n{error}") from error
        prompting.check_whole(decision, asked, self._images, self._path_of, may_skip=False)
        species = {taken.key: taken.species for taken in decision.taken}
        return {index: species[self._keys[index]] for index in indices}

    def _key(self, path: str) -> ImageKey:
        try:
            return ImageKey.of(Path(os.path.normpath(path)).relative_to(os.path.normpath(self._root)).as_posix())
        except ValueError as error:
            text = f"{path} is not below {self._root}."
            raise UsageError(text, hint="Only images of the folder to label can be asked for.") from error

    def _path_of(self, key: ImageKey) -> Path:
        return self._root / key.path

    def _template(self, data_paths: pd.DataFrame) -> pd.DataFrame:
        keys = self._keys.values()
        columns = {"RelativePath": [k.relative_path for k in keys], "File": [k.file for k in keys], "Selected": False}
        return data_paths.assign(**columns)

    def _frame(self, labels: Mapping[int, str]) -> pd.DataFrame:
        import pandas as pd

        keys = [self._keys[index] for index in labels]
        columns = {"path": [str(self._path_of(key)) for key in keys], "File": [key.file for key in keys]}
        columns |= {"RelativePath": [key.relative_path for key in keys], COLUMN: list(labels.values())}
        return pd.DataFrame(columns, index=pd.Index(list(labels), name="index"))
