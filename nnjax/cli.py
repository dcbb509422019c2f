"""The command line: `nnjax train` and `nnjax predict`."""

import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

try:
    import typer
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Grid
except ModuleNotFoundError as missing:
    raise SystemExit(f"the nnjax command needs {missing.name}: pip install 'nnjax[cli]'") from missing

import jax
import numpy as np

from nnjax import checks, data, nn, plot, train
from nnjax.data.load import Dataset
from nnjax.data.table import Table, read_table
from nnjax.train import folder
from nnjax.train.config import ACTIVATIONS, LEARNING_RATES, SCHEDULES, Config, make_net, make_run
from nnjax.types import Data, Params, State

app = typer.Typer(
    help="Train neural networks as pure functions of a key and the data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console(stderr=False, highlight=False)
DEFAULTS = Config("")

Norm = Literal["none", "batch", "layer"]
TaskName = Literal["classification", "regression"]
NET, TRAINING, DATA, OUTPUT = "Network", "Training", "Data", "Output"


def say(text: str) -> None:
    """A line with markup, as long as it is: broken lines are hard to copy."""
    console.print(text, soft_wrap=True)


def complain(text: str, before: str = "") -> None:
    """A message on the error stream; only what stands before it is markup."""
    Console(stderr=True, highlight=False).print(before + escape(text), soft_wrap=True)


def option(help: str, panel: str) -> Any:
    """An option in one of the help's boxes."""
    return typer.Option(help=help, rich_help_panel=panel)


@app.command("train")
def train_command(
    name: Annotated[str, typer.Argument(metavar="DATA", help="digits, fashion-mnist, or a .csv or .npz file.")],
    target: Annotated[str | None, option("Column of a CSV file to be predicted.", DATA)] = None,
    task: Annotated[TaskName | None, option("By default chosen by the target's values.", DATA)] = None,
    data_dir: Annotated[str | None, option("Where Fashion-MNIST's IDX files are; also $NNJAX_DATA_DIR.", DATA)] = None,
    test_share: Annotated[float, option("Share of a file's rows held out for the test.", DATA)] = DEFAULTS.test_share,
    validation: Annotated[
        float, option("Share of the training rows held out to watch the training; 0 for none.", DATA)
    ] = DEFAULTS.validation,
    width: Annotated[int, option("Width of the hidden layers.", NET)] = DEFAULTS.width,
    depth: Annotated[int, option("Hidden layers; with --skip, residual blocks of two.", NET)] = DEFAULTS.depth,
    activation: Annotated[str, option(f"{', '.join(ACTIVATIONS)}.", NET)] = DEFAULTS.activation,
    norm: Annotated[Norm, option("Normalisation before each activation.", NET)] = DEFAULTS.norm,
    dropout: Annotated[float, option("Probability of dropping a hidden value.", NET)] = DEFAULTS.dropout,
    skip: Annotated[bool, option("Skip connections: residual blocks.", NET)] = DEFAULTS.skip,
    optimizer: Annotated[str, option(f"{', '.join(LEARNING_RATES)}.", TRAINING)] = DEFAULTS.optimizer,
    learning_rate: Annotated[
        float | None,
        option(f"Highest rate; by default {', '.join(f'{r:g} for {k}' for k, r in LEARNING_RATES.items())}.", TRAINING),
    ] = None,
    schedule: Annotated[str, option(f"{', '.join(SCHEDULES)}.", TRAINING)] = DEFAULTS.schedule,
    weight_decay: Annotated[float | None, option("For adamw and lion; 0.01 by default.", TRAINING)] = None,
    clip: Annotated[float | None, option("Largest norm of the gradient; no limit by default.", TRAINING)] = None,
    batch_size: Annotated[int, option("Examples per step.", TRAINING)] = DEFAULTS.batch_size,
    epochs: Annotated[float, option("How often each example is seen.", TRAINING)] = DEFAULTS.epochs,
    seed: Annotated[int, option("Everything random follows from it.", TRAINING)] = DEFAULTS.seed,
    out: Annotated[Path | None, option("Folder for the run; by default runs/DATA-DATE-TIME.", OUTPUT)] = None,
    plots: Annotated[bool, option("Draw the pictures.", OUTPUT)] = True,
) -> None:
    """Train a network and write a run folder: settings, metrics per epoch, weights, pictures.

    For example: nnjax train digits, or nnjax train wine.csv --target cultivar --epochs 100
    """
    began = time.perf_counter()
    config = Config(
        name, data_dir, target, task, test_share, validation, width, depth, activation, norm, dropout, skip,
        optimizer, learning_rate, schedule, weight_decay, clip, batch_size, epochs, seed,
    )  # fmt: skip
    _check_settings(config)
    device = jax.devices()[0]
    versions = {package: version(package) for package in ("nnjax", "jax", "jaxlib", "optax")}
    say(
        f"[bold]nnjax[/] {versions['nnjax']} on {len(jax.devices())} × {device.device_kind} ({device.platform}), "
        f"jax {versions['jax']}, optax {versions['optax']}, Python {sys.version.split()[0]}"
    )
    dataset = data.load(name, data_dir=data_dir, target=target, task=task, test_share=test_share, seed=seed)
    training, held_out = _validation(dataset, validation, seed)
    table = dataset.table
    n, features = training.x.shape
    outputs = len(table.classes) if table.task == "classification" else 1
    say(
        f"{table.task} ({escape(dataset.why)}): {n:,} rows to train on, "
        f"{0 if held_out is None else len(held_out.x):,} for validation, {len(dataset.test.x):,} for the test, "
        f"{features} features"
    )
    run = make_run(config, table.task, outputs, n)
    _print_network(nn.as_layer(run.net), training)
    path = folder.create(out or Path("runs") / f"{Path(name).stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder.save_config(path, config, table, versions)

    callbacks = [_line_per_tenth(epochs)]
    try:
        result = train.fit(
            run, training, epochs=epochs, key=jax.random.key(seed), validation=held_out, callbacks=callbacks
        )
    except KeyboardInterrupt:
        complain(f"stopped; {path} holds the settings of this run and no weights")
        raise typer.Exit(130) from None
    scores = {key: float(value) for key, value in jax.jit(run.evaluate)(result.ts, dataset.test).items()}
    history = [_in_units(record, table) for record in result.history]
    scores = _in_units(scores, table)
    folder.save_weights(path / folder.WEIGHTS, result.ts.params, result.ts.state)
    folder.write_records(path / folder.METRICS, history)
    seconds = result.seconds._asdict()
    folder.write_json(path / folder.RESULT, {"test": scores, "steps": int(result.ts.step), "seconds": seconds})
    _print_scores(scores, table)
    steps = len(result.losses)
    say(
        f"compile {seconds['compile']:.2f} s, train {seconds['train']:.2f} s ({steps:,} steps, "
        f"{steps / max(seconds['train'], 1e-9):,.0f} per second), validate {seconds['validate']:.2f} s"
    )
    if plots:
        _draw(path, jax.jit(run.predict)(result.ts, dataset.test.x), dataset, history)
    say(f"written to [bold]{escape(str(path))}[/] after {time.perf_counter() - began:.1f} s")


@app.command("predict")
def predict_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or NPZ file with the features of the training.")],
    out: Annotated[Path | None, typer.Option(help="CSV file to write; by default RUN/predictions.csv.")] = None,
) -> None:
    """Predict with a trained network: a row for each row of FILE, with probabilities for classes.

    For example: nnjax predict runs/wine-20260101-120000 new.csv
    """
    config, table = folder.load_config(run_folder)
    frame = read_table(file)
    if len(frame) == 0:
        raise ValueError(f"{file}: 0 rows")
    width = len(frame.columns) - (table.target in frame)
    if file.suffix.lower() == ".npz" and width != len(table.columns):
        raise ValueError(f"{file}: x has {width} features, the run was trained on {len(table.columns)}")
    with checks.located(f"in {file}"):
        x = table.features(frame)
    net = make_net(config, len(table.classes) or 1)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, x.shape[1]), x.dtype))
    params, state = folder.load_weights(run_folder / folder.WEIGHTS, *shapes)
    outputs = _predict(net, params, state, x)
    out = out or run_folder / "predictions.csv"
    if table.task == "classification":
        names = [f"p({name})" for name in table.classes]
        probabilities = np.asarray(nn.softmax(jax.numpy.asarray(outputs))).astype(float)
        rows: list[dict[str, Any]] = [
            {table.target: table.classes[p.argmax()], **dict(zip(names, p.tolist(), strict=True))}
            for p in probabilities
        ]
    else:
        rows = [{table.target: float(v) * table.target_std + table.target_mean} for v in outputs[:, 0]]
    folder.write_records(out, rows)
    say(f"{len(rows):,} predictions written to [bold]{escape(str(out))}[/]")


