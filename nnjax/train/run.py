"""The training run as pure functions: a state, and a step from one state to the next."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from nnjax import checks, metrics
from nnjax.data import batch_indices, n_rows, take_rows
from nnjax.data._shuffle import check_int32
from nnjax.data._transfers import allow_transfers
from nnjax.data._validate import as_batch, check_row_axes
from nnjax.nn import as_layer
from nnjax.types import (
    Data,
    Key,
    Layer,
    LayerLike,
    Loss,
    Metric,
    Optimizer,
    OptState,
    Params,
    PyTree,
    State,
    TrainState,
)

Log = dict[str, Array]
Carry = TypeVar("Carry")
NUMBERS = (Array, np.ndarray, np.number, np.bool_, int, float)
EVALUATION_BATCH = 4096  # rows predicted at once: large enough to fill a device, small enough for its memory

# Constants folded into the run's key, one for each purpose. They lie beyond what `jax.random.split(key, n)` reaches
# (`split(key, n)[i] == fold_in(key, i)`), so users may split the same key for other purposes.
INIT_STREAM = 2**31
SHUFFLE_STREAM = 2**31 + 1
STEP_STREAM = 2**31 + 2  # dropout and everything else that layers draw in training


@dataclass(frozen=True)
class Run:
    """Define a training run: everything except its key and its data.

    The methods are pure functions, to be jitted, vmapped and scanned. A step on a batch of examples i is

        θ, opt ← optimizer(∇ Σ_i w_i loss(net(x_i), y_i) / Σ_i w_i)

    Args:
      net: a layer or network.
      loss: `(prediction, target) -> (batch,)`, one number per example.
      optimizer: any optax gradient transformation whose update needs no more than the gradients, its state, the
        parameters and the loss of the batch (value=). Those with a line search, `optax.lookahead`, and
        `optax.contrib.sam` with opaque_mode=True need more. Gradients of complex parameters are conjugated.
      batch_size: number of examples per step; None for the full batch in stored order.
      metrics: functions `(prediction, target, weights) -> number` that `evaluate` computes besides the loss.
      micro_batches: number of parts in which a batch is processed one after another, to save memory. The gradient is
        that of the whole batch; BatchNorm sees the parts.

    Raises:
      ValueError, TypeError: for sizes < 1, a batch size that micro_batches does not divide, or arguments that are not
        a layer, a function or a gradient transformation.

    >>> run = train.Run(nn.mlp([32], 10), losses.cross_entropy, optim.adam(1e-3), batch_size=32)
    >>> digits = data.load("digits").train
    >>> ts = run.init(jax.random.key(0), digits)
    >>> ts, log = jax.jit(run.steps, static_argnames="n")(ts, digits, n=100)
    >>> int(ts.step), log["loss"].shape
    (100, (100,))
    """

    net: LayerLike
    loss: Loss
    optimizer: Optimizer
    _: KW_ONLY
    batch_size: int | None
    metrics: tuple[Metric, ...] = ()
    micro_batches: int = 1

    def __post_init__(self) -> None:
        if not (isinstance(self.net, Layer) or callable(self.net)):
            raise TypeError(f"Run: net must be a layer such as nn.mlp([32], 10), or a function, got {self.net!r:.80}")
        if getattr(self.net, "__annotations__", {}).get("return") in (Layer, "Layer"):
            name = getattr(self.net, "__name__", "it")
            raise TypeError(f"Run: net is the function {name}, which makes a layer; call it, as in {name}(…)")
        if not isinstance(self.net, Layer):
            checks.function_of("Run", "net", self.net, "x")
        if not isinstance(self.metrics, (tuple, list)):
            raise TypeError(f"Run: metrics must be a tuple of functions, as in metrics=(f,), got {self.metrics!r:.80}")
        object.__setattr__(self, "metrics", tuple(self.metrics))  # a list could not be hashed, and jit needs that
        checks.function_of("Run", "loss", self.loss, "prediction", "target")
        for metric in self.metrics:
            checks.function_of("Run", "metrics", metric, "prediction", "target", "weights")
        if not hasattr(self.optimizer, "init") or not hasattr(self.optimizer, "update"):
            raise TypeError(
                "Run: optimizer must be an optax.GradientTransformation such as optim.adam(1e-3), "
                f"got {self.optimizer!r}"
            )
        names = ["loss", *(metric_name(metric) for metric in self.metrics)]
        if len(set(names)) < len(names):
            raise ValueError(f"Run: metrics must have different names (__name__), and not 'loss'; got {names[1:]}")
        checks.positive_int("Run", "micro_batches", self.micro_batches)
        if self.batch_size is not None:
            checks.positive_int("Run", "batch_size", self.batch_size)
            if self.batch_size % self.micro_batches:
                raise ValueError(f"Run: micro_batches {self.micro_batches} must divide batch_size {self.batch_size}")

    @allow_transfers
    def init(self, key: Key, data: Data) -> TrainState:
        """Return the state before the first step.

        Args:
          key: the run's random key, for its initialisation, order of data, and layers.
          data: examples; only shapes and dtypes are read.

        Raises:
          ValueError, TypeError: if network, loss or optimizer reject the shapes or dtypes; a note names the place.
        """
        key = checks.key("Run.init", key)
        data = as_batch("Run.init", "data", data)
        net = as_layer(self.net)
        rows = self.batch_size or jax.tree.leaves(data.x)[0].shape[0]
        x, y = jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), (data.x, data.y))
        with jax.named_scope("init"):
            params, state = net.init(jax.random.fold_in(key, INIT_STREAM), x)
            with checks.located(f"in the loss of {net.name}"):
                jax.eval_shape(
                    lambda p, s, x, y: self._losses(_output(net, net.apply(p, s, x, train=False))[0], y),
                    params,
                    state,
                    x,
                    y,
                )
            opt_state = self.optimizer.init(params)
        _refuse_line_search(opt_state)
        with _refusal(opt_state):
            loss = jax.ShapeDtypeStruct((), jnp.float32)
            updates, _ = jax.eval_shape(self._update, params, opt_state, params, loss)
            _check_updates(updates, params)
        return TrainState(jnp.zeros((), jnp.int32), params, state, opt_state, key)

    @allow_transfers
    def step(self, ts: TrainState, batch: Data) -> tuple[TrainState, Log]:
        """Take one step on a batch.

        Args:
          ts: the state before the step.
          batch: the examples of the step.

        Returns:
          The state after the step, and `{"loss": ()}`: the loss of the batch before the step.
        """
        batch = as_batch("Run.step", "batch", batch)
        checks.instance("Run.step", "ts", ts, TrainState, "a TrainState, as Run.init returns")
        key = jax.random.fold_in(jax.random.fold_in(ts.key, STEP_STREAM), ts.step)
        loss, state, grads = self._gradient(ts.params, ts.state, batch, key)
        with jax.named_scope("update"):
            updates, opt_state = self._update(grads, ts.opt_state, ts.params, loss)
            params = optax.apply_updates(ts.params, updates)
        return TrainState(ts.step + 1, params, state, opt_state, ts.key), {"loss": loss}

    @allow_transfers
    def steps(self, ts: TrainState, data: Data, n: int, *, remat: bool = False) -> tuple[TrainState, Log]:
        """Take `n` steps as a scan, on the batches of the run's endless stream of shuffled epochs.

        `jax.grad` through the steps gives the gradient of any hyper-parameter that the run is built from. For a dropout
        rate it only sees the factor 1 / (1 - rate), because the mask is a step function. Adam needs eps_root > 0.

        Args:
          ts: the state before the first step.
          data: all examples.
          n: number of steps, static.
          remat: for `jax.grad`, keep only about 2 √n of the n states and recompute the others, at three times the
            forward work.

        Returns:
          The state after the last step, and `{"loss": (n,)}`.

        >>> digits = data.load("digits")
        >>> def validation_loss(rate):
        ...     run = train.Run(nn.mlp([8], 10), losses.cross_entropy, optim.momentum(rate), batch_size=32)
        ...     ts, _ = run.steps(run.init(jax.random.key(0), digits.train), digits.train, 50, remat=True)
        ...     return run.evaluate(ts, digits.test)["loss"]
        >>> bool(jax.jit(jax.grad(validation_loss))(1e-3) < 0)  # a larger rate would be better
        True
        """
        data = as_batch("Run.steps", "data", data)
        checks.instance("Run.steps", "ts", ts, TrainState, "a TrainState, as Run.init returns")
        checks.positive_int("Run.steps", "n", n, 0)
        checks.flag("Run.steps", "remat", remat)
        keep = partial(jax.checkpoint, prevent_cse=False) if remat else lambda step: step

        def scan(ts: TrainState, n: int) -> tuple[TrainState, Log]:
            if self.batch_size is None:
                return lax.scan(keep(lambda ts, _: self.step(ts, data)), ts, length=n)
            # All rows are drawn at once: inside the scan they would cost a third of a step
            rows = self.rows(ts.key, ts.step, n_rows(data), n)
            return lax.scan(keep(lambda ts, row: self.step(ts, take_rows(data, row))), ts, rows)

        return _scan_in_blocks(scan, ts, n) if remat else scan(ts, n)

    @allow_transfers
    def rows(self, key: Key, step: Array, n_examples: Array | int, n: int) -> Array:
        """Return the rows (n, batch_size) of the examples in the batches of steps `step` … `step + n - 1`.

        Args:
          key: the run's key.
          step: () int32, the first step.
          n_examples: number of examples in the data, may be traced.
          n: number of steps, static.

        Raises:
          ValueError: for batch_size=None, because then no rows are drawn.
        """
        if self.batch_size is None:
            raise ValueError("Run.rows: batch_size=None takes the full batch in stored order, so no rows are drawn")
        checks.positive_int("Run.rows", "n", n, 0)
        key, step = checks.key("Run.rows", key), check_int32("Run.rows", "step", step, 0)
        check_int32("Run.rows", "n_examples", n_examples, 1)
        stream, size = jax.random.fold_in(key, SHUFFLE_STREAM), self.batch_size
        steps = step + jnp.arange(n, dtype=jnp.int32)
        return jax.vmap(lambda step: batch_indices(stream, step, n_examples, size))(steps)

    @allow_transfers
    def predict(self, params: Params, state: State, x: PyTree) -> PyTree:
        """Return the network's outputs in evaluation mode, computed in blocks of 4096 rows.

        Args:
          params: the network's parameters, as in `ts.params` or `best.params`.
          state: the network's state, as in `ts.state`.
          x: (rows, ...), any number of rows.

        >>> digits = data.load("digits").test
        >>> run = train.Run(nn.mlp([8], 10), losses.cross_entropy, optim.sgd(0.1), batch_size=32)
        >>> ts = run.init(jax.random.key(0), digits)
        >>> run.predict(ts.params, ts.state, digits.x).shape
        (359, 10)
        """
        net = as_layer(self.net)

        check_row_axes("Run.predict: x", x)

        def forward(x: PyTree) -> PyTree:
            try:
                return _output(net, net.apply(params, state, x, train=False))[0]
            except (TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
                self._explain_misfit(params, state, x, error)
                raise

        n = jax.tree.leaves(x)[0].shape[0]
        whole, rest = divmod(n, EVALUATION_BATCH)
        if whole == 0 or (whole == 1 and rest == 0):
            return forward(x)
        cut = whole * EVALUATION_BATCH
        blocks = jax.tree.map(lambda a: a[:cut].reshape(whole, EVALUATION_BATCH, *a.shape[1:]), x)
        y = jax.tree.map(lambda a: a.reshape(cut, *a.shape[2:]), lax.map(forward, blocks))
        if rest == 0:
            return y
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), y, forward(jax.tree.map(lambda a: a[cut:], x)))

    @allow_transfers
    def evaluate(self, ts: TrainState, data: Data) -> Log:
        """Return the loss and the metrics over all examples, in evaluation mode.

        Args:
          ts: a state; its parameters and its network's state are read.
          data: the examples.

        Returns:
          `{"loss": (), …}`, with an entry for each metric under the name of its function.
        """
        data = as_batch("Run.evaluate", "data", data)
        if not (hasattr(ts, "params") and hasattr(ts, "state")):
            raise TypeError(f"Run.evaluate: ts must be a TrainState, as Run.init returns, got {ts!r:.80}")
        prediction = self.predict(ts.params, ts.state, data.x)
        log = {"loss": metrics.weighted_mean(self._losses(prediction, data.y), data.weights)}
        for metric in self.metrics:
            log[metric_name(metric)] = self._score(metric, prediction, data)
        return log

    def _gradient(self, params: Params, state: State, batch: Data, key: Key) -> tuple[Array, State, Params]:
        """Return the loss of the batch, the network's new state, and the gradient."""
        net = as_layer(self.net)
        n = n_rows(batch)
        weights = batch.weights
        total = jnp.asarray(n, jnp.float32) if weights is None else weights.astype(_wide(weights.dtype)).sum()

        def objective(params: Params, state: State, part: Data, key: Key) -> tuple[Array, State]:
            prediction, state = _output(net, net.apply(params, state, part.x, train=True, key=key))
            with jax.named_scope("loss"):
                losses = self._losses(prediction, part.y)
                weighted = losses if part.weights is None else losses * part.weights.astype(losses.dtype)
                scale = total.astype(losses.dtype)
                return weighted.sum() / jnp.where(scale == 0, jnp.ones_like(scale), scale), state

        gradient = jax.value_and_grad(objective, has_aux=True)
        if self.micro_batches == 1:
            (loss, state), grads = gradient(params, state, batch, key)
            return loss, state, grads

        size, rest = divmod(n, self.micro_batches)
        if rest:
            raise ValueError(f"Run: micro_batches {self.micro_batches} must divide the batch of {n} examples")
        parts = jax.tree.map(lambda a: a.reshape(self.micro_batches, size, *a.shape[1:]), batch)

        def accumulate(carry: tuple[Array, State, Params], part: tuple[Data, Array]) -> tuple[Any, None]:
            loss, state, grads = carry
            data, i = part
            (more, state), gradients = gradient(params, state, data, jax.random.fold_in(key, i))
            return (loss + more, state, jax.tree.map(lambda a, b: a + b.astype(a.dtype), grads, gradients)), None

        first = jax.tree.map(lambda a: a[0], parts)
        dtype = jax.eval_shape(objective, params, state, first, key)[0].dtype
        start = (jnp.zeros((), dtype), state, jax.tree.map(lambda p: jnp.zeros(p.shape, _wide(p.dtype)), params))
        (loss, state, grads), _ = lax.scan(accumulate, start, (parts, jnp.arange(self.micro_batches)))
        return loss, state, jax.tree.map(lambda grad, p: grad.astype(p.dtype), grads, params)

    def _explain_misfit(self, params: Params, state: State, x: PyTree, error: Exception) -> None:
        """Raise an error if parameters or state are not those of the network."""
        expected = jax.eval_shape(as_layer(self.net).init, jax.random.key(0), x)
        for name, tree, like in zip(("params", "state"), (params, state), expected, strict=True):
            got, wanted = str(jax.tree.structure(tree)), str(jax.tree.structure(like))
            if got != wanted:
                raise TypeError(
                    f"Run.predict: {name} must be those of {as_layer(self.net).name}, {wanted}, got {got}"
                ) from error

    def _score(self, metric: Metric, prediction: PyTree, data: Data) -> Array:
        """Return a metric of the prediction, which must be one number."""
        score: Any = metric(prediction, data.y, data.weights)
        if not isinstance(score, NUMBERS) or jnp.shape(score) != ():
            raise TypeError(f"Run: metrics must return one number, but {metric_name(metric)} returned {score!r:.80}")
        return jnp.asarray(score)

    def _update(self, grads: Params, opt_state: OptState, params: Params, loss: Array) -> tuple[Params, OptState]:
        """Return the updates of the parameters and the optimizer's new state."""
        # jax.grad returns the conjugate of the direction of steepest ascent
        grads = jax.tree.map(lambda g: g.conj() if jnp.iscomplexobj(g) else g, grads)
        update = optax.with_extra_args_support(self.optimizer).update
        try:
            return update(grads, opt_state, params, value=loss)
        except TypeError as error:
            if "unexpected keyword argument 'value'" not in str(error):
                raise
        return update(grads, opt_state, params)  # optax.contrib.sam takes extra arguments, but not this one

    def _losses(self, prediction: PyTree, target: PyTree) -> Array:
        """Return the loss of each example. Its shape is checked, because a scalar would be summed silently."""
        losses: Any = self.loss(prediction, target)
        if not isinstance(losses, NUMBERS):
            raise TypeError(f"Run: loss must return one number per example, (batch,), got {losses!r:.80}")
        n = jnp.shape(jax.tree.leaves(prediction)[0])[:1]
        if not n or jnp.shape(losses) != n:
            raise ValueError(
                f"Run: loss must return one number per example, {n or '(batch,)'}, got {jnp.shape(losses)}; "
                "the run takes the mean itself"
            )
        return jnp.asarray(losses).astype(_wide(jnp.result_type(losses)))


