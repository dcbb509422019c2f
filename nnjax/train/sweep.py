"""Sweep over hyper-parameters by training all settings as the members of one ensemble."""

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
from nnjax.data import Source, sample
from nnjax.data._transfers import allow_transfers
from nnjax.data._validate import cast
from nnjax.train.engine.distributed import refuse_forked_process
from nnjax.train.engine.ensemble import Ensemble, Strategy
from nnjax.train.engine.make_job import make_job
from nnjax.train.engine.options import Callback, FitOptions, Record, Resume
from nnjax.train.engine.settings import named_missing_setting, warn_of_unread_settings
from nnjax.train.fit import train_members
from nnjax.train.result import Result
from nnjax.types import Data, Key, Trainable

RESERVED = ("loss", "diverged")  # columns of the table; hyper-parameters must not have these names
Hyper = dict[str, Array]  # hyper-parameters of one run by name, traced inside the program


class Sweep(NamedTuple):
    """The result of `sweep`: a table of the settings, and the result of all members."""

    table: list[Record]  # one row per setting, lowest validation loss first: setting, loss and validation scores
    result: Result  # result of all members, sorted by setting, then by seed

    def __repr__(self) -> str:
        """Return a summary with the number of settings, the best one and the result."""
        return f"Sweep(settings={len(self.table)}, best={self.table[0]}, result={self.result!r})"


