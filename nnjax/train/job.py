"""From arguments as a user gives them to jobs, a group of members each, and from what came of them to a result."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks, losses
from nnjax.data import check_labels_in_range, examples, validate
from nnjax.data.source import Source, labels_below
from nnjax.nn import as_layer
from nnjax.train.drive import Callback, Job, Record, Seconds, drive, mean
from nnjax.train.folds import Folds, check_rows
from nnjax.train.program import Program
from nnjax.train.progress import no_progress, rich_progress
from nnjax.train.resume import Logs, Resume, Saving
from nnjax.train.run import length
from nnjax.train.state import Best, FitState, alive
from nnjax.types import Key, PyTree, TrainState


class Result(NamedTuple):
    """What `fit` returns. For an ensemble every array has a leading axis (members, ...)."""

    ts: TrainState  # the state after the last step
    best: Best | None  # the network at its lowest validation loss; None without validation
    history: list[Record]  # a record per epoch: epoch, step, loss (mean over its steps), validation_…
    losses: np.ndarray  # (steps,), the loss of each batch before its step; for an ensemble NaN where it took none
    diverged: np.ndarray  # () the step whose loss was not finite, after which the run is frozen; -1 for none
    stopped: np.ndarray  # () whether early stopping ended the run
    seconds: Seconds


def run_members(
    program: Program,
    hyper: PyTree,
    keys: Key,
    data: Any,
    *,
    epochs: float,
    group: int | None,
    folds: Folds | None,
    validation: Any,
    validate_every: int,
    patience: int | None,
    chunk_steps: int | None,
    out: str | Path | None,
    resume: Resume,
    save_every: float,
    keep: int,
    callbacks: Sequence[Callback],
    progress: bool,
) -> Result:
    """What `fit` and `sweep` do, with the arguments of `fit`.

    `program` holds the runs, `hyper` (members, ...) what they are made from, None for a run that is given; `keys` are
    (members,), (1,) for a lone run.
    """
    whole = make_job(
        program,
        hyper,
        keys,
        data,
        epochs=epochs,
        folds=folds,
        validation=validation,
        validate_every=validate_every,
        patience=patience,
    )
    _check(chunk_steps, group, save_every, keep, resume)
    parts = []
    sizes = _groups(program, group)
    total = int(whole.ends[:, -1].max()) if whole.ends.size else 0
    with rich_progress(total * len(sizes)) if progress and jax.process_index() == 0 else no_progress() as show:
        for i, members in enumerate(sizes):
            job = whole if len(sizes) == 1 else _part(whole, members)
            folder = None if out is None else Path(out) / (f"group-{i:03d}" if len(sizes) > 1 else "")
            saving = None if folder is None else Saving(folder, save_every, keep, resume)
            bar = _bar(show, i * total)
            parts.append(drive(job, chunk_steps=chunk_steps, saving=saving, callbacks=[bar, *callbacks]))
            if i < len(sizes) - 1:  # to the host, for the next group needs the device's memory
                parts[-1] = (_to_host(parts[-1][0]), *parts[-1][1:])
    fs = _join([fs for fs, _, _ in parts])
    logs = _join_logs([logs for _, logs, _ in parts], fs, whole.ends)
    seconds = Seconds(*(sum(part) for part in zip(*(s for _, _, s in parts), strict=True)))
    history = list(records(logs, np.reshape(fs.train.step, -1), whole.ends, epochs))
    if program.members is not None:
        return Result(fs.train, fs.best, history, logs.losses, np.asarray(fs.diverged), np.asarray(fs.stopped), seconds)
    history = [{k: float(v[0]) if isinstance(v, np.ndarray) else v for k, v in record.items()} for record in history]
    taken = int(fs.diverged) + 1 if fs.diverged >= 0 else int(logs.done[0])
    return Result(
        fs.train, fs.best, history, logs.losses[0, :taken], np.asarray(fs.diverged), np.asarray(fs.stopped), seconds
    )


def make_job(
    program: Program,
    hyper: PyTree,
    keys: Key,
    data: Any,
    *,
    epochs: float,
    folds: Folds | None = None,
    validation: Any = None,
    validate_every: int = 1,
    patience: int | None = None,
) -> Job:
    """The job that arguments as those of `fit` describe, which are looked through for mistakes."""
    checks.in_range("fit", "epochs", epochs, "[0, inf)")
    checks.positive_int("fit", "validate_every", validate_every)
    if patience is not None:
        checks.positive_int("fit", "patience", patience)
    data = examples(data)
    held_out = None if validation is None else validate(validation, "validation")
    n = data.n if isinstance(data, Source) else length(data)
    counts = np.full(len(keys), n)
    rows = held_out_rows = None
    if folds is not None:
        rows = check_rows("folds.train", folds.train, n)
        counts = np.asarray(rows.sizes)
        if held_out is None and not isinstance(data, Source):
            held_out, held_out_rows = data, check_rows("folds.held_out", folds.held_out, n)
            if len(held_out_rows.table) != len(counts):
                raise ValueError(f"fit: folds train {len(counts)} members and validate {len(held_out_rows.table)}")
    size = program.run(_of(hyper, 0)).batch_size
    batch = size or int(counts[0])
    if size is None and counts.min() < counts.max():
        raise ValueError(
            f"fit: batch_size=None takes all rows of a fold at once, and members have from {counts.min()} to "
            f"{counts.max()}; give a batch size, or folds of equal size"
        )
    if batch > counts.min():
        warnings.warn(
            f"fit: batch_size {batch} is larger than the {counts.min()} examples; batches run over epochs",
            stacklevel=4,
        )
    ends = np.array([epoch_ends(epochs, int(count), batch) for count in counts]).reshape(len(keys), -1)
    numbers = range(ends.shape[1])
    validated = [] if held_out is None else [*numbers[validate_every - 1 :: validate_every], *numbers[-1:]]
    job = Job(
        program,
        keys,
        hyper,
        data,
        rows,
        held_out,
        held_out_rows,
        ends,
        frozenset(validated),
        patience,
        int(counts.max()) / batch,
    )
    return _check_labels(job)


def epoch_ends(epochs: float, n: int, batch_size: int) -> list[int]:
    """The step after which each epoch ends, ⌈e n / batch_size⌉; a last part of an epoch counts as one.

    >>> train.epoch_ends(2, n=10, batch_size=4)
    [3, 5]
    """
    whole = int(epochs)
    marks = [*range(1, whole + 1), *([epochs] if epochs > whole else [])]
    return [math.ceil(e * n / batch_size - 1e-9) for e in marks]  # 1.1 · 50 is a little more than 55


def records(logs: Logs, taken: np.ndarray, ends: np.ndarray, epochs: float) -> Iterator[Record]:
    """A record, of values (members,), for each epoch that is over and that a member took all steps of."""
    scores = {int(ends[0, e]): scores for e, scores in zip(logs.epochs, logs.scores, strict=True)}
    start = np.zeros(len(ends), int)
    for e, end in enumerate(ends.T):
        if (end > logs.done).any() or (end > taken).all():
            return
        if (end > start).any():  # an epoch shorter than a batch may have no step of its own
            steps = np.arange(start.min(), end.max())
            own = (start[:, None] <= steps) & (steps < end[:, None])
            loss = mean(np.where(own, logs.losses[:, steps], np.nan))
            record: Record = {"epoch": min(e + 1.0, epochs), "step": int(end.max()), "loss": loss}
            yield record | {f"validation_{name}": score for name, score in scores.get(int(end[0]), {}).items()}
        start = end


def _check(chunk_steps: int | None, group: int | None, save_every: float, keep: int, resume: Resume) -> None:
    checks.in_range("fit", "save_every", save_every, "[0, inf)")
    for name, number in {"chunk_steps": chunk_steps, "group": group, "keep": keep}.items():
        if number is not None:
            checks.positive_int("fit", name, number)
    if resume not in (True, False, "anyway"):
        raise ValueError(f"fit: resume must be True, False or 'anyway', got {resume!r}")


def _check_labels(job: Job) -> Job:
    """Labels of a cross-entropy are classes of the network; inside the program a wrong one would only make it NaN.

    Those of a source are looked at as they are gathered.
    """
    run = job.program.run(_of(job.hyper, 0))
    if getattr(run.loss, "func", run.loss) is not losses.cross_entropy:  # a functools.partial has a func
        return job
    net = as_layer(run.net)
    for name, part in (("data", job.data), ("validation", job.held_out)):
        if part is None:
            continue
        sample = part.gather(np.zeros(1, np.int64)) if isinstance(part, Source) else part
        ts = jax.eval_shape(run.init, job.keys[0], sample)
        y = jax.eval_shape(lambda ts, x: net.apply(ts.params, ts.state, x, train=False)[0], ts, sample.x)
        shape = getattr(y, "shape", ())
        if isinstance(part, Source):
            job = job._replace(data=labels_below(part, shape))
        else:
            check_labels_in_range(part.y, shape, name)
    return job


def _of(tree: PyTree, members: Any) -> PyTree:
    """One member's, or some members' part of a tree (members, ...)."""
    return jax.tree.map(lambda a: a[members], tree)


def _groups(program: Program, group: int | None) -> list[slice]:
    """The members of each group."""
    members = program.members or 1
    size = min(group or members, members)
    return [slice(i, min(i + size, members)) for i in range(0, members, size)]


def _part(job: Job, members: slice) -> Job:
    """The job of some of the members."""
    return job._replace(
        program=replace(job.program, members=members.stop - members.start),
        keys=job.keys[members],
        hyper=_of(job.hyper, members),
        rows=_of(job.rows, members),
        held_out_rows=_of(job.held_out_rows, members),
        ends=job.ends[members],
        first=members.start,
    )


def _bar(show: Any, before: int) -> Callback:
    """The progress bar as a callback; numbers of an ensemble are shown as their mean."""

    def callback(ts: TrainState, record: Record) -> None:
        means = {name: float(mean(np.reshape(value, (1, -1)))[0]) for name, value in record.items()}
        show(means, before + record["step"])

    return callback


def _to_host(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda a: a if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else np.asarray(a), tree)


def _join(parts: Sequence[FitState]) -> FitState:
    """The members of all groups."""
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *leaves: jnp.concatenate([jnp.asarray(leaf) for leaf in leaves]), *parts)


def _join_logs(parts: Sequence[Logs], fs: FitState, ends: np.ndarray) -> Logs:
    """The logs of all groups, as those of one program: a group that stopped early counts as done."""
    if len(parts) == 1:
        return parts[0]
    epochs = sorted({epoch for logs in parts for epoch in logs.epochs})
    live, broken = np.asarray(alive(fs)), np.asarray(fs.diverged) >= 0
    done, scores, first = [], [], 0
    for logs in parts:
        members = slice(first, first := first + len(logs.done))
        done.append(logs.done if live[members].any() else ends[members, -1])
        scores.append(_carried(logs, epochs, broken[members]))
    names = list(next((some for logs in parts for some in logs.scores), {}))
    unknown = {name: [np.full(len(logs.done), np.nan, np.float32) for logs in parts] for name in names}
    joined = [
        {n: np.concatenate([s.get(n, u) for s, u in zip(at, unknown[n], strict=True)]) for n in names}
        for at in zip(*scores, strict=True)
    ]
    steps = max(logs.losses.shape[1] for logs in parts)  # of the longest; folds may differ
    losses = [np.pad(a, ((0, 0), (0, steps - a.shape[1])), constant_values=np.nan) for a in (p.losses for p in parts)]
    return Logs(np.concatenate(done), np.concatenate(losses), epochs, joined)


def _carried(logs: Logs, epochs: Sequence[int], broken: np.ndarray) -> list[dict[str, np.ndarray]]:
    """The scores after each of these epochs: after a group's last the same again, for its networks stay as they are."""
    found = dict(zip(logs.epochs, logs.scores, strict=True))
    scores: list[dict[str, np.ndarray]] = []
    for epoch in epochs:
        last = {name: np.where(broken, np.nan, score) for name, score in scores[-1].items()} if scores else {}
        scores.append(found.get(epoch, last))
    return scores
