"""The options of the running program: how it works, what it writes for others, its log, and whom it tells."""

from __future__ import annotations

from dataclasses import dataclass

from camera_trap_al.option import option


@dataclass(frozen=True)
class DaemonConfig:
    """The running program."""

    worker: str = option(
        "process",
        "Where networks are trained. process: beside the rounds; inline: between them.",
        choices=("process", "inline"),
    )
    resume: bool = option(
        True,
        "Go on with the networks and embeddings of earlier runs. false: each start sets them aside and learns anew from all"
        " labels, which are always kept.",
        alias="use_checkpoints",
    )
    rescan_s: float = option(600.0, "Seconds between two searches for new images.", low=1)
    poll_s: float = option(
        5.0, "Seconds between two looks into new_labels_bin, beside the system's own notices.", low=0.05
    )
    seed: int = option(0, "Seed of all random choices. 0: taken from the work folder's own number.", low=0)
    state_dir: str = option(
        "", "Local folder for private files, where the work folder is on a network share. Empty: the work folder."
    )
    min_free_mb: float = option(
        64.0, "Megabytes that must be free on the disk before anything is begun; with less, it waits.", low=0
    )


@dataclass(frozen=True)
class ReportConfig:
    """What the program writes of its predictions, after each round."""

    recognitions: str = option(
        "auto",
        "timelapse_recognitions.json, what the classifier thinks as Timelapse's recognitions. always; never; auto: of up to"
        " 100,000 images.",
        choices=("auto", "always", "never"),
    )


@dataclass(frozen=True)
class LogConfig:
    """The log of `run`, in `log/` of the work folder."""

    file: bool = option(True, "Write the log to a file too. false: where the system keeps what the program says.")
    max_mb: float = option(5.0, "Megabytes at which a new file is begun.", low=0.01, high=10_000)
    keep: int = option(4, "Older files that are kept.", low=1, high=1000)


@dataclass(frozen=True)
class NotifyConfig:
    """A command that is run when labels are awaited or a person is needed (docs/service.md)."""

    command: tuple[str, ...] = option(
        (),
        "The program and its arguments, such as ['/usr/local/bin/mail-me.sh'], without a shell. What happened is in"
        " CAMERA_TRAP_AL_EVENT (labels_wanted, problem or finished), _TEXT, _ROUND and _WORK. Empty: none.",
    )
    every_s: float = option(3600.0, "Seconds at least between two messages of one kind of problem.", low=0)
