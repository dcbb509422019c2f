"""Hyper-parameter sweeps: the runs of all settings as the members of one program."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from nnjax import checks
from nnjax.data.source import Source
from nnjax.data.validate import cast
from nnjax.train.engine.ensemble import Program, Strategy
from nnjax.train.engine.host_loop import Callback, Record
from nnjax.train.engine.job import Result, run_members
from nnjax.train.engine.resume import Resume
from nnjax.train.run import Run
from nnjax.types import Data, Key

OF_RESULTS = ("loss", "diverged")  # columns of the table that no hyper-parameter can have
Hyper = dict[str, Array]  # one number for each run, traced inside the program


class Sweep(NamedTuple):
    """What `sweep` returns."""

    table: list[Record]  # a row for each setting, the lowest validation loss first: the setting, loss, validation_…
    result: Result  # of all members, in the order of the settings, the seeds of each one after another


def sweep(
    make_run: Callable[[Hyper], Run],
    hyper: Mapping[str, Any],
    data: Data | Source | tuple[Any, ...],
    *,
    epochs: float,
    validation: Data | tuple[Any, ...],
    key: Key | None = None,
    seeds: int = 1,
    strategy: Strategy = "map",
    mesh: Mesh | None = None,
    group: int | None = None,
    validate_every: int = 1,
    patience: int | None = None,
    out: str | Path | None = None,
    resume: Resume = False,
    save_every: float = 30.0,
    keep: int = 3,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Sweep:
    """Runs that differ in numbers, as one program that is compiled once.

    The numbers are traced: `make_run` may hand them to whatever takes a number (rates, decays, betas, dropout,
    smoothing, scales, `nn.mlp`'s widths), and must not branch on them. All settings have the same key, that is the
    same draws and the same order of data: setting i is `fit(make_run(setting i), …, key=key)`.

    Args:
      make_run: `{"name": ()} -> Run`.
      hyper: for each name its values (settings,), the i-th of all names together are setting i. See `grid` and
        `random_search`.
      data: as for `fit`.
      epochs: as for `fit`.
      validation: by whose loss the settings are ranked.
      key: of all runs; `jax.random.key(0)` if None.
      seeds: runs of each setting, with the keys `jax.random.split(key, seeds)`; with 1, with `key` itself.
      strategy: as for `fit`, like all the rest.
      mesh: see `fit`.
      group: see `fit`.
      validate_every: see `fit`.
      patience: see `fit`; settings are then ranked by their networks at their best.
      out: see `fit`.
      resume: see `fit`.
      save_every: see `fit`.
      keep: see `fit`.
      callbacks: see `fit`.
      progress: see `fit`.

    Returns:
      `Sweep(table, result)`. Rows of the table hold means over the seeds and, for several, `…_sd`; settings with a
      member that diverged come last.

    Raises:
      ValueError, TypeError: for values of different lengths or out of range, with the setting, and as `fit` does.

    >>> digits = data.load("digits")
    >>> make = lambda hp: train.Run(nn.mlp([16], 10), losses.cross_entropy, optim.adam(hp["rate"]), 32)
    >>> table = train.sweep(make, {"rate": [1e-4, 1e-2]}, digits.train, validation=digits.test, epochs=2).table
    >>> [f"{row['rate']:g}" for row in table]
    ['0.01', '0.0001']
    """
    if not callable(make_run) or isinstance(make_run, Run):
        raise TypeError(f"sweep: make_run must be a function from hyper-parameters to a train.Run, got {make_run!r}")
    checks.positive_int("sweep", "seeds", seeds)
    if validation is None:
        raise ValueError("sweep: settings are ranked by their validation loss; give validation=")
    values = _columns(hyper)
    if taken := [name for name in values if name.startswith(("validation_", "best_")) or name in OF_RESULTS]:
        raise ValueError(f"sweep: {taken[0]!r} is a column of the result; name the hyper-parameter otherwise")
    settings = len(next(iter(values.values())))
    for i in range(settings):  # made once with numbers that can be looked at, which inside the program they cannot
        one = {name: column[i] for name, column in values.items()}
        with checks.located(f"in setting {i} of sweep: " + ", ".join(f"{name}={v:g}" for name, v in one.items())):
            make_run({name: jnp.asarray(value) for name, value in one.items()})
    key = checks.key("sweep", jax.random.key(0) if key is None else key)
    keys = key[None] if seeds == 1 else jax.random.split(key, seeds)
    result = run_members(
        Program(make_run, settings * seeds, strategy, mesh),
        {name: jnp.repeat(jnp.asarray(column), seeds) for name, column in values.items()},
        jnp.tile(keys, settings),
        data,
        epochs=epochs,
        group=group,
        folds=None,
        validation=validation,
        validate_every=validate_every,
        patience=patience,
        chunk_steps=None,
        out=out,
        resume=resume,
        save_every=save_every,
        keep=keep,
        callbacks=callbacks,
        progress=progress,
    )
    return Sweep(_table(values, result, seeds, by_best=patience is not None), result)


def grid(choices: Mapping[str, Sequence[Any] | Array]) -> dict[str, np.ndarray]:
    """Every combination of the values.

    Args:
      choices: for each name its values.

    >>> {name: v.tolist() for name, v in train.grid({"rate": [0.1, 0.2], "width": [8, 16, 32]}).items()}
    {'rate': [0.1, 0.1, 0.1, 0.2, 0.2, 0.2], 'width': [8, 16, 32, 8, 16, 32]}
    """
    values = _columns(choices, same=False)
    rows = list(itertools.product(*(column.tolist() for column in values.values())))
    return {name: np.array([row[i] for row in rows]) for i, name in enumerate(values)}


def random_search(key: Key, n: int, ranges: Mapping[str, tuple[float, float] | tuple[float, float, str]]) -> Any:
    """Settings drawn at random, which cover each single hyper-parameter better than a grid of as many.

    Args:
      key: of the draws.
      n: number of settings.
      ranges: for each name (low, high), uniform; (low, high, "log"), uniform in the logarithm; or (low, high, "int"),
        integers, both ends included.

    Raises:
      ValueError: for low > high, a low ≤ 0 with "log", or an unknown kind.

    >>> settings = train.random_search(jax.random.key(0), 100, {"rate": (1e-4, 1e-1, "log"), "width": (8, 64, "int")})
    >>> bool((settings["rate"] < 1e-2).mean() > 0.5), settings["width"].dtype
    (True, dtype('int64'))

    Source: Bergstra and Bengio 2012.
    """
    checks.positive_int("random_search", "n", n)
    key = checks.key("random_search", key)
    drawn = {}
    for i, (name, bounds) in enumerate(ranges.items()):
        if len(bounds) not in (2, 3):
            raise ValueError(f"random_search: {name} must be (low, high) or (low, high, kind), got {bounds}")
        low, high, how = (*bounds, "uniform")[:3]
        checks.one_of("random_search", f"kind of {name}", how, ("uniform", "log", "int"))
        whole = how != "int" or (low == int(low) and high == int(high))
        if not (-math.inf < low <= high < math.inf) or (how == "log" and low <= 0) or not whole:
            raise ValueError(
                f"random_search: {name} must have low ≤ high, above 0 for log, whole for int; got {low}, {high}"
            )
        u = np.asarray(jax.random.uniform(jax.random.fold_in(key, i), (n,)), float)
        if how == "log":
            drawn[name] = np.exp(math.log(low) + u * math.log(high / low))
        else:
            drawn[name] = (
                low + u * (high - low) if how == "uniform" else np.floor(low + u * (high - low + 1)).astype(int)
            )
    return drawn


def _columns(hyper: Mapping[str, Any], same: bool = True) -> dict[str, np.ndarray]:
    """One-dimensional arrays of numbers, of the same length."""
    if not isinstance(hyper, Mapping) or not hyper:
        raise TypeError(f"sweep: hyper must be a dictionary of at least one name and its values, got {hyper!r}")
    columns = {name: np.asarray(values) for name, values in hyper.items()}
    for name, column in columns.items():
        if np.issubdtype(column.dtype, np.integer):
            columns[name] = cast(f"sweep: {name}", column, features=False)
        if column.ndim != 1 or column.size == 0 or not np.issubdtype(column.dtype, np.number):
            raise ValueError(f"sweep: {name} must be a list of numbers, got {hyper[name]!r}")
    sizes = {name: column.size for name, column in columns.items()}
    if same and len(set(sizes.values())) > 1:
        raise ValueError(f"sweep: each name must have one value for each setting, got {sizes}; combine with train.grid")
    return columns


def _table(values: dict[str, np.ndarray], result: Result, seeds: int, *, by_best: bool) -> list[Record]:
    """A row for each setting, the lowest validation loss first."""
    last: dict[str, Any] = {}
    for record in result.history:  # the last of each member; one that was stopped has no losses after
        for name, score in record.items():
            if name not in ("epoch", "step"):
                last[name] = np.where(result.stopped & np.isnan(score), last.get(name, score), score)
    if by_best and result.best is not None:
        last["best_validation_loss"] = np.asarray(result.best.score)
    rows = []
    for i in range(len(next(iter(values.values())))):
        part = slice(i * seeds, (i + 1) * seeds)
        row: Record = {name: column[i].item() for name, column in values.items()}
        for name, score in last.items():
            row[name] = float(score[part].mean())
            if seeds > 1:
                row[f"{name}_sd"] = float(score[part].std(ddof=1))
        row["diverged"] = int((result.diverged[part] >= 0).sum())
        rows.append(row)
    by = "best_validation_loss" if by_best else "validation_loss"
    return sorted(rows, key=lambda row: (row["diverged"] > 0, math.isnan(row.get(by, math.nan)), row.get(by)))
