"""The command line: `nnjax train` and `nnjax predict`."""

import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

try:
    import typer
    from rich.console import Console
    from rich.table import Table as Grid
except ModuleNotFoundError as missing:
    raise SystemExit(f"the nnjax command needs {missing.name}: pip install 'nnjax[cli]'") from missing

import jax
import numpy as np

from nnjax import data, nn, train
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
NET, TRAINING, DATA = "Network", "Training", "Data"


def option(help: str, panel: str) -> Any:
    """An option of `train`."""
    return typer.Option(help=help, rich_help_panel=panel)


@app.command("train")
def train_command(
    name: Annotated[str, typer.Argument(metavar="DATA", help="digits, fashion-mnist, or a .csv or .npz file.")],
    target: Annotated[str | None, option("Column of a CSV file to be predicted.", DATA)] = None,
    task: Annotated[TaskName | None, option("What to do with the target; chosen by its values if not given.", DATA)] = None,
    data_dir: Annotated[str | None, option("Where Fashion-MNIST's IDX files are; also $NNJAX_DATA_DIR.", DATA)] = None,
    test_share: Annotated[float, option("Share of a file's rows that is held out for the test.", DATA)] = DEFAULTS.test_share,
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
        option("At its highest; by default " + ", ".join(f"{v:g} for {k}" for k, v in LEARNING_RATES.items()) + ".", TRAINING),
    ] = None,
    schedule: Annotated[str, option(f"{', '.join(SCHEDULES)}.", TRAINING)] = DEFAULTS.schedule,
    weight_decay: Annotated[float | None, option("For adamw and lion; 0.01 by default.", TRAINING)] = None,
    clip: Annotated[float | None, option("Largest norm of the gradient.", TRAINING)] = None,
    batch_size: Annotated[int, option("Examples per step.", TRAINING)] = DEFAULTS.batch_size,
    epochs: Annotated[float, option("How often each example is seen.", TRAINING)] = DEFAULTS.epochs,
    seed: Annotated[int, option("Everything random follows from it.", TRAINING)] = DEFAULTS.seed,
    out: Annotated[Path | None, typer.Option(help="Folder for the run; by default runs/DATA-DATE-TIME.")] = None,
    plots: Annotated[bool, typer.Option(help="Draw the pictures.")] = True,
) -> None:
    """Train a network and write a run folder: settings, metrics per epoch, weights, pictures."""
    began = time.perf_counter()
    config = Config(
        name, data_dir, target, task, test_share, validation, width, depth, activation, norm, dropout, skip,
        optimizer, learning_rate, schedule, weight_decay, clip, batch_size, epochs, seed,
    )  # fmt: skip
    device = jax.devices()[0]
    versions = {"nnjax": _version("nnjax"), "jax": jax.__version__, "jaxlib": _version("jaxlib"), "optax": _version("optax")}
    console.print(
        f"[bold]nnjax[/] {versions['nnjax']} on {len(jax.devices())} × {device.device_kind} ({device.platform}), "
        f"jax {versions['jax']}, optax {versions['optax']}, Python {sys.version.split()[0]}"
    )
    dataset = data.load(name, data_dir=data_dir, target=target, task=task, test_share=test_share, seed=seed)
    training, held_out = _validation(dataset, validation, seed)
    table = dataset.table
    n, features = training.x.shape
    outputs = len(table.classes) if table.task == "classification" else 1
    console.print(
        f"{table.task} ({dataset.why}): {n:,} rows to train on, {0 if held_out is None else len(held_out.x):,} for "
        f"validation, {len(dataset.test.x):,} for the test, {features} features"
    )
    run = make_run(config, table.task, outputs, n)
    path = folder.create(out or Path("runs") / f"{Path(name).stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder.save_config(path, config, table, versions)
    _print_network(nn.as_layer(run.net), training)

    result = train.fit(
        run, training, epochs=epochs, key=jax.random.key(seed), validation=held_out, callbacks=[_line_per_tenth(epochs)]
    )
    scores = {key: float(value) for key, value in run.evaluate(result.ts, dataset.test).items()}
    if table.task == "regression":
        scores["rmse"] *= table.target_std
    folder.save_weights(path / folder.WEIGHTS, result.ts.params, result.ts.state)
    folder.write_records(path / folder.METRICS, result.history)
    seconds = result.seconds._asdict()
    folder.write_json(path / folder.RESULT, {"test": scores, "steps": int(result.ts.step), "seconds": seconds})
    _print_scores(scores, table)
    steps = len(result.losses)
    console.print(
        f"compile {seconds['compile']:.2f} s, train {seconds['train']:.2f} s ({steps:,} steps, "
        f"{steps / max(seconds['train'], 1e-9):,.0f} per second), validate {seconds['validate']:.2f} s"
    )
    if plots:
        _draw(path, run.predict(result.ts, dataset.test.x), dataset, result.history)
    console.print(f"written to [bold]{path}[/] after {time.perf_counter() - began:.1f} s")


@app.command("predict")
def predict_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or NPZ file with the features the run was trained on.")],
    out: Annotated[Path | None, typer.Option(help="CSV file to write; by default RUN/predictions.csv.")] = None,
) -> None:
    """Predict with a trained network: a row for each row of FILE, with probabilities for classes."""
    config, table = folder.load_config(run_folder)
    x = table.features(read_table(file))
    net = make_net(config, len(table.classes) or 1)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, x.shape[1]), x.dtype))
    params, state = folder.load_weights(run_folder / folder.WEIGHTS, *shapes)
    outputs = _predict(net, params, state, x)
    out = out or run_folder / "predictions.csv"
    if table.task == "classification":
        probabilities = np.asarray(nn.softmax(jax.numpy.asarray(outputs)))
        rows = [
            {table.target: table.classes[int(p.argmax())], **{f"p({c})": float(v) for c, v in zip(table.classes, p, strict=True)}}
            for p in probabilities
        ]
    else:
        rows = [{table.target: float(v) * table.target_std + table.target_mean} for v in outputs[:, 0]]
    folder.write_records(out, rows)
    console.print(f"{len(rows):,} predictions written to [bold]{out}[/]")