def main() -> None:
    """The `nnjax` command: a user's mistake is a message and exit code 2, never a traceback."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        app()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        complain(f"{error}{notes}", "[bold red]error[/] ")
        raise SystemExit(2) from None


def _check_settings(config: Config) -> None:
    """What is wrong whatever the data is said before they are read."""
    checks.positive_int("--width", "width", config.width)
    checks.in_range("--depth", "depth", config.depth, "[1, inf)" if config.skip else "[0, inf)")
    checks.in_range("--validation", "share", config.validation, "[0, 1)")
    checks.in_range("--test-share", "share", config.test_share, "(0, 1)")
    checks.in_range("--seed", "seed", config.seed, f"[0, {2**32})")  # what a key of JAX holds
    if config.batch_size == 1 and config.norm == "batch":
        raise ValueError("--batch-size 1: one example has no variance to normalise by; use --norm layer or none")
    make_run(config, "classification", outputs=2, n=1)


def _in_units(record: dict[str, float], table: Table) -> dict[str, float]:
    """A regression's root mean squared error in the units of the target."""
    return {name: value * table.target_std if name.endswith("rmse") else value for name, value in record.items()}


def _validation(dataset: Dataset, share: float, seed: int) -> tuple[Data, Data | None]:
    """The training part without, and with a part to watch the training by."""
    if share == 0:
        return dataset.train, None
    y = np.asarray(dataset.train.y)
    classify = dataset.table.task == "classification"
    with checks.located("in holding out --validation; 0 for none"):
        first, second = data.split_rows(y, share, seed=seed, stratify=classify)
    x = np.asarray(dataset.train.x)
    return Data(x[first], y[first]), Data(x[second], y[second])


