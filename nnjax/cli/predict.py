"""`nnjax predict`: what a run's network, or the ensemble of its networks, says of new rows."""

import json
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from jax import lax
from rich.markup import escape

from nnjax import checks, nn
from nnjax.cli import report, run_folder
from nnjax.cli.config import Config, make_net
from nnjax.cli.shared import say
from nnjax.data.table import read_table
from nnjax.storage.atomic_write import write_records
from nnjax.types import Params, State

BLOCK = 4096  # rows at once, so that a long file does not need the memory of all its activations


def predict_command(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or NPZ file with the features of the training.")],
    out: Annotated[Path | None, typer.Option(help="CSV file to write; by default RUN/predictions.csv.")] = None,
) -> None:
    """Predict with a trained network: a row for each row of FILE, with probabilities for classes.

    Of an ensemble the probabilities are averaged, and a column more says how
    far its members differ: epistemic, the mutual information of class and
    member in nats, or sd, the standard deviation of their predictions.

    For example: nnjax predict runs/wine-20260101-120000 new.csv
    """
    config, table = run_folder.load_config(run_folder)
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
    if config.members is not None:
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct((config.members, *a.shape), a.dtype), shapes)
    params, state = run_folder.load_weights(run_folder / run_folder.WEIGHTS, *shapes)
    left_out = _left_out(run_folder, config)
    out = out or run_folder / "predictions.csv"
    more: dict[str, np.ndarray] = {}
    if config.members is None:
        outputs = _predict(net, params, state, x)
    else:
        each = np.delete(_predict_all(net, params, state, x), left_out, axis=0)
        outputs, doubt = report.averaged(jnp.asarray(each), table)
        more = {name: doubt[name] for name in ("epistemic", "sd") if name in doubt}
    wrong = np.flatnonzero(~np.isfinite(outputs).all(1))
    if wrong.size:
        raise ValueError(
            f"{run_folder}: what it predicts for {len(wrong)} of {len(x)} rows of {file} is not finite, "
            f"the first row {wrong[0]}: the training diverged, or the numbers there are too large"
        )
    if table.task == "classification":
        names = [f"p({name})" for name in table.classes]
        probabilities = np.asarray(nn.softmax(jnp.asarray(outputs))).astype(float)
        rows: list[dict[str, Any]] = [
            {table.target: table.classes[p.argmax()], **dict(zip(names, p.tolist(), strict=True))}
            for p in probabilities
        ]
    else:
        rows = [{table.target: float(v) * table.target_std + table.target_mean} for v in outputs[:, 0]]
    rows = [row | {name: float(values[i]) for name, values in more.items()} for i, row in enumerate(rows)]
    write_records(out, rows)
    say(f"{len(rows):,} predictions written to [bold]{escape(str(out))}[/]")


def _left_out(path: Path, config: Config) -> list[int]:
    """The members that diverged, which are not averaged.

    Raises:
      ValueError: where all did.
    """
    try:
        result = json.loads((path / run_folder.RESULT).read_text())
        left_out = [] if config.members is None else [int(member) for member in result["left_out"]]
        diverged = result["test"] is None
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} holds a run that is not finished: no {run_folder.RESULT}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path / run_folder.RESULT} is damaged: {error!r}") from error
    if diverged:
        who = "its training" if config.members is None else "the training of all its networks"
        raise ValueError(f"{path} cannot predict: {who} diverged; train with a smaller --learning-rate or --clip 1")
    return left_out


def _predict(net: nn.Layer, params: Params, state: State, x: np.ndarray) -> np.ndarray:
    """Outputs (rows, outputs), in blocks."""
    forward = jax.jit(lambda x: net.apply(params, state, x, train=False)[0])
    return np.concatenate([np.asarray(forward(x[i : i + BLOCK])) for i in range(0, len(x), BLOCK)])


def _predict_all(net: nn.Layer, params: Params, state: State, x: np.ndarray) -> np.ndarray:
    """Outputs of each member, (members, rows, outputs), in blocks."""

    def forward(x: jax.Array) -> Any:
        return lax.map(lambda own: net.apply(own[0], own[1], x, train=False)[0], (params, state))

    compiled = jax.jit(forward)
    return np.concatenate([np.asarray(compiled(x[i : i + BLOCK])) for i in range(0, len(x), BLOCK)], axis=1)
