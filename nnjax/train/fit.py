"""A whole run, or an ensemble of them, driven from the host."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nnjax import checks
from nnjax.data.source import Source
from nnjax.train.engine.ensemble import Program, Strategy
from nnjax.train.engine.host_loop import Callback
from nnjax.train.engine.job import Result, run_members
from nnjax.train.engine.resume import Resume
from nnjax.train.folds import Folds
from nnjax.train.run import Run
from nnjax.types import Data, Key


def fit(
    run: Run,
    data: Data | Source | tuple[Any, ...],
    *,
    epochs: float,
    key: Key | None = None,
    members: int | None = None,
    strategy: Strategy = "map",
    mesh: Mesh | None = None,
    group: int | None = None,
    folds: Folds | None = None,
    validation: Data | tuple[Any, ...] | None = None,
    validate_every: int = 1,
    patience: int | None = None,
    chunk_steps: int | None = None,
    out: str | Path | None = None,
    resume: Resume = False,
    save_every: float = 30.0,
    keep: int = 3,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """A whole run, or an ensemble of them, driven from the host in chunks.

    The state after any number of steps depends on run, key and data alone: chunks, validation, saving, progress and
    callbacks change no bit of it. Member i of an ensemble is the lone run with key `jax.random.split(key, members)[i]`:
    bit for bit with strategy "map", to rounding with "vmap".

    Args:
      run: the run.
      data: `Data`, or `(x, y)`, or `(x, y, weights)`; looked through for mistakes once, before anything is compiled.
        Or a `data.Source`, from which batches are gathered as they are needed, with the same bits; x in memory-mapped
        files (`np.memmap`) becomes one. Validation data are in memory: with a source, `folds` validates nothing
        unless `validation` is given.
      epochs: how often each example is seen; epoch e ends after ⌈e · n / batch_size⌉ steps. May be a fraction.
      key: of the run, `jax.random.key(0)` if None; or keys (members,), one for each member.
      members: networks to train at the same time, each with its own initialisation, order of data and dropout.
      strategy: "map", one member after another in one program, or "vmap", all in step. `train.plan` measures both.
      mesh: devices over which to spread "members", "batch", or both, as axes of `jax.make_mesh`.
      group: members that are trained at the same time, the next group after them; None for all. See `train.plan`. The
        result of several groups stays on the host, as NumPy arrays.
      folds: which rows each member is trained and validated on, see `train.k_fold`; there are as many members.
      validation: data that `run.evaluate` is applied to.
      validate_every: epochs between validations; the last epoch is always validated.
      patience: validations without a lower loss after which a member is stopped; None for never.
      chunk_steps: most steps between two looks of the host; None for as many as take a quarter of a second.
      out: folder for checkpoints; None for none.
      resume: go on from the last checkpoint in `out`, or start where there is none. "anyway" goes on although the run
        differs from the saved one.
      save_every: seconds between checkpoints.
      keep: how many of the last checkpoints are kept, besides the best.
      callbacks: called after each chunk with the state and a record (`step`, `epoch`, `loss` of the chunk, and the last
        validation); one that returns True ends the run. The next chunk reuses the state's memory: copy what you keep.
      progress: a progress bar, if rich is installed (it comes with `nnjax[cli]`) and the output is a terminal.

    Returns:
      `Result(ts, best, history, losses, diverged, stopped, seconds)`.

    Raises:
      ValueError, TypeError: for arguments out of range, for mistakes in the data, see `data.validate`, and where a
        resumed run differs from the saved one.
      FileExistsError: where `out` holds a run and `resume` is False.
      KeyboardInterrupt: for Ctrl-C, after the chunk is done and saved.

    Warns:
      UserWarning: for a batch larger than the data, and what `data.validate` warns of.
      RuntimeWarning: where the loss is no longer finite, with the step; it is the member's last.

    >>> digits = data.load("digits")
    >>> run = train.Run(nn.mlp([32], 10), losses.cross_entropy, optim.adam(1e-2), 32, metrics=(metrics.accuracy,))
    >>> result = train.fit(run, digits.train, validation=digits.test, epochs=10, members=3)
    >>> bool((result.history[-1]["validation_accuracy"] > 0.9).all())
    True
    """
    if not isinstance(run, Run):
        raise TypeError(f"fit: run must be a train.Run, got {type(run).__name__}")
    if folds is not None:
        if not isinstance(folds, Folds):
            raise TypeError(f"fit: folds must be train.Folds(train, held_out), got {type(folds).__name__}")
        members = _agree("folds", len(folds.train.table), members)
    keys, members = member_keys(jax.random.key(0) if key is None else key, members)
    return run_members(
        Program(run, members, strategy, mesh),
        None,
        keys,
        data,
        epochs=epochs,
        group=group,
        folds=folds,
        validation=validation,
        validate_every=validate_every,
        patience=patience,
        chunk_steps=chunk_steps,
        out=out,
        resume=resume,
        save_every=save_every,
        keep=keep,
        callbacks=callbacks,
        progress=progress,
    )


def member_keys(key: Key, members: int | None) -> tuple[Key, int | None]:
    """The keys (members,) of the members, (1,) of a lone run, and how many members there are."""
    if members is not None:
        checks.positive_int("fit", "members", members)
    several = checks.is_key(key) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 1
    if not several:
        key = checks.key("fit", key)
        return (key[None], None) if members is None else (jax.random.split(key, members), members)
    members = _agree("keys", len(key), members)
    if len(np.unique(jax.random.key_data(key), axis=0)) < members:
        warnings.warn("fit: members share a key: they are the same network", stacklevel=3)
    return key, members


def _agree(what: str, found: int, members: int | None) -> int:
    if members not in (None, found):
        raise ValueError(f"fit: members={members}, but there are {what} for {found}; leave members out")
    return found