def _wide(dtype: Any) -> Any:
    """Return the dtype of sums: float32 for floating numbers of fewer bits, because 16 bits lose small terms."""
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 4 else dtype


def _output(net: Layer, output: Any) -> tuple[PyTree, State]:
    """Return the prediction and the state that a network's `apply` returned."""
    if not isinstance(output, tuple) or len(output) != 2:
        raise TypeError(
            f"Run: apply of net must return (y, state), but that of {net.name} returned {type(output).__name__}; "
            "return (y, ()) if there is no state"
        )
    if not jax.tree.leaves(output[0]):
        raise TypeError(f"Run: net must return at least one array, but {net.name} returned {output[0]!r}")
    return output


def metric_name(metric: Metric) -> str:
    """Return the name of a metric in logs, which is the name of its function."""
    function = getattr(metric, "func", metric)  # the function of a functools.partial
    return getattr(metric, "__name__", getattr(function, "__name__", type(metric).__name__))


def _scan_in_blocks(steps: Callable[[Carry, int], tuple[Carry, PyTree]], carry: Carry, n: int) -> tuple[Carry, PyTree]:
    """Return `steps(carry, n)`, computed so that `jax.grad` needs memory for about 2 √n carries.

    The steps form about √n blocks, and the reverse pass keeps only the carries between them. When it reaches a block,
    it computes the block's own carries again: one more forward pass in exchange for the memory of n steps.

    Args:
      steps: `(carry, n) -> (carry, logs)` takes n steps; logs have a leading axis of n.
      carry: the initial carry.
      n: number of steps, static; any number.

    Source: Griewank 1992; Chen et al. 2016, arXiv:1604.06174.
    """
    size = math.isqrt(max(n, 1) - 1) + 1  # the root, rounded up
    count, rest = divmod(n, size)
    block = jax.checkpoint(lambda carry: steps(carry, size), prevent_cse=False)  # the scan keeps the passes apart
    carry, logs = lax.scan(lambda carry, _: block(carry), carry, length=count)
    logs = jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:]), logs)
    if rest == 0:
        return carry, logs
    carry, last = jax.checkpoint(lambda carry: steps(carry, rest))(carry)
    return carry, jax.tree.map(lambda *parts: lax.concatenate(parts, 0), logs, last)