def _print_network(net: nn.Layer, training: Data) -> None:
    summary = nn.summary(net, jax.ShapeDtypeStruct((1, *training.x.shape[1:]), training.x.dtype))
    grid = Grid("layer", "output", title=None, header_style="bold")
    grid.add_column("parameters", justify="right")
    for row in summary.rows:
        grid.add_row("  " * (len(row.path) - 1) + row.name, row.output, f"{row.params:,}")
    grid.add_section()
    grid.add_row(summary.name, "", f"{summary.params:,}")
    console.print(grid)


def _print_scores(scores: dict[str, float], table: Table) -> None:
    if table.task == "classification":
        say(
            f"[bold]test accuracy {scores['accuracy']:.4f}[/]   NLL {scores['nll']:.4f} nats   "
            f"Brier {scores['brier']:.4f}   calibration error {scores['expected_calibration_error']:.4f}"
        )
    else:
        say(f"[bold]test R² {scores['r2']:.4f}[/]   RMSE {scores['rmse']:.4g} (in the units of {escape(table.target)})")


def _line_per_tenth(epochs: float) -> Any:
    """Where there is no terminal to draw a bar on: a line for every tenth of the run."""
    shown = [0]

    def callback(ts: Any, record: dict[str, float]) -> None:
        tenth = int(10 * record["epoch"] / epochs) if epochs else 0
        if not sys.stderr.isatty() and tenth > shown[0]:
            shown[0] = tenth
            scores = "".join(
                f"  {name.replace('_', ' ')} {record[name]:.4f}"
                for name in ("validation_accuracy", "validation_r2")
                if name in record
            )
            epoch = min(round(record["epoch"], 1), epochs)
            print(f"epoch {epoch:g}/{epochs:g}  loss {record['loss']:.4f}{scores}", file=sys.stderr)

    return callback


def _draw(path: Path, prediction: Any, dataset: Dataset, history: list[dict[str, float]]) -> None:
    table = dataset.table
    prediction, y = np.asarray(prediction), np.asarray(dataset.test.y)
    figures = {"curves": plot.curves(history)} if history else {}
    if table.task == "classification":
        figures["confusion"] = plot.confusion(prediction, y, table.classes)
        figures["reliability"] = plot.reliability(prediction, y)
    else:
        true, predicted = (v[:, 0] * table.target_std + table.target_mean for v in (y, prediction))
        figures["predictions"] = plot.predictions(predicted, true, table.target)
    for name, figure in figures.items():
        folder.write(path / f"{name}.png", plot.png(figure))


def _predict(net: nn.Layer, params: Params, state: State, x: np.ndarray) -> np.ndarray:
    """Outputs in blocks, so that a long file does not need the memory of all its activations."""
    forward = jax.jit(lambda x: net.apply(params, state, x, train=False)[0])
    return np.concatenate([np.asarray(forward(x[i : i + 4096])) for i in range(0, len(x), 4096)])


def _show_warning(message: Warning | str, *_: Any) -> None:
    complain(str(message), "[bold yellow]warning[/] ")


if __name__ == "__main__":
    main()