@allow_transfers
def sweep(
    make_run: Callable[[Hyper], Trainable],
    hyper: Mapping[str, Any],
    data: Data | Source | tuple[Any, ...] | None = None,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    validation: Data | tuple[Any, ...] | None = None,
    key: Key | None = None,
    seeds: int = 1,
    strategy: Strategy | None = None,
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
    """Train runs that differ only in numbers, in one program that is compiled once.

    The numbers are traced: `make_run` may pass them to anything that takes a number (rates, decays, betas, dropout,
    smoothing, scales, the widths of `nn.mlp`), but must not branch on them. All settings share one key, so they use the
    same random numbers and the same order of data. The result for setting i equals
    `fit(make_run(setting i), …, key=key)`.

    Args:
      make_run: function `{"name": number} -> Run`, which may also return any other `types.Trainable`.
      hyper: the values (settings,) of each hyper-parameter, by name. Setting i consists of the i-th values. See `grid`
        and `random_search`.
      data: see `fit`.
      epochs: see `fit`.
      steps: see `fit`.
      validation: data whose loss ranks the settings. With None, which is only allowed for runs without data, the last
        training loss ranks them.
      key: random key for all runs; `jax.random.key(0)` if None.
      seeds: number of runs of each setting, with the keys `jax.random.split(key, seeds)`; for one seed, `key` itself.
      strategy: see `fit`.
      mesh: see `fit`.
      group: see `fit`.
      validate_every: see `fit`.
      patience: see `fit`; settings are then ranked by their best networks.
      out: see `fit`.
      resume: see `fit`.
      save_every: see `fit`.
      keep: see `fit`.
      callbacks: see `fit`.
      progress: see `fit`.

    Returns:
      `Sweep(table, result)`. Columns of the table are the hyper-parameters, the means of the logs over the last epoch,
      the scalar scores, "diverged" (the number of diverged members) and, with patience, "best_validation_loss". A log
      with the name of a hyper-parameter becomes "name (log)". Values are means over the seeds; with several seeds,
      `…_sd` are the standard deviations. Settings with a diverged member come last.

    Raises:
      ValueError, TypeError: if data are passed without validation=, if a hyper-parameter has the name of another column
        of the table, if values differ in length or are out of range (the message names the setting); and as raised by
        `fit`.

    Warns:
      UserWarning: if `make_run` does not read a hyper-parameter.

    >>> digits = data.load("digits")
    >>> make = lambda hp: train.Run(nn.mlp([16], 10), losses.cross_entropy, optim.adam(hp["rate"]), batch_size=32)
    >>> table = train.sweep(make, {"rate": [1e-4, 1e-2]}, digits.train, validation=digits.test, epochs=2).table
    >>> [f"{row['rate']:g}" for row in table]
    ['0.01', '0.0001']
    """
    refuse_forked_process("sweep")
    checks.function_of("sweep", "make_run", make_run, "hyper")
    checks.positive_int("sweep", "seeds", seeds)
    if validation is None and data is not None:
        raise ValueError("sweep: validation=None, but settings are ranked by their validation loss; pass validation=")
    values = _columns("sweep", "hyper", hyper)
    reserved = [name for name in values if name.startswith(("validation_", "best_")) or name in RESERVED]
    if reserved:
        raise ValueError(f"sweep: {reserved[0]!r} is a column of the result; rename the hyper-parameter")
    options = FitOptions(
        epochs=epochs,
        steps=steps,
        group=group,
        validate_every=validate_every,
        patience=patience,
        out=out,
        resume=resume,
        save_every=save_every,
        keep=keep,
        callbacks=callbacks,
        progress=progress,
    )
    settings = len(next(iter(values.values())))
    for i in range(settings):  # build each run with concrete numbers, because tracers cannot be checked
        setting = {name: column[i] for name, column in values.items()}
        place = f"in setting {i} of sweep: " + ", ".join(f"{name}={v:g}" for name, v in setting.items())
        with checks.located(place), named_missing_setting(list(setting), "hyper"):
            make_run({name: jnp.asarray(value) for name, value in setting.items()})
    key = checks.key("sweep", jax.random.key(0) if key is None else key)
    keys = key[None] if seeds == 1 else jax.random.split(key, seeds)
    job = make_job(
        Ensemble(make_run, settings * seeds, strategy, mesh),
        jnp.tile(keys, settings),
        {name: jnp.repeat(jnp.asarray(column), seeds) for name, column in values.items()},
        data,
        options=options,
        validation=validation,
    )
    first = {name: jnp.asarray(column[0]) for name, column in values.items()}
    example = job.members.keys[0], sample(job.data), job.held_out
    warn_of_unread_settings("sweep", "hyper", make_run, [first], example)
    result = train_members(job, options)
    return Sweep(_table(values, result, seeds, by_best=patience is not None), result)


def grid(choices: Mapping[str, Sequence[Any] | Array]) -> dict[str, np.ndarray]:
    """Return every combination of the values, as one array (settings,) for each name.

    Args:
      choices: the values of each hyper-parameter, by name.

    Raises:
      ValueError, TypeError: if `choices` is not a dictionary of non-empty lists of numbers.

    >>> {name: v.tolist() for name, v in train.grid({"rate": [0.1, 0.2], "width": [8, 16, 32]}).items()}
    {'rate': [0.1, 0.1, 0.1, 0.2, 0.2, 0.2], 'width': [8, 16, 32, 8, 16, 32]}
    """
    values = _columns("grid", "choices", choices, same=False)
    rows = list(itertools.product(*(column.tolist() for column in values.values())))
    return {name: np.array([row[i] for row in rows]) for i, name in enumerate(values)}


@allow_transfers
def random_search(key: Key, n: int, ranges: Mapping[str, tuple[float, float] | tuple[float, float, str]]) -> Any:
    """Draw settings at random, which covers each hyper-parameter better than a grid of the same size.

    Args:
      key: random key for the draws.
      n: number of settings.
      ranges: for each name (low, high), uniform; (low, high, "log"), uniform in the logarithm; or (low, high, "int"),
        integers, both ends included.

    Returns:
      A dictionary with an array (n,) for each name.

    Raises:
      ValueError: if low > high, if low ≤ 0 with "log", if a bound is not an integer with "int", or if the kind is
        unknown.
      TypeError: if ranges is not a dictionary, or n is not an integer.

    >>> settings = train.random_search(jax.random.key(0), 100, {"rate": (1e-4, 1e-1, "log"), "width": (8, 64, "int")})
    >>> bool((settings["rate"] < 1e-2).mean() > 0.5), settings["width"].dtype
    (True, dtype('int64'))

    Source: Bergstra and Bengio 2012.
    """
    checks.positive_int("random_search", "n", n)
    key = checks.key("random_search", key)
    settings = {}
    for i, (name, bounds) in enumerate(checks.mapping("random_search", "ranges", ranges).items()):
        numbers = isinstance(bounds, (tuple, list)) and all(
            isinstance(end, (int, float, np.number)) for end in bounds[:2]
        )
        if not numbers or len(bounds) not in (2, 3):
            raise ValueError(
                f"random_search: ranges: {name} must be (low, high) or (low, high, kind), got {bounds!r:.80}"
            )
        low, high, kind = (*bounds, "uniform")[:3]
        checks.one_of("random_search", f"kind of {name}", kind, ("uniform", "log", "int"))
        whole = kind != "int" or (float(low).is_integer() and float(high).is_integer())
        if not (-math.inf < low <= high < math.inf) or (kind == "log" and low <= 0) or not whole:
            raise ValueError(
                f"random_search: {name} must have low ≤ high, positive for log, integers for int; got {low}, {high}"
            )
        u = np.asarray(jax.random.uniform(jax.random.fold_in(key, i), (n,)), float)
        if kind == "log":
            settings[name] = np.exp(math.log(low) + u * math.log(high / low))
        else:
            settings[name] = (
                low + u * (high - low) if kind == "uniform" else np.floor(low + u * (high - low + 1)).astype(int)
            )
    return settings


def _columns(where: str, argument: str, hyper: Any, same: bool = True) -> dict[str, np.ndarray]:
    """Check lists of numbers by name, and return them as arrays. With `same`, all lists must have the same length."""
    columns = {}
    for name, values in checks.mapping(where, argument, hyper).items():
        try:
            column = np.asarray(values)
        except (ValueError, TypeError):  # NumPy rejects ragged lists and random keys
            column = np.zeros(0)
        if column.ndim != 1 or column.size == 0 or column.dtype.kind not in "iuf":
            raise ValueError(f"{where}: {argument}: {name} must be a list of numbers, got {values!r:.80}")
        columns[name] = (
            cast(f"{where}: {argument}, {name}", column, features=False) if column.dtype.kind in "iu" else column
        )
    sizes = {name: column.size for name, column in columns.items()}
    if same and len(set(sizes.values())) > 1:
        raise ValueError(
            f"{where}: each name must have one value for each setting, got {sizes}; combine with train.grid"
        )
    return columns


def _table(values: dict[str, np.ndarray], result: Result, seeds: int, *, by_best: bool) -> list[Record]:
    """Return one row per setting, lowest loss first and settings with diverged members last."""
    last: dict[str, Any] = {}
    for record in result.history:  # use the last record of each member; stopped members have no later losses
        for name, score in record.items():
            if name not in ("epoch", "step") and np.ndim(score) == 1:
                name = f"{name} (log)" if name in values else name  # noqa: PLW2901
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
    by = "best_validation_loss" if by_best else "validation_loss" if "validation_loss" in last else "loss"
    return sorted(rows, key=lambda row: (row["diverged"] > 0, math.isnan(row.get(by, math.nan)), row.get(by)))
