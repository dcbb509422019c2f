"""From arguments as a user gives them to jobs, a group of members each, and from what came of them to a result."""

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nnjax import checks, losses
from nnjax.data import check_labels_in_range, examples, validate
from nnjax.data.source import Source, labels_below
from nnjax.nn import as_layer
from nnjax.train.engine.ensemble import Program
from nnjax.train.engine.fit_state import Best
from nnjax.train.engine.host_loop import Callback, Job, Record, Seconds, drive, mean
from nnjax.train.engine.member_groups import check_layout, groups, join_logs, join_states, of, part_of, to_host
from nnjax.train.engine.progress import no_progress, rich_progress
from nnjax.train.engine.resume import Logs, Resume, Saving
from nnjax.train.folds import Folds, Rows, check_rows
from nnjax.train.run import length
from nnjax.types import Data, Key, PyTree, TrainState


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
    parts, over = [], False
    sizes = groups(program, group)
    check_layout(out, len(sizes) > 1, resume)
    total = int(whole.ends[:, -1].max()) if whole.ends.size else 0
    with rich_progress(total * len(sizes)) if progress and jax.process_index() == 0 else no_progress() as show:
        for i, members in enumerate(sizes):
            job = whole if len(sizes) == 1 else part_of(whole, members)
            folder = None if out is None else Path(out) / (f"group-{i:03d}" if len(sizes) > 1 else "")
            saving = None if folder is None else Saving(folder, save_every, keep, resume)
            bar = _bar(show, i * total)
            fs, logs, seconds, over = drive(
                job, chunk_steps=chunk_steps, saving=saving, callbacks=[bar, *callbacks], over=over
            )
            # To the host, for the next group needs the device's memory
            parts.append((fs if len(sizes) == 1 else to_host(fs), logs, seconds))
    fs = join_states([fs for fs, _, _ in parts])
    logs = join_logs([logs for _, logs, _ in parts], fs, whole.ends)
    seconds = Seconds(*(sum(part) for part in zip(*(s for _, _, s in parts), strict=True)))
    history = list(records(logs, np.asarray(fs.train.step).reshape(-1), whole.ends, epochs))
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
    size = program.run(of(hyper, 0)).batch_size
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
    _check_held_out(held_out, held_out_rows, patience)
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
        validate_every,
        patience,
        int(counts.max()) / batch,
    )
    return _check_labels(job)


def _check_held_out(held_out: Data | None, rows: Rows | None, patience: int | None) -> None:
    """What is validated on decides something: who waits for it has it, and its weights are not all 0."""
    if held_out is None:
        if patience is not None:
            raise ValueError(f"fit: patience={patience} waits for validations; give validation=, or folds in memory")
        return
    if held_out.weights is None:
        return
    weights = np.asarray(held_out.weights)
    each = [weights] if rows is None else [weights[t[:n]] for t, n in zip(rows.table, rows.sizes, strict=True)]
    for member, own in enumerate(each):
        if own.sum() == 0:
            who = "" if rows is None else f" of member {member}"
            raise ValueError(f"fit: the weights of the {len(own)} rows{who} to validate on are all 0; hold out others")


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
    scores = {tuple(ends[:, e]): scores for e, scores in zip(logs.epochs, logs.scores, strict=True)}
    start = np.zeros(len(ends), int)
    for e, end in enumerate(ends.T):
        if (end > logs.done).any() or (end > taken).all():
            return
        if (end > start).any():  # an epoch shorter than a batch may have no step of its own
            steps = np.arange(start.min(), end.max())
            own = (start[:, None] <= steps) & (steps < np.minimum(end, taken)[:, None])
            with np.errstate(invalid="ignore"):  # NaN where a member took none, or diverged
                loss = np.where(own, logs.losses[:, steps], 0).sum(1) / own.sum(1)
            record: Record = {"epoch": min(e + 1.0, epochs), "step": int(end.max()), "loss": loss}
            yield record | {f"validation_{name}": score for name, score in scores.get(tuple(end), {}).items()}
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
    run = job.program.run(of(job.hyper, 0))
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


def _bar(show: Any, before: int) -> Callback:
    """The progress bar as a callback; numbers of an ensemble are shown as their mean."""

    def callback(ts: TrainState, record: Record) -> None:
        means = {name: float(mean(np.reshape(value, (1, -1)))[0]) for name, value in record.items()}
        show(means, before + record["step"])

    return callback
