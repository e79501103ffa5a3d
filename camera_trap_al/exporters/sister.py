"""Whether the sister pipeline (animal_classifier_pipeline) can read an export, by the rules of its own loader.

It builds the named torchvision network anew, puts a new last layer where it knows how, and takes the weights only if
every one fits. It never uses the layer that a softmax loss adds, but builds it for as many classes as it is told of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UNKNOWN_NETWORK = (
    "it cannot rebuild the network {arch} with {d} dimensions. Train with resnet18, or another resnet, densenet, vgg"
    " or alexnet, if you need it there."
)
OTHER_CLASSES = (
    "the network was trained with the loss softmax for {there} classes, and the classifier now has {here}; the pipeline"
    " wants as many. The next fine-tuning of the network brings them together; the loss triplet has no such limit."
)


def why_not_readable(facts: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Return why the sister pipeline cannot read the network, to follow a colon, or "" where it can.

    Parameters
    ----------
    facts : of the model, as `model.json` holds them
    classes : of the classifier
    """
    settings = facts["settings"]
    if not facts.get("sister_pipeline_reads", True):
        return UNKNOWN_NETWORK.format(arch=settings["arch"], d=settings["feat_dim"])
    if settings["loss"] == "softmax" and len(facts["classes"]) != len(classes):
        return OTHER_CLASSES.format(there=len(facts["classes"]), here=len(classes))
    return ""