def main() -> None:
    """The `nnjax` command: a user's mistake is a message and exit code 2, never a traceback."""
    warnings.showwarning = _show_warning
    try:
        app()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        Console(stderr=True, highlight=False).print(f"[bold red]error[/] {_escape(str(error))}{_escape(notes)}", soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; nothing was saved of this run but its settings")
        raise SystemExit(130) from None


def _validation(dataset: Dataset, share: float, seed: int) -> tuple[Data, Data | None]:
    """The training part without, and with a part to watch the training by."""
    if share == 0:
        return dataset.train, None
    y = np.asarray(dataset.train.y)
    classify = dataset.table.task == "classification"
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
        console.print(
            f"[bold]test accuracy {scores['accuracy']:.4f}[/]   NLL {scores['nll']:.4f} nats   "
            f"Brier {scores['brier']:.4f}   calibration error {scores['expected_calibration_error']:.4f}"
        )
    else:
        console.print(f"[bold]test R² {scores['r2']:.4f}[/]   RMSE {scores['rmse']:.4g} (in the units of {table.target})")


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
            print(f"epoch {record['epoch']:.0f}/{epochs:g}  loss {record['loss']:.4f}{scores}", file=sys.stderr)

    return callback


def _draw(path: Path, prediction: Any, dataset: Dataset, history: list[dict[str, float]]) -> None:
    from nnjax import plot

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


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _show_warning(message: Warning | str, *_: Any) -> None:
    Console(stderr=True, highlight=False).print(f"[bold yellow]warning[/] {_escape(str(message))}", soft_wrap=True)


if __name__ == "__main__":
    main()
