"""Define the options that several commands share, with their help texts and panels."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nnjax.cli.config import (
    ACTIVATIONS,
    DECAY,
    DECAY_RANGE,
    LEARNING_RATES,
    LEAST_STEPS,
    MOST_EPOCHS,
    SCHEDULES,
    Config,
)
from nnjax.storage.paths import as_path

DEFAULTS = Config("")
NETWORK, TRAINING, MANY, DATA, OUTPUT = "Network", "Training", "Many networks", "Data", "Output"
PROCESSES = "Several processes"


def path(text: str) -> Path:
    """Parse a path and expand ~, which shells do not expand in --out=~/run. Help texts show this function's name."""
    return as_path(text)


def check_file(option: str, path: Path) -> None:
    """Check that the file of an option can be written, before the work begins.

    Raises:
      ValueError: if the path is a folder, or if its folder does not exist or is not writable.
    """
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; name a file")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(
            f"{option} {path}: the folder {path.parent} does not exist or is not writable; create it, or choose another"
        )


def path_option(help: str, panel: str, *names: str) -> Any:
    """Return an option whose value is a path."""
    return typer.Option(*names, help=help, rich_help_panel=panel, parser=path)


def option(help: str, panel: str, *names: str) -> Any:
    """Return an option with a help text and a panel; `names` are needed only for a short name such as -t."""
    return typer.Option(*names, help=help, rich_help_panel=panel)


def flag(name: str, help: str, panel: str) -> Any:
    """Return a boolean option without its negation, --no-NAME."""
    return typer.Option(name, help=help, rich_help_panel=panel)


RATES = ", ".join(f"{rate:g} for {name}" for name, rate in LEARNING_RATES.items())
LEARNING_RATE_HELP = f"Peak learning rate. Default: {RATES}."
WIDTH_HELP = "Width of the hidden layers."
DROPOUT_HELP = "Probability of dropping each hidden value. Default: 0.3; 0 for a regression."
WEIGHT_DECAY_HELP = (
    f"Weight decay of adamw and lion. Default: 0.01; for a regression with adamw, {DECAY} × features / training rows, "
    f"from {DECAY_RANGE[0]:g} to {DECAY_RANGE[1]:g}."
)
LABEL_SMOOTHING_HELP = "Fraction of each label's probability that is spread evenly over all classes."

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA", help="digits, fashion-mnist, or a file: .csv, .tsv, .csv.gz, .tsv.gz, .parquet, .npz."
    ),
]
Target = Annotated[
    str | None, option("Column to predict; several columns of numbers are separated by commas.", DATA, "--target", "-t")
]
Task = Annotated[
    Literal["classification", "regression"] | None,
    option(
        "Default: classification for text, booleans and up to 20 different integers (on average at least 3 rows for "
        "each), else regression.",
        DATA,
    ),
]
Categorical = Annotated[
    str | None,
    option("Columns that hold categories even if they look like numbers or missing values, separated by commas.", DATA),
]
Drop = Annotated[str | None, option("Columns to leave out, such as a row number, separated by commas.", DATA)]
Missing = Annotated[
    Literal["error", "drop", "mean", "median", "category"],
    option(
        "Missing values: error refuses them; drop omits their rows; mean and median fill numbers; category makes "
        "missing strings a category and fills numbers with the median.",
        DATA,
    ),
]
Na = Annotated[
    str | None,
    option("Strings that mark missing values, separated by commas, besides empty fields, NA, null and NaN.", DATA),
]
Sep = Annotated[str | None, option("Separator of the CSV file, or tab, or space. Default: detected.", DATA)]
Decimal = Annotated[
    Literal[".", ","] | None, option("Decimal separator of the CSV file. Default: detected for each column.", DATA)
]
DataDir = Annotated[
    str | None,
    option(
        "Folder with the IDX files of Fashion-MNIST. Default: $NNJAX_DATA_DIR, or the folder of Debian's package.", DATA
    ),
]
TestShare = Annotated[float, option("Fraction of the file's rows held out as test data.", DATA)]
Validation = Annotated[
    float, option("Fraction of the training rows held out for validation. 0 turns validation off.", DATA)
]

Depth = Annotated[int, option("Number of hidden layers, or with --skip, of two-layer residual blocks.", NETWORK)]
Activation = Annotated[
    str | None,
    option(f"Activation function: {', '.join(ACTIVATIONS)}. Default: relu; gelu for a regression.", NETWORK),
]
Norm = Annotated[
    Literal["none", "batch", "layer"] | None,
    option("Normalisation before each activation. Default: batch; none for a regression.", NETWORK),
]
Skip = Annotated[bool, option("Use residual blocks with skip connections.", NETWORK)]

Optimizer = Annotated[str, option(f"Update rule: {', '.join(LEARNING_RATES)}.", TRAINING)]
Schedule = Annotated[str, option(f"Learning-rate schedule: {', '.join(SCHEDULES)}.", TRAINING)]
ClassWeights = Annotated[
    Literal["none", "balanced"],
    option("Class weights in the training loss. balanced: inversely proportional to class frequencies.", TRAINING),
]
Clip = Annotated[float | None, option("Clip the global norm of the gradient. Default: no clipping.", TRAINING)]
BatchSize = Annotated[int, option("Examples per step. The default is at most the number of training rows.", TRAINING)]
Epochs = Annotated[
    float | None,
    option(
        "Passes over the training data; may be a fraction. Default: 40; for a regression as many as needed for "
        f"{LEAST_STEPS:,} steps, from 40 to {MOST_EPOCHS:,}.",
        TRAINING,
    ),
]
Patience = Annotated[
    int | None,
    option(
        "Early stopping: stop after this many epochs without a lower validation loss and keep the best network. "
        "Default: never stop.",
        TRAINING,
    ),
]
Seed = Annotated[int, option("Random seed for the split, initialisation, data order and dropout.", TRAINING)]

Strategy = Annotated[
    Literal["map", "vmap"] | None,
    option(
        "map: one network after another, bitwise equal to single runs on a CPU. vmap: all in parallel. Default: map on "
        "CPUs, vmap on GPUs and TPUs.",
        MANY,
    ),
]
Group = Annotated[
    int | None,
    option("Number of networks in memory at the same time. Default: all, or fewer if they do not fit.", MANY),
]

Coordinator = Annotated[str | None, option("host:port of the first process, the same in all processes.", PROCESSES)]
Processes = Annotated[int | None, option("Number of processes.", PROCESSES)]
ProcessId = Annotated[int | None, option("Index of this process, counted from 0.", PROCESSES)]
Cluster = Annotated[bool, flag("--cluster", "Read the three options above from the cluster's environment.", PROCESSES)]

Resume = Annotated[
    Path | None, path_option("Continue the interrupted run in this folder, with its saved settings.", OUTPUT)
]
Anyway = Annotated[
    bool, flag("--anyway", "With --resume: continue even if the machine or the libraries have changed.", OUTPUT)
]
Plots = Annotated[bool, option("Draw the pictures.", OUTPUT)]
