"""The options that several commands share, with their texts and their places in the help's boxes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nnjax.cli.config import ACTIVATIONS, LEARNING_RATES, SCHEDULES, Config

DEFAULTS = Config("")
NET, TRAINING, MANY, DATA, OUTPUT = "Network", "Training", "Many networks", "Data", "Output"
SEVERAL = "Several processes"


def option(help: str, panel: str) -> Any:
    """An option in one of the help's boxes."""
    return typer.Option(help=help, rich_help_panel=panel)


RATES = ", ".join(f"{rate:g} for {name}" for name, rate in LEARNING_RATES.items())

Name = Annotated[str | None, typer.Argument(metavar="DATA", help="digits, fashion-mnist, or a .csv or .npz file.")]
Target = Annotated[str | None, option("Column of a CSV file to be predicted.", DATA)]
Task = Annotated[
    Literal["classification", "regression"] | None, option("By default chosen by the target's values.", DATA)
]
DataDir = Annotated[str | None, option("Where Fashion-MNIST's IDX files are; also $NNJAX_DATA_DIR.", DATA)]
TestShare = Annotated[float, option("Share of a file's rows held out for the test.", DATA)]
Validation = Annotated[float, option("Share of the training rows held out to watch the training; 0 for none.", DATA)]

Depth = Annotated[int, option("Hidden layers; with --skip, residual blocks of two.", NET)]
Activation = Annotated[str, option(f"{', '.join(ACTIVATIONS)}.", NET)]
Norm = Annotated[Literal["none", "batch", "layer"], option("Normalisation before each activation.", NET)]
Skip = Annotated[bool, option("Skip connections: residual blocks.", NET)]

Optimizer = Annotated[str, option(f"{', '.join(LEARNING_RATES)}.", TRAINING)]
Schedule = Annotated[str, option(f"{', '.join(SCHEDULES)}.", TRAINING)]
Clip = Annotated[float | None, option("Largest norm of the gradient; no limit by default.", TRAINING)]
BatchSize = Annotated[int, option("Examples per step.", TRAINING)]
Epochs = Annotated[float, option("How often each example is seen.", TRAINING)]
Patience = Annotated[
    int | None,
    option("Epochs without a lower validation loss after which to stop; the best network is kept.", TRAINING),
]
Seed = Annotated[int, option("Everything random follows from it.", TRAINING)]

Strategy = Annotated[
    Literal["map", "vmap"],
    option("One network after the other, with the bits of lone runs, or all in step.", MANY),
]
Group = Annotated[int | None, option("Networks in memory at a time; all by default.", MANY)]

Coordinator = Annotated[
    str | None, option("host:port of the first of several processes, which all get this same command.", SEVERAL)
]
Processes = Annotated[int | None, option("How many processes there are.", SEVERAL)]
ProcessId = Annotated[int | None, option("Which one this is, from 0.", SEVERAL)]
Cluster = Annotated[
    bool, typer.Option("--cluster", help="One of several, as the cluster's environment says.", rich_help_panel=SEVERAL)
]

Resume = Annotated[
    Path | None, option("Folder of what was interrupted: go on, with the settings it was begun with.", OUTPUT)
]
Anyway = Annotated[
    bool,
    typer.Option("--anyway", help="With --resume: even where machine or libraries changed.", rich_help_panel=OUTPUT),
]
Plots = Annotated[bool, option("Draw the pictures.", OUTPUT)]
