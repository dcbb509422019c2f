"""Train a run or an ensemble of runs."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nnjax import checks
from nnjax.data import Source
from nnjax.data._transfers import allow_transfers
from nnjax.train.engine.distributed import refuse_forked_process
from nnjax.train.engine.ensemble import MEMBERS, Ensemble, Strategy, first_member, index_tree
from nnjax.train.engine.errors import InterruptedRun, RunMismatchError
from nnjax.train.engine.fingerprint import differences, run_fingerprint
from nnjax.train.engine.fit_state import Best, with_infinite_score
from nnjax.train.engine.host_loop import Outcome, Partial, Seconds, run_job
from nnjax.train.engine.job import Job
from nnjax.train.engine.logs import Logs
from nnjax.train.engine.make_job import make_job
from nnjax.train.engine.member_groups import (
    check_layout,
    group_folder,
    group_slices,
    join_logs,
    join_states,
    to_numpy,
)
from nnjax.train.engine.options import Callback, FitOptions, PartialRun, Resume
from nnjax.train.engine.progress import progress_bar
from nnjax.train.engine.trainable import check_trainable, evaluation_params, refuse_tracing
from nnjax.train.folds import Folds
from nnjax.train.load import SavedRun, save_weights
from nnjax.train.result import Result, history_of, single_result
from nnjax.types import Data, Key, Params, Trainable, TrainState


@allow_transfers
def fit(
    run: Trainable,
    data: Data | Source | tuple[Any, ...] | Iterable[Any] | None = None,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    key: Key | None = None,
    members: int | None = None,
    strategy: Strategy | None = None,
    mesh: Mesh | None = None,
    group: int | None = None,
    folds: Folds | None = None,
    start: Params | TrainState | Best | SavedRun | None = None,
    validation: Data | tuple[Any, ...] | None = None,
    validate_every: int = 1,
    patience: int | None = None,
    chunk_steps: int | None = None,
    out: str | Path | None = None,
    resume: Resume = False,
    save_every: float = 30.0,
    keep: int = 3,
    callbacks: Sequence[Callback] = (),
    callback_every: int | None = None,
    progress: bool = True,
) -> Result:
    """Train a run or an ensemble of runs.

    The state after any number of steps depends only on the run, the key and the data. It is bitwise identical for all
    settings of chunks, validation, saving, progress and callbacks. Member i of an ensemble equals the single run with
    key `jax.random.split(key, members)[i]`: bitwise with strategy "map" on a CPU, up to rounding with "vmap".

    Args:
      run: the network, loss, optimizer and batch size, as a `train.Run`; or any other `types.Trainable`.
      data: `Data`, `(x, y)` or `(x, y, weights)`, checked once before anything is compiled. Or a `data.Source`, from
        which batches are read when they are needed; the result is bitwise identical. A memory-mapped x (`np.memmap`)
        becomes a source. Validation data must be in memory, so with a source, the members of `folds` are
        validated only if `validation=` is passed. It may also be a generator or an iterable of batches (see
        `data.batches`), which is read in order, so the run needs steps= and cannot be resumed. None for a run without
        data.
      epochs: number of passes over the data; epoch e ends after ⌈e · n / batch_size⌉ steps. May be a fraction.
      steps: number of steps, instead of epochs. Without data and with a generator, 100 steps count as an epoch.
      key: the run's random key, `jax.random.key(0)` if None; or keys (members,), one for each member.
      members: number of networks to train, each with its own initialisation, order of data and dropout.
      strategy: "map" trains one member after another in one program, "vmap" all in lockstep. None means "map" on CPUs
        and "vmap" on GPUs and TPUs, which are idle most of the time under "map". `train.plan` measures both.
      mesh: devices over which to spread "members", "batch", or both, as axes of `jax.make_mesh`.
      group: number of members trained at the same time; groups are trained one after another. None means all members.
        See `train.plan`. With several groups, the result is on the host, as NumPy arrays.
      folds: the rows that each member is trained and validated on, one fold per member; see `train.k_fold`.
      start: initial parameters, instead of random ones, for fine-tuning or a further phase of training; the optimizer
        starts fresh. With a `TrainState`, `Best`, `SavedRun` or `TrialNetwork`, the network's state is used, too. For
        an ensemble, either the same for all members, or with a leading axis (members, ...).
      validation: data on which `run.evaluate` computes scores; None means the held-out rows of `folds`, if there are
        any.
      validate_every: number of epochs between validations. The last epoch is always validated.
      patience: number of validations without a lower loss after which a member is stopped; None to never stop early.
      chunk_steps: largest number of steps, up to 1024, that the device takes before the host checks for callbacks,
        checkpoints and Ctrl-C; None means about a quarter of a second per chunk.
      out: folder for checkpoints and the final weights, which `train.load` reads; None to save nothing.
      resume: continue from the latest checkpoint in `out`, or start fresh if there is none. "anyway" continues even if
        the run differs from the saved one. Or the `partial` of an `InterruptedRun`, to continue without a checkpoint.
      save_every: seconds between checkpoints.
      keep: number of latest checkpoints to keep, in addition to the best one.
      callbacks: functions `(ts, record)`, called after each epoch with the state and a record. The record contains
        `step`, `epoch`, the means of the `loss` and of other logged values since the last call, and the scores of the
        last validation. A callback that returns True ends the run; None and False continue. The state is a copy and
        stays valid.
      callback_every: number of steps after which the callbacks are called; None to call them after each epoch.
      progress: True to show a progress bar if rich is installed (it comes with `nnjax[cli]`) and the output is a
        terminal, or a Jupyter notebook with ipywidgets.

    Returns:
      `Result(ts, best, history, log, diverged, stopped, ended_by_callback, seconds)`.

    Raises:
      ValueError, TypeError: if an argument is out of range or has the wrong type, if the data contain a mistake (see
        `data.validate`), or if a callback returns anything but True, False or None. With `resume`, also if the saved
        run has already passed `epochs`.
      RunMismatchError: a ValueError, if the run to resume differs from the saved one.
      FileExistsError: if `out` contains a run and `resume` is False.
      BlockingIOError: if another process is using `out`.
      RuntimeError: in a process that was forked after JAX had started, or if another process of the run is lost.
      InterruptedRun: a KeyboardInterrupt, on Ctrl-C, SIGTERM or SIGHUP, once the current chunk is done and saved, even
        if the source hangs. Its `partial` has the state so far; the same call with `resume=partial` continues.
      Exception: any error raised by the source, a callback or the disk, once the steps before it are saved. A note on
        the error says after which step it happened and how to continue.

    Warns:
      UserWarning: if a batch is larger than the data, if the folds were made for fewer rows than the data have, if
        members have the same key, or if the data are suspicious (see `data.validate`).
      RuntimeWarning: if a checkpoint cannot be written to `out`; it then goes to a new folder, which the message names.
        It is also issued if all steps of a member were skipped.
      DivergedWarning: a RuntimeWarning, if the loss of a step is not finite and the run does not skip such steps; the
        step is then the member's last one.

    >>> digits = data.load("digits")
    >>> net, accuracy = nn.mlp([32], 10), metrics.accuracy
    >>> run = train.Run(net, losses.cross_entropy, optim.adam(1e-2), batch_size=32, metrics=(accuracy,))
    >>> result = train.fit(run, digits.train, validation=digits.test, epochs=10, members=3)
    >>> bool((result.history[-1]["validation_accuracy"] > 0.9).all())
    True
    """
    options = FitOptions(
        epochs=epochs,
        steps=steps,
        group=group,
        validate_every=validate_every,
        patience=patience,
        chunk_steps=chunk_steps,
        out=out,
        resume=resume,
        save_every=save_every,
        keep=keep,
        callbacks=callbacks,
        callback_every=callback_every,
        progress=progress,
    )
    job = fit_job(
        run,
        data,
        options,
        key=key,
        members=members,
        strategy=strategy,
        mesh=mesh,
        folds=folds,
        start=start,
        validation=validation,
    )
    result = train_members(job, options)
    return result if job.numbered else single_result(result)


def fit_job(
    run: Trainable,
    data: Any,
    options: FitOptions,
    *,
    key: Key | None,
    members: int | None,
    strategy: Strategy | None,
    mesh: Mesh | None,
    folds: Folds | None,
    start: Any = None,
    validation: Any = None,
) -> Job:
    """Return the training job for the arguments of `fit`; raise ValueError or TypeError if they are invalid."""
    refuse_forked_process("fit")
    check_trainable("fit", "run", run)
    if folds is not None:
        if not isinstance(folds, Folds):
            raise TypeError(f"fit: folds must be train.Folds(train, held_out), got {type(folds).__name__}")
        members = _agreed_members("folds", len(folds.train.table), members)
    keys, members = _member_keys(jax.random.key(0) if key is None else key, members)
    refuse_tracing((keys, data if isinstance(data, tuple) else None, start, validation))
    if members is None and mesh is not None and MEMBERS in getattr(mesh, "axis_names", ()):
        raise ValueError(f"fit: a mesh with an axis '{MEMBERS}' needs members=…")
    job = make_job(
        Ensemble(run, len(keys), strategy, mesh),
        keys,
        None,
        data,
        options=options,
        folds=folds,
        start=start,
        validation=validation,
    )
    return job._replace(numbered=members is not None)


def train_members(job: Job, options: FitOptions) -> Result:
    """Train all members of a job, in groups if `options.group` is smaller than their number."""
    slices = group_slices(job.ensemble.members, options.group)
    check_layout(options, grouped=len(slices) > 1)
    partial = _partial_groups(job, options, len(slices))
    outcomes: list[Outcome] = []
    shown = options.progress and jax.process_index() == 0
    with progress_bar(job.total_steps * len(slices), job.epochs, show=shown) as show:
        for i, members in enumerate(slices):
            part = job if len(slices) == 1 else job.select(members)
            folder = options.folder and group_folder(options.folder, i, len(slices))
            try:
                outcome = run_job(
                    part,
                    replace(options, out=folder),
                    lambda record, before=i * job.total_steps: show(record, before + record["step"]),  # type: ignore[misc]
                    ended=bool(outcomes) and outcomes[-1].ended_by_callback,
                    continued=partial[i] if i < len(partial) else None,
                )
            except InterruptedRun as stop:
                if stop.partial is not None:
                    parts = (*((outcome.fs, outcome.logs) for outcome in outcomes), stop.partial)
                    ts = parts[-1][0].train
                    stop.partial = PartialRun(ts if job.numbered else first_member(ts), job, options.group, parts)
                raise
            # Move the state to the host, because the next group needs the memory of the device
            outcomes.append(outcome if len(slices) == 1 else outcome._replace(fs=to_numpy(outcome.fs)))
    fs = join_states([outcome.fs for outcome in outcomes])
    logs = join_logs(job, [outcome.logs for outcome in outcomes], fs)
    _warn_all_skipped(job, logs)
    best = fs.best and with_infinite_score(fs.best)
    if options.folder is not None and jax.process_index() == 0:
        networks = (fs.train, best, _averages(job, fs.train))
        elsewhere = [o.folder for o in outcomes if o.folder and options.folder not in (o.folder, o.folder.parent)]
        save_weights([*elsewhere, options.folder][0], *(networks if job.numbered else map(first_member, networks)))
    return Result(
        ts=fs.train,
        best=best,
        history=list(history_of(job, logs, np.asarray(fs.train.step))),
        log=logs.steps,
        diverged=np.asarray(fs.diverged),
        stopped=np.asarray(fs.stopped),
        ended_by_callback=outcomes[-1].ended_by_callback,
        seconds=Seconds(*(sum(part) for part in zip(*(outcome.seconds for outcome in outcomes), strict=True))),
    )


def _warn_all_skipped(job: Job, logs: Logs) -> None:
    """Warn if all steps of a member were skipped, because the loss or a gradient was not finite."""
    skipped = logs.steps.get("skipped")
    if skipped is None or not logs.done.any():
        return
    members = job.first + np.flatnonzero(np.where(np.isnan(skipped), 1, skipped).all(1))
    if members.size:
        place = f" of members {', '.join(map(str, members[:10]))}{' …' * (members.size > 10)}" if job.numbered else ""
        checks.warn(
            f"fit: all steps{place} were skipped, because the loss or a gradient was not finite; check data and loss",
            RuntimeWarning,
        )


def _averages(job: Job, ts: TrainState) -> Params | None:
    """Return the averaged parameters (members, ...) for evaluation, or None if the runs do not average parameters."""
    if getattr(job.ensemble.run(index_tree(job.members.hyper, 0)), "evaluation_params", None) is None:
        return None
    return jax.vmap(lambda ts, hyper: evaluation_params(job.ensemble.run(hyper), ts))(ts, job.members.hyper)


def _partial_groups(job: Job, options: FitOptions, groups: int) -> Sequence[Partial]:
    """Return the state and logs of each group in the run to resume, or () if `resume` is not a `PartialRun`."""
    if not isinstance(options.resume, PartialRun):
        return ()
    rows = differences(run_fingerprint(options.resume.job), run_fingerprint(job))
    if options.resume.group != options.group:
        rows.append(("group", str(options.resume.group), str(options.group)))
    if rows:
        raise RunMismatchError(None, rows)
    return options.resume.groups


def _member_keys(key: Key, members: int | None) -> tuple[Key, int | None]:
    """Return the keys (members,) and the number of members; for a single run, one key (1,) and None."""
    if members is not None:
        checks.positive_int("fit", "members", members)
    several = checks.is_key(key) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 1
    if not several:
        key = checks.key("fit", key)
        return (key[None], None) if members is None else (jax.random.split(key, members), members)
    members = _agreed_members("keys", len(key), members)
    if len(np.unique(jax.random.key_data(key), axis=0)) < members:
        checks.warn("fit: some members share a key, so they are the same network; use jax.random.split(key, members)")
    return key, members


def _agreed_members(name: str, count: int, members: int | None) -> int:
    if members not in (None, count):
        raise ValueError(f"fit: got members={members} but {count} {name}; omit members")
    return count
