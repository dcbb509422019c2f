"""The host's loop over the chunks of a run: progress, validation, history. It never changes a result."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks, losses
from nnjax.data import check_labels_in_range, validate
from nnjax.nn import as_layer
from nnjax.train.chunk import CAPACITY, chunk
from nnjax.train.progress import no_progress, rich_progress
from nnjax.train.run import Log, Run, length
from nnjax.types import Data, Key, TrainState

CHUNK_SECONDS = 0.25  # how long the host waits between looks at the device: the bar's and Ctrl-C's delay

Record = dict[str, float]
Callback = Callable[[TrainState, Record], bool | None]


class Seconds(NamedTuple):
    """Where the wall time of a `fit` went."""

    compile: float  # tracing and compiling init, chunk and evaluation; almost nothing in a second fit of the same run
    train: float  # inside the training program
    validate: float  # inside the evaluation program
    total: float


class Result(NamedTuple):
    """What `fit` returns."""

    ts: TrainState  # the state after the last step
    history: list[Record]  # a record per epoch: epoch, step, loss (mean over its steps), validation_…
    losses: np.ndarray  # (steps,), the loss of each batch before its step
    seconds: Seconds


def fit(
    run: Run,
    data: Data | tuple[Any, ...],
    *,
    epochs: float,
    key: Key | None = None,
    validation: Data | tuple[Any, ...] | None = None,
    validate_every: int = 1,
    chunk_steps: int | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """A whole run, driven from the host in chunks.

    The state after any number of steps depends on run, key and data alone: chunks, validation, progress and callbacks
    change no bit of it.

    Args:
      run: the run.
      data: `Data`, or `(x, y)`, or `(x, y, weights)`; looked through for mistakes once, before anything is compiled.
      epochs: how often each example is seen; epoch e ends after ⌈e · n / batch_size⌉ steps. May be a fraction.
      key: of the run; `jax.random.key(0)` if None.
      validation: data that `run.evaluate` is applied to.
      validate_every: epochs between validations; the last epoch is always validated.
      chunk_steps: most steps between two looks of the host; None for as many as take a quarter of a second.
      callbacks: called after each chunk with the state and a record (`step`, `epoch`, `loss` of the chunk, and the last
        validation); one that returns True ends the run. The next chunk reuses the state's memory: copy what you keep.
      progress: a progress bar, if rich is installed (it comes with `nnjax[cli]`) and the output is a terminal.

    Returns:
      `Result(ts, history, losses, seconds)`.

    Raises:
      ValueError, TypeError: for hyper-parameters out of range and for mistakes in the data, see `data.validate`.

    Warns:
      UserWarning: for a batch larger than the data, and what `data.validate` warns of.
      RuntimeWarning: where the loss is no longer finite, with the step.

    >>> digits = data.load("digits")
    >>> run = train.Run(nn.mlp([32], 10), losses.cross_entropy, optim.adam(1e-2), 32, metrics=(metrics.accuracy,))
    >>> result = train.fit(run, digits.train, validation=digits.test, epochs=10)
    >>> result.history[-1]["validation_accuracy"] > 0.9
    True
    """
    began = time.perf_counter()
    if not isinstance(run, Run):
        raise TypeError(f"fit: run must be a train.Run, got {type(run).__name__}")
    epochs = checks.in_range("fit", "epochs", epochs, "[0, inf)")
    validate_every = checks.positive_int("fit", "validate_every", validate_every)
    if chunk_steps is not None:
        checks.positive_int("fit", "chunk_steps", chunk_steps)
    key = checks.key("fit", jax.random.key(0) if key is None else key)
    data = validate(data)
    held_out = None if validation is None else validate(validation, "validation")
    n = length(data)
    batch = run.batch_size or n
    if batch > n:
        warnings.warn(f"fit: batch_size {batch} is larger than the {n} examples; batches run over epochs", stacklevel=2)
    ends = epoch_ends(epochs, n, batch)
    total = ends[-1] if ends else 0
    validated_at = set(ends[validate_every - 1 :: validate_every]) | {total} if held_out is not None else set()

    started = time.perf_counter()
    # A copy, for the chunks give the memory of their argument away, and two leaves of a state may be the same array
    ts = jax.tree.map(jnp.copy, _init(run, key, data))
    _check_labels(run, ts, data, held_out)
    ts, _ = chunk(run, ts, data, np.int32(0))  # no steps: it compiles
    if held_out is not None:
        _evaluate(run, ts, held_out)
    jax.block_until_ready(ts)
    compiled = time.perf_counter() - started

    step, training, validating = 0, 0.0, 0.0
    step_losses = np.zeros(total, np.float32)
    history: list[Record] = []
    scores: Record = {}
    with rich_progress(total) if progress else no_progress() as show:
        for after, part, elapsed in _chunks(run, ts, data, sorted(validated_at | {total}), chunk_steps):
            ts = after
            step, training = step + len(part), training + elapsed
            step_losses[step - len(part) : step] = part
            _warn_not_finite(step_losses, step - len(part), step)
            if step in validated_at:
                clock = time.perf_counter()
                log = _evaluate(run, ts, held_out)
                scores = {f"validation_{name}": float(score) for name, score in log.items()}
                validating += time.perf_counter() - clock
            history += _records(
                step_losses, ends, epochs, step - len(part), step, scores if step in validated_at else {}
            )
            record = {"step": step, "epoch": step * batch / n, "loss": float(part.mean())} | scores
            show(record, step)
            answers = [callback(ts, record) for callback in callbacks]
            if any(answers):
                break
    return Result(ts, history, step_losses[:step], Seconds(compiled, training, validating, time.perf_counter() - began))


def _chunks(
    run: Run, ts: TrainState, data: Data, stops: Sequence[int], chunk_steps: int | None
) -> Iterator[tuple[TrainState, np.ndarray, float]]:
    """The run chunk by chunk: the state after each, the losses of its steps, its seconds. Each stop ends a chunk."""
    step, size = 0, chunk_steps or 1
    for stop in stops:
        while step < stop:
            n = min(size, stop - step, CAPACITY)
            clock = time.perf_counter()
            ts, log = chunk(run, ts, data, np.int32(n))
            losses = np.asarray(log["loss"])[:n]  # waits for the device
            elapsed = time.perf_counter() - clock
            step += n
            size = chunk_steps or max(1, int(n / elapsed * CHUNK_SECONDS))
            yield ts, losses, elapsed


def epoch_ends(epochs: float, n: int, batch_size: int) -> list[int]:
    """The step after which each epoch ends, ⌈e n / batch_size⌉; a last part of an epoch counts as one.

    >>> train.epoch_ends(2, n=10, batch_size=4)
    [3, 5]
    """
    whole = int(epochs)
    marks = [*range(1, whole + 1), *([epochs] if epochs > whole else [])]
    return [math.ceil(e * n / batch_size - 1e-9) for e in marks]  # 1.1 · 50 is a little more than 55


@partial(jax.jit, static_argnums=0)
def _init(run: Run, key: Key, data: Data) -> TrainState:
    return run.init(key, data)


@partial(jax.jit, static_argnums=0)
def _evaluate(run: Run, ts: TrainState, data: Data) -> Log:
    return run.evaluate(ts, data)


def _check_labels(run: Run, ts: TrainState, data: Data, held_out: Data | None) -> None:
    """Labels of a cross-entropy are classes of the network; inside the program a wrong one would only make it NaN."""
    if getattr(run.loss, "func", run.loss) is not losses.cross_entropy:  # a functools.partial has a func
        return
    net = as_layer(run.net)
    for name, part in (("data", data), ("validation", held_out)):
        if part is not None:
            y = jax.eval_shape(lambda ts, x: net.apply(ts.params, ts.state, x, train=False)[0], ts, part.x)
            check_labels_in_range(part.y, getattr(y, "shape", ()), name)


def _records(
    step_losses: np.ndarray, ends: list[int], epochs: float, before: int, step: int, scores: Record
) -> Iterator[Record]:
    """A record for each epoch that ended after the step `before`; the scores were measured at `step`."""
    for e in (e for e in range(len(ends)) if before < ends[e] <= step):
        part = step_losses[ends[e - 1] if e else 0 : ends[e]]
        if len(part):  # an epoch shorter than a batch may have no step of its own
            record = {"epoch": min(e + 1.0, epochs), "step": ends[e], "loss": float(part.mean())}
            yield record | (scores if ends[e] == step else {})


def _warn_not_finite(losses: np.ndarray, start: int, stop: int) -> None:
    bad = ~np.isfinite(losses[start:stop])
    if bad.any() and np.isfinite(losses[:start]).all():
        first = start + int(bad.argmax())
        warnings.warn(
            f"fit: the loss of step {first} is {losses[first]}; a smaller learning rate or "
            "optax.clip_by_global_norm may help",
            RuntimeWarning,
            stacklevel=3,
        )
