"""`README_export.txt`: what the files of an export are, how to run them, and how the sister pipeline does."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from camera_trap_al.exporters.sister import why_not_readable

WIDTH = 118
PREPROCESSING = (
    "Decode to upright 8-bit RGB and resize to 256 x 256 pixels (bilinear, squashed, not cut): uint8"
    " (n, 256, 256, 3). Centre crop, division by 255, mean, standard deviation and embedding scaler are inside."
)

TEXT = """\
What this folder holds: checkpoint {checkpoint}, learner {learner}, {k} classes

  model.onnx                  image -> probability of each class; all that is needed to classify, even alone
  model_card.md               what it learned from, how good it is, what it must not be used for
  embedding.onnx              image -> scaled embedding ({d} numbers)
  classifier.onnx             scaled embedding -> class number, probabilities
  classes.txt, classes.json   the class names; class number 0 is the first line
  embedding_model_weights.pt  the network for PyTorch ({arch}, loss {loss})
  dataset_mean.npy, dataset_std.npy   of red, green, blue, between 0 and 1
  manifest.json               what all this was made from, and the SHA-256 of each file; written last
  check.json                  if it is there: the outcome of the last check of an export

  While the program runs it replaces these files one by one, at each new classifier. For a folder that stays as it is:
  camera-trap-al export WORK --to FOLDER

TO CLASSIFY A FOLDER OF IMAGES

  camera-trap-al predict THIS_FOLDER IMAGES --out predictions.csv

  Instead of this folder: a ZIP file of it (camera-trap-al export WORK --zip FILE.zip), or model.onnx alone.

TO USE model.onnx FROM OTHER PROGRAMS

  Input `images`, output `probabilities` (n, {k}), columns in the order of classes.txt.
  {preprocessing}
  Its metadata hold the classes, how many labels each had, input, calibration and licence.

  import json, numpy as np, onnxruntime
  from PIL import Image, ImageOps
  photo = Image.open("photo.jpg")
  photo.draft(photo.mode, (320, 320))  # large JPEGs are read small; without this, probabilities differ a little
  image = ImageOps.exif_transpose(photo).convert("RGB").resize((256, 256), Image.BILINEAR)
  session = onnxruntime.InferenceSession("model.onnx")
  probabilities = session.run(None, {{"images": np.asarray(image)[None]}})[0][0]
  print(json.loads(session.get_modelmeta().custom_metadata_map["classes"])[probabilities.argmax()])

THE ANIMAL CLASSIFIER PIPELINE (github.com/Global-ecology-and-remote-sensing/animal_classifier_pipeline)

  {sister}

  import numpy as np
  from classify_animals.main import classify_animals
  from classify_animals.scripts import config

  config.SPECIES_CATEGORIES = np.array({names})
  classify_animals(
      bb_results_path="PATH/TO/megadetector_output.json",
      image_dir="PATH/TO/IMAGES",
      model_path="PATH/TO/THIS_FOLDER",
      batch_size=1_000_000,
      classifier_batch_size=32,
  )

  1. It does not read class names, so the line config.SPECIES_CATEGORIES is needed, before classify_animals is called.
  2. It scales embeddings anew within each batch of crops, not as this classifier was trained. So the species of a crop
     depends on its neighbours: with few crops in a batch, or crops sorted by species, accuracy falls far, and a crop
     alone says nothing. batch_size must be at least the number of crops; its own default, 32, is far too small.
     classifier_batch_size changes no result, only how much memory the network needs. model.onnx has no such limit.
  3. It cuts its crops square by a rule of its own, with black fill and no margin. A model trained on whole frames or on
     wider crops does worse on them. It cannot use grey pictures: save them as colour pictures first.
  4. Its entropy threshold is not used with these models, so it never says "unknown". `camera-trap-al predict
     --min-confidence 0.6` does.
  5. The name of this folder must have no dot, or the pipeline takes it for a file. It needs numpy below version 2.
"""

READABLE = "It reads classifier.onnx, embedding_model_weights.pt, dataset_mean.npy and dataset_std.npy of this folder:"
UNREADABLE = "THIS MODEL IT CANNOT READ: {why} Everything else in this folder works. With a model that it can read:"


def readme(facts: Mapping[str, Any], classes: Sequence[str], checkpoint: int, learner: int) -> str:
    """Return the text of `README_export.txt`.

    Parameters
    ----------
    facts : of the model, as `model.json` holds them
    classes : of the classifier, in the order of its outputs
    """
    settings, why = facts["settings"], why_not_readable(facts, classes)
    sister = UNREADABLE.format(why=why) if why else READABLE
    return TEXT.format(
        checkpoint=checkpoint,
        learner=learner,
        k=len(classes),
        d=settings["feat_dim"],
        arch=settings["arch"],
        loss=settings["loss"],
        preprocessing=textwrap.fill(PREPROCESSING, WIDTH, subsequent_indent="  "),
        sister=textwrap.fill(sister, WIDTH, subsequent_indent="  "),
        names=json.dumps(list(classes), ensure_ascii=False),
    )