@contextmanager
def _refusal(opt_state: OptState) -> Iterator[None]:
    """Raise a ValueError that names the optimizer if it cannot work with what `Run` passes to it."""
    try:
        yield
    except Exception as error:
        nodes = [opt_state]
        while nodes and not hasattr(nodes[0], "_fields"):  # the states of a chain
            nodes = [part for node in nodes for part in (node if isinstance(node, tuple) else [])]
        names = [type(node).__name__ for node in nodes if hasattr(node, "_fields")] or [type(opt_state).__name__]
        raise ValueError(
            f"Run: the optimizer with the state {', '.join(names)} failed on the call update(gradients, state, "
            f"parameters, value=loss): {type(error).__name__}: {error}; for an optimizer that needs other parameters "
            "or arguments (lookahead, sam with opaque_mode=True, sophia, dpsgd), write the loop by hand"
        ) from error


def _check_updates(updates: Params, params: Params) -> None:
    """Check that updates have the shapes of the parameters; `optax.apply_updates` would broadcast others."""
    if jax.tree.map(jnp.shape, updates) != jax.tree.map(jnp.shape, params):
        raise ValueError(f"updates have the shapes {checks.shapes(updates)}, parameters {checks.shapes(params)}")


def _refuse_line_search(opt_state: PyTree) -> None:
    """Raise for a line search, which evaluates the loss several times in a step."""
    searches = [
        type(node).__name__
        for node in jax.tree.leaves(opt_state, is_leaf=lambda node: "Linesearch" in type(node).__name__)
        if "Linesearch" in type(node).__name__
    ]
    if searches:
        raise ValueError(
            f"Run: the optimizer does a line search ({searches[0]}), which needs the loss as a function; "
            "write the loop by hand, or use lbfgs with linesearch=None and a learning rate"
        )
