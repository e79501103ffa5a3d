from __future__ import annotations

import json
from pathlib import Path

from camera_trap_al.layout import WorkFolder
from camera_trap_al.results import best_by_validation


def test_the_checkpoint_that_was_best_on_the_validation_images_is_known(tmp_path: Path) -> None:
    folder = WorkFolder.at(tmp_path)
    for number in (3, 4, 5):
        (folder.checkpoints / f"gen-{number:06d}").mkdir(parents=True)
    assert best_by_validation(folder) == []
    measured = {10: (1, 0.99), 20: (3, 0.8), 30: (4, 0.8), 40: (5, 0.6)}
    for n_labels, (checkpoint, accuracy) in measured.items():
        path = folder.test_results / f"train_set_size_{n_labels}" / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"checkpoint": checkpoint, "accuracy": accuracy}), encoding="utf-8")
    (folder.test_results / "train_set_size_40" / "metrics.json").write_text("{", encoding="utf-8")
    assert best_by_validation(folder) == [4], "that of 10 labels is gone; of equals the newer counts"
