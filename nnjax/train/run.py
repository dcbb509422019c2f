"""The training run as pure functions: a state, and a step from one state to the next."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from nnjax import checks, metrics
from nnjax.data import as_data, batch_indices
from nnjax.nn import as_layer
from nnjax.train import purpose
from nnjax.train.hypergradient import in_blocks
from nnjax.types import Data, Key, LayerLike, Loss, Metric, Optimizer, Params, PyTree, State, TrainState

Log = dict[str, Array]
EVALUATION_BATCH = 4096  # rows predicted at once: large enough to fill a device, small enough for its memory


@dataclass(frozen=True)
class Run:
    """A training run, all but its key and its data. The methods are pure functions, to be jitted, vmapped, scanned.

        θ, opt ← optimizer(∇ Σ_i w_i loss(net(x_i), y_i) / Σ_i w_i)    over the examples i of a batch

    Args:
      net: a layer or network.
      loss: `(prediction, target) -> (batch,)`, one number per example.
      optimizer: any optax gradient transformation, ours or optax's, that needs no line search.
      batch_size: examples per step; None for the full batch in stored order.
      metrics: what `evaluate` computes besides the loss, each `(prediction, target, weights) -> number`.
      micro_batches: parts in which a batch is gone through one after another, for less memory. The gradient is that of
        the batch; BatchNorm sees the parts.

    Raises:
      ValueError, TypeError: for sizes < 1, a batch that the micro-batches do not divide, or what is no layer,
        function or gradient transformation.

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
    batch_size: int | None
    metrics: tuple[Metric, ...] = ()
    micro_batches: int = 1

    def __post_init__(self) -> None:
        as_layer(self.net)
        object.__setattr__(self, "metrics", tuple(self.metrics))  # a list could not be hashed, and jit needs that
        for name, function in (("loss", self.loss), *(("metrics", metric) for metric in self.metrics)):
            if not callable(function):
                raise TypeError(f"Run: {name} must be a function (prediction, target), got {function!r}")
        if not hasattr(self.optimizer, "init") or not hasattr(self.optimizer, "update"):
            raise TypeError(
                "Run: optimizer must be an optax.GradientTransformation such as optim.adam(1e-3), "
                f"got {self.optimizer!r}"
            )
        names = ["loss", *(metric_name(metric) for metric in self.metrics)]
        if len(set(names)) < len(names):
            raise ValueError(f"Run: each metric needs a name of its own (__name__), got {names[1:]} beside loss")
        checks.positive_int("Run", "micro_batches", self.micro_batches)
        if self.batch_size is not None:
            checks.positive_int("Run", "batch_size", self.batch_size)
            if self.batch_size % self.micro_batches:
                raise ValueError(f"Run: micro_batches {self.micro_batches} must divide batch_size {self.batch_size}")

    def init(self, key: Key, data: Data) -> TrainState:
        """The state before the first step.

        Args:
          key: of the run; everything random in it follows from it.
          data: examples, of which only shapes and dtypes are read.

        Raises:
          ValueError, TypeError: what the network, the loss or the optimizer says of shapes and dtypes, with the place.
        """
        key = checks.key("Run.init", key)
        data = as_data(data)
        net = as_layer(self.net)
        rows = self.batch_size or jax.tree.leaves(data.x)[0].shape[0]
        x, y = jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), (data.x, data.y))
        with jax.named_scope("init"):
            params, state = net.init(jax.random.fold_in(key, purpose.INIT), x)
            with checks.located(f"in the loss of {net.name}"):
                jax.eval_shape(
                    lambda p, s, x, y: self._losses(net.apply(p, s, x, train=False)[0], y), params, state, x, y
                )
            opt_state = self.optimizer.init(params)
        _refuse_line_search(opt_state)
        return TrainState(jnp.zeros((), jnp.int32), params, state, opt_state, key)

    def step(self, ts: TrainState, batch: Data) -> tuple[TrainState, Log]:
        """One step on one batch, wherever it comes from.

        Args:
          ts: the state before.
          batch: examples.

        Returns:
          The state after, and `{"loss": ()}`: the loss of the batch before the step.
        """
        batch = as_data(batch)
        key = jax.random.fold_in(jax.random.fold_in(ts.key, purpose.STEP), ts.step)
        loss, state, grads = self._gradient(ts.params, ts.state, batch, key)
        with jax.named_scope("update"):
            update = optax.with_extra_args_support(self.optimizer).update
            updates, opt_state = update(grads, ts.opt_state, ts.params, value=loss)
            params = optax.apply_updates(ts.params, updates)
        return TrainState(ts.step + 1, params, state, opt_state, ts.key), {"loss": loss}

    def steps(self, ts: TrainState, data: Data, n: int, *, remat: bool = False) -> tuple[TrainState, Log]:
        """`n` steps as a scan, on the batches of the run's own endless stream of shuffled epochs.

        `jax.grad` through them gives the gradient of any hyper-parameter from which the run is made. Of a dropout rate
        it sees the factor 1 / (1 - rate) alone, for the mask is a step function. Adam and its kin need eps_root > 0.

        Args:
          ts: the state before.
          data: all examples.
          n: number of steps, static.
          remat: for `jax.grad`: keep some 2 √n of the n states and compute the others again: three times the
            work forward.

        Returns:
          The state after, and `{"loss": (n,)}`.

        >>> digits = data.load("digits")
        >>> def validation_loss(rate):
        ...     run = train.Run(nn.mlp([8], 10), losses.cross_entropy, optim.momentum(rate), 32)
        ...     ts, _ = run.steps(run.init(jax.random.key(0), digits.train), digits.train, 50, remat=True)
        ...     return run.evaluate(ts, digits.test)["loss"]
        >>> bool(jax.jit(jax.grad(validation_loss))(1e-3) < 0)  # a larger rate would be better
        True
        """
        data = as_data(data)
        keep = partial(jax.checkpoint, prevent_cse=False) if remat else lambda step: step

        def some(ts: TrainState, n: int) -> tuple[TrainState, Log]:
            if self.batch_size is None:
                return lax.scan(keep(lambda ts, _: self.step(ts, data)), ts, length=n)
            rows = self.rows(ts, length(data), n)  # all at once: inside the scan they would cost a third of a step
            return lax.scan(keep(lambda ts, row: self.step(ts, take(data, row))), ts, rows)

        return in_blocks(some, ts, n) if remat else some(ts, n)

    def rows(self, ts: TrainState, n_examples: Array | int, n: int) -> Array:
        """The rows (n, batch_size) of the next n batches, from so many examples."""
        if self.batch_size is None:
            raise ValueError(
                "Run.rows: batch_size=None takes the full batch in stored order; there are no rows to draw"
            )
        key, size = jax.random.fold_in(ts.key, purpose.SHUFFLE), self.batch_size
        steps = ts.step + jnp.arange(n, dtype=jnp.int32)
        return jax.vmap(lambda step: batch_indices(key, step, n_examples, size))(steps)

    def predict(self, ts: TrainState, x: PyTree) -> PyTree:
        """The network's outputs in evaluation mode, for any number of rows.

        Args:
          ts: a state, of which parameters and state are read.
          x: (rows, ...).
        """
        net = as_layer(self.net)

        def forward(x: PyTree) -> PyTree:
            return net.apply(ts.params, ts.state, x, train=False)[0]

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

    def evaluate(self, ts: TrainState, data: Data) -> Log:
        """The loss and the metrics over all examples, in evaluation mode.

        Args:
          ts: a state, of which parameters and state are read.
          data: examples.

        Returns:
          `{"loss": (), …}`, one entry for each metric, by the name of its function.
        """
        data = as_data(data)
        prediction = self.predict(ts, data.x)
        log = {"loss": metrics.weighted_mean(self._losses(prediction, data.y), data.weights)}
        for metric in self.metrics:
            log[metric_name(metric)] = metric(prediction, data.y, data.weights)
        return log

    def _gradient(self, params: Params, state: State, batch: Data, key: Key) -> tuple[Array, State, Params]:
        """Loss of the batch, the network's new state, and the gradient."""
        net = as_layer(self.net)
        n = length(batch)
        total = jnp.asarray(n, jnp.float32) if batch.weights is None else batch.weights.sum()

        def objective(params: Params, state: State, part: Data, key: Key) -> tuple[Array, State]:
            prediction, state = net.apply(params, state, part.x, train=True, key=key)
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
            return (loss + more, state, jax.tree.map(jnp.add, grads, gradients)), None

        first = jax.tree.map(lambda a: a[0], parts)
        dtype = jax.eval_shape(objective, params, state, first, key)[0].dtype
        start = (jnp.zeros((), dtype), state, jax.tree.map(jnp.zeros_like, params))
        (loss, state, grads), _ = lax.scan(accumulate, start, (parts, jnp.arange(self.micro_batches)))
        return loss, state, grads

    def _losses(self, prediction: PyTree, target: PyTree) -> Array:
        """The loss of each example, whose shape is checked: a scalar would be summed without notice."""
        losses = self.loss(prediction, target)
        n = jax.tree.leaves(prediction)[0].shape[0]
        if jnp.shape(losses) != (n,):
            raise ValueError(
                f"Run: loss must return one number per example, ({n},), got {jnp.shape(losses)}; "
                "leave the mean to the run"
            )
        return losses if losses.dtype.itemsize >= 4 else losses.astype(jnp.float32)  # a sum has no room in 16 bits


def metric_name(metric: Metric) -> str:
    """The name of a metric in logs: that of its function."""
    function = getattr(metric, "func", metric)  # of a functools.partial
    return getattr(metric, "__name__", getattr(function, "__name__", type(metric).__name__))


def length(data: Data) -> int:
    """Number of examples."""
    return int(jax.tree.leaves(data.x)[0].shape[0])


def take(data: Data, rows: Array | np.ndarray) -> Data:
    """Some examples, by their row."""
    return jax.tree.map(lambda a: jnp.asarray(a).at[rows].get(mode="promise_in_bounds"), data)


def _refuse_line_search(opt_state: PyTree) -> None:
    """A line search evaluates the loss several times in a step, which a stochastic run cannot offer."""
    found = [
        type(node).__name__
        for node in jax.tree.leaves(opt_state, is_leaf=lambda node: "Linesearch" in type(node).__name__)
        if "Linesearch" in type(node).__name__
    ]
    if found:
        raise ValueError(
            f"Run: the optimizer does a line search ({found[0]}), which needs the loss as a function; "
            "write the loop by hand, or take lbfgs with linesearch=None and a learning rate"
        )
