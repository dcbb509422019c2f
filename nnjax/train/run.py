"""Define a training run as pure functions that take a state and return the next one."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from nnjax import checks, metrics
from nnjax.data import batch_indices, n_rows, take_rows
from nnjax.data._shuffle import check_int32
from nnjax.data._transfers import allow_transfers
from nnjax.data._validate import as_batch, check_row_axes
from nnjax.nn import as_layer
from nnjax.train._blocks import map_blocks, scan_in_blocks
from nnjax.train._optimizer import check_optimizer, optimizer_update
from nnjax.train.objective import (
    NUMBERS,
    check_log,
    check_net,
    evaluate_in_blocks,
    evaluate_objective,
    gradient_of,
    losses_of,
    network_output,
    objective_of,
)
from nnjax.types import (
    Data,
    Key,
    LayerLike,
    Log,
    Loss,
    Metric,
    Objective,
    Optimizer,
    OptState,
    Params,
    PyTree,
    State,
    TrainState,
)

StepMetric: TypeAlias = Callable[[Params, Params, Params], Array]  # (grads, updates, params) -> number
Sampler: TypeAlias = Callable[[Key, Array, Array | int, int], Array]  # (key, step, n, batch_size) -> rows
EvaluationParams: TypeAlias = Callable[[OptState, Params], Params]  # (opt_state, params) -> params
NO_DATA = Data((), ())  # the data and the batch of a run without data

# Constants folded into the run's key, one for each purpose. They exceed every index of `jax.random.split(key, n)`
# (`split(key, n)[i] == fold_in(key, i)`), so users may split the same key for other purposes.
INIT_STREAM = 2**31
SHUFFLE_STREAM = 2**31 + 1
STEP_STREAM = 2**31 + 2  # random numbers of layers in training, such as dropout masks
EVALUATION_STREAM = 2**31 + 3  # random numbers of an objective in evaluation


FUNCTIONS = {  # the expected arguments of each function that is passed to `Run`
    "loss": ("prediction", "target"),
    "metrics": ("prediction", "target", "weights"),
    "step_metrics": ("grads", "updates", "params"),
    "sampler": ("key", "step", "n", "batch_size"),
    "evaluation_params": ("opt_state", "params"),
}


@dataclass(frozen=True)
class Run:
    """Define a training run: everything except its key and its data.

    The methods are pure functions that can be jitted, vmapped and scanned. A step on a batch of examples i is

        θ, opt ← optimizer(∇ Σ_i w_i loss(net(x_i), y_i) / Σ_i w_i)

    An objective, which computes losses from parameters and a batch, can replace loss(net(x_i), y_i).

    Args:
      net: a layer or network.
      loss: function `(prediction, target) -> (batch,)` that returns one number per example; None if there is an
        objective.
      optimizer: any optax gradient transformation whose update needs only the gradients, its state, the parameters
        and the loss of the batch (value=). Optimizers that need more are refused: line searches,
        `optax.lookahead`, and `optax.contrib.sam` with opaque_mode=True. Gradients of complex parameters are
        conjugated.
      objective: function `(params, state, batch, *, train, key) -> (losses, state, log)` instead of a loss, for
        regularisers, several heads, variational and adversarial objectives; see `types.Objective` and
        `train.objective_of`. The run then uses `net.init`, and `net.apply` only for metrics and `predict`. The log is
        recorded for each step.
      batch_size: number of examples per step; None means the full batch in stored order, or a run without data.
      metrics: functions `(prediction, target, weights)` that `evaluate` computes in addition to the loss. They return a
        number, an array, or a dict of numbers and arrays, which is recorded as "name/key".
      step_metrics: functions `(grads, updates, params) -> number` that are recorded for each step, such as
        `train.grad_norm`.
      sampler: pure function `(key, step, n, batch_size) -> rows` that draws the rows (batch_size,) of a batch among n
        examples, such as `data.class_balanced(labels)`; None means the shuffled epochs of `data.batch_indices`.
      micro_batches: number of parts into which a batch is split; they are processed one after another to save memory.
        The result is the gradient of the whole batch, but BatchNorm normalises each part separately.
      evaluation_params: function `(opt_state, params) -> params` that returns the parameters for evaluation and for the
        best network, such as `optim.averaged` or `optax.contrib.schedule_free_eval_params`; None means the trained
        ones.
      skip_nonfinite: True to skip steps with a non-finite loss or gradient, so that only the step count advances,
        instead of ending the run. In the log, "skipped" is 1 for such steps.

    Raises:
      ValueError, TypeError: if a size is < 1, if micro_batches does not divide the batch size, unless exactly one of
        loss and objective is passed, if metrics have the same name, or if an argument is not a layer, a function or a
        gradient transformation, as required.

    >>> run = train.Run(nn.mlp([32], 10), losses.cross_entropy, optim.adam(1e-3), batch_size=32)
    >>> digits = data.load("digits").train
    >>> ts = run.init(jax.random.key(0), digits)
    >>> ts, log = jax.jit(run.steps, static_argnames="n")(ts, digits, n=100)
    >>> int(ts.step), log["loss"].shape
    (100, (100,))
    """

    net: LayerLike
    loss: Loss | None = None
    optimizer: Optimizer | None = None
    _: KW_ONLY
    batch_size: int | None
    objective: Objective | None = None
    metrics: tuple[Metric, ...] = ()
    step_metrics: tuple[StepMetric, ...] = ()
    sampler: Sampler | None = None
    micro_batches: int = 1
    evaluation_params: EvaluationParams | None = None
    skip_nonfinite: bool = False

    def __post_init__(self) -> None:
        check_net("Run", self.net)
        for name, arguments in FUNCTIONS.items():
            value = getattr(self, name)
            if name.endswith("metrics"):
                if not isinstance(value, (tuple, list)):
                    raise TypeError(f"Run: {name} must be a tuple of functions, as in {name}=(f,), got {value!r:.80}")
                object.__setattr__(self, name, tuple(value))  # jit needs a hashable run
            for function in value if name.endswith("metrics") else [] if value is None else [value]:
                checks.function_of("Run", name, function, *arguments)
        if (self.loss is None) == (self.objective is None):
            got = "neither" if self.loss is None else "both"
            raise TypeError(
                f"Run: needs a loss or an objective=, got {got}; train.objective_of(net, loss) combines them"
            )
        if self.objective is not None:
            checks.function_of("Run", "objective", self.objective, "params", "state", "batch", by_name=("train", "key"))
        checks.flag("Run", "skip_nonfinite", self.skip_nonfinite)
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
    def init(
        self, key: Key, data: Data | None = None, *, params: Params | None = None, state: State | None = None
    ) -> TrainState:
        """Return the state before the first step.

        Args:
          key: random key of the run, for initialisation, data order and the random draws of layers.
          data: examples; only their shapes and dtypes are used. None if the run needs no data.
          params: initial parameters, for example for fine-tuning; None means random ones from `net.init`.
          state: initial state of the network; None means the state from `net.init`.

        Raises:
          ValueError, TypeError: if the network, the loss or the optimizer rejects the shapes or dtypes, or if
            parameters or a state with the wrong structure, shape or dtype are passed.
        """
        key = checks.key("Run.init", key)
        data = self._batch("Run.init", "data", data)
        net = as_layer(self.net)
        batch = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((self.batch_size or a.shape[0], *a.shape[1:]), a.dtype), data
        )
        with jax.named_scope("init"):
            without_data = "in a run without data, where x is (); give net an init that reads no x, as in "
            without_data += "net._replace(init=lambda key, x: net.init(key, jnp.ones((1, 4))))"
            with checks.shapes_only(), nullcontext() if jax.tree.leaves(batch.x) else checks.located(without_data):
                initial = net.init(jax.random.fold_in(key, INIT_STREAM), batch.x)
            params = initial[0] if params is None else _match_initial("params", params, initial[0])
            state = initial[1] if state is None else _match_initial("state", state, initial[1])
            place = f"in the loss of {net.name}" if self.objective is None else f"in the objective of {net.name}"
            with checks.located(place):
                jax.eval_shape(partial(evaluate_objective, self._objective, train=False), params, state, batch, key=key)
            opt_state = self._optimizer.init(params)
        check_optimizer(self._optimizer, opt_state, params)
        return TrainState(jnp.zeros((), jnp.int32), params, state, opt_state, key)

    @allow_transfers
    def step(self, ts: TrainState, batch: Data | None = None) -> tuple[TrainState, Log]:
        """Take one step on a batch.

        Args:
          ts: the state before the step.
          batch: the examples of the step; None if the run needs no data.

        Returns:
          The state after the step, and the log: the "loss" of the batch before the step, the objective's log, the step
          metrics and, with `skip_nonfinite`, "skipped" (1 or 0).

        Raises:
          ValueError, TypeError: if the state, the batch, or a result of the run's functions has the wrong form, or if
            two logged values have the same name.
        """
        batch = self._batch("Run.step", "batch", batch)
        checks.instance("Run.step", "ts", ts, TrainState, "a TrainState, as returned by Run.init")
        key = jax.random.fold_in(jax.random.fold_in(ts.key, STEP_STREAM), ts.step)
        loss, state, log, grads = gradient_of(
            self._objective, ts.params, ts.state, batch, key=key, micro_batches=self.micro_batches
        )
        with jax.named_scope("update"):
            updates, opt_state = optimizer_update(self._optimizer, grads, ts.opt_state, ts.params, loss=loss)
            params = optax.apply_updates(ts.params, updates)
        for metric in self.step_metrics:
            name = metric_name(metric)
            if name in log:
                raise ValueError(f"Run: two step metrics, or a metric and the objective, log {name!r}; rename one")
            log |= check_log(name, {name: metric(grads, updates, ts.params)})
        new = TrainState(ts.step + 1, params, state, opt_state, ts.key)
        if self.skip_nonfinite:
            finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, grads))]).all()
            skipped = ts._replace(step=ts.step + 1)
            new = jax.tree.map(lambda a, b: a if a is b else jnp.where(finite, a, b), new, skipped)
            log |= {"skipped": jnp.where(finite, 0.0, 1.0)}
        return new, {"loss": loss, **log}

    @allow_transfers
    def steps(self, ts: TrainState, data: Data, n: int, *, remat: bool = False) -> tuple[TrainState, Log]:
        """Take `n` steps in a scan, on the batches that the run draws from the data.

        `jax.grad` through the steps gives the gradient with respect to any hyper-parameter of the run. For a dropout
        rate, it includes only the factor 1 / (1 - rate), because the mask is a step function. Adam needs eps_root > 0.

        Args:
          ts: the state before the first step.
          data: all examples.
          n: number of steps, as a Python integer.
          remat: True to keep only about 2 √n of the n states for `jax.grad` and recompute the others, which triples the
            forward work.

        Returns:
          The state after the last step, and the logs of all steps, `{"loss": (n,), …}`.

        Raises:
          ValueError, TypeError: if n < 0, and as raised by `step`.

        >>> digits = data.load("digits")
        >>> def validation_loss(rate):
        ...     run = train.Run(nn.mlp([8], 10), losses.cross_entropy, optim.momentum(rate), batch_size=32)
        ...     ts, _ = run.steps(run.init(jax.random.key(0), digits.train), digits.train, 50, remat=True)
        ...     return run.evaluate(ts, digits.test)["loss"]
        >>> bool(jax.jit(jax.grad(validation_loss))(1e-3) < 0)  # a larger rate would be better
        True
        """
        data = self._batch("Run.steps", "data", data)
        checks.instance("Run.steps", "ts", ts, TrainState, "a TrainState, as returned by Run.init")
        checks.positive_int("Run.steps", "n", n, 0)
        checks.flag("Run.steps", "remat", remat)
        keep = partial(jax.checkpoint, prevent_cse=False) if remat else lambda step: step

        def scan(ts: TrainState, n: int) -> tuple[TrainState, Log]:
            if self.batch_size is None:
                return lax.scan(keep(lambda ts, _: self.step(ts, data)), ts, length=n)
            # Draw the rows of all steps before the scan; inside it, the draws would take a third of the time of a step
            rows = self.rows(ts.key, ts.step, n_rows(data), n)
            return lax.scan(keep(lambda ts, row: self.step(ts, take_rows(data, row))), ts, rows)

        return scan_in_blocks(scan, ts, n) if remat else scan(ts, n)

    @allow_transfers
    def rows(self, key: Key, step: Array, n_examples: Array | int, n: int) -> Array:
        """Return the indices (n, batch_size) of the examples in the batches of steps `step` … `step + n - 1`.

        Args:
          key: the run's key.
          step: () int32, the first step.
          n_examples: number of examples in the data, which may be traced.
          n: number of steps, as a Python integer.

        Raises:
          ValueError, TypeError: if batch_size is None, because full batches need no random rows, or if an argument is
            out of range or has the wrong type.
        """
        if self.batch_size is None:
            raise ValueError("Run.rows: batch_size=None takes the full batch in stored order, so no rows are drawn")
        checks.positive_int("Run.rows", "n", n, 0)
        key, step = checks.key("Run.rows", key), check_int32("Run.rows", "step", step, 0)
        check_int32("Run.rows", "n_examples", n_examples, 1)
        return draw_rows(self.sampler, key, step, n_examples, n=n, batch_size=self.batch_size)

    @allow_transfers
    def predict(self, params: Params, state: State, x: PyTree) -> PyTree:
        """Return the network's outputs in evaluation mode, computed in blocks of 4096 rows.

        Args:
          params: the network's parameters, as in `ts.params` or `best.params`.
          state: the network's state, as in `ts.state`.
          x: inputs (rows, ...), with any number of rows.

        Raises:
          ValueError, TypeError: if the parameters, the state or the inputs do not fit the network.

        >>> digits = data.load("digits").test
        >>> run = train.Run(nn.mlp([8], 10), losses.cross_entropy, optim.sgd(0.1), batch_size=32)
        >>> ts = run.init(jax.random.key(0), digits)
        >>> run.predict(ts.params, ts.state, digits.x).shape
        (359, 10)
        """
        net = as_layer(self.net)

        check_row_axes("Run.predict: x", x)

        def forward(x: PyTree, _: Array) -> PyTree:
            try:
                return network_output(net, net.apply(params, state, x, train=False))[0]
            except (TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
                self._explain_misfit(params, state, x, error)
                raise

        return map_blocks(forward, x)

    @allow_transfers
    def evaluate(self, ts: TrainState, data: Data | None = None) -> Log:
        """Return the loss and the metrics over all examples, in evaluation mode.

        An objective is evaluated in blocks of 4096 rows, and its log is averaged over the rows. Its key is derived from
        `ts.key`, or from `jax.random.key(0)` for a best network, and is the same in every evaluation.

        Args:
          ts: a `TrainState`, or the best network of `fit`. With `evaluation_params`, the evaluated parameters are
            computed from the optimizer's state; the best network already contains them.
          data: the examples; None if the run needs no data.

        Returns:
          `{"loss": (), …}`, with the log of the objective, and each metric under the name of its function.

        Raises:
          ValueError, TypeError: if `ts`, the data, or a result of the run's functions has the wrong form, or if the
            metrics and the objective record the same name.
        """
        data = self._batch("Run.evaluate", "data", data)
        if not (hasattr(ts, "params") and hasattr(ts, "state")):
            raise TypeError(f"Run.evaluate: ts must be a TrainState, as returned by Run.init, got {ts!r:.80}")
        params = ts.params
        if self.evaluation_params is not None and hasattr(ts, "opt_state"):
            params = self.evaluation_params(ts.opt_state, params)
        prediction = self.predict(params, ts.state, data.x) if self.objective is None or self.metrics else None
        if self.loss is not None:
            log = {"loss": metrics.weighted_mean(losses_of(self.loss, prediction, data.y), data.weights)}
        else:
            key = jax.random.fold_in(getattr(ts, "key", jax.random.key(0)), EVALUATION_STREAM)
            log = evaluate_in_blocks(self._objective, params, ts.state, data, key)
        for metric in self.metrics:
            for name, score in _scores(metric, prediction, data).items():
                if name in log:
                    raise ValueError(f"Run: the metrics and the objective both record {name!r}; rename one of them")
                log[name] = score
        return log

    @property
    def _objective(self) -> Objective:
        """Return the objective that was passed, or build one from the loss."""
        if self.objective is not None:
            return self.objective
        assert self.loss is not None
        return objective_of(self.net, self.loss)

    @property
    def _optimizer(self) -> Optimizer:
        assert self.optimizer is not None
        return self.optimizer

    def _batch(self, where: str, name: str, batch: Any) -> Data:
        """Return `batch` as `Data`, which contains no arrays for a run without data."""
        if batch is None or (isinstance(batch, Data) and not jax.tree.leaves(batch)):
            if self.objective is None or self.batch_size is not None:
                raise TypeError(
                    f"{where}: {name} must be nnjax.Data or a pair (x, y), got {batch}; a run without data needs "
                    "objective= and batch_size=None"
                )
            return NO_DATA
        return as_batch(where, name, batch)

    def _explain_misfit(self, params: Params, state: State, x: PyTree, error: Exception) -> None:
        """Raise a TypeError if the parameters or the state do not fit the network."""
        expected = jax.eval_shape(as_layer(self.net).init, jax.random.key(0), x)
        for name, tree, like in zip(("params", "state"), (params, state), expected, strict=True):
            difference = checks.structure_difference(tree, like)
            if difference:
                fix = f"; pass ts.{name}" if isinstance(tree, TrainState) else ""
                raise TypeError(f"Run.predict: {name} must fit {as_layer(self.net).name}; {difference}{fix}") from error


def draw_rows(
    sampler: Sampler | None, key: Key, step: Array, n_examples: Array | int, *, n: int, batch_size: int
) -> Array:
    """Draw the example indices (n, batch_size) of `n` consecutive batches, by a sampler or in shuffled epochs."""
    stream, sampler = jax.random.fold_in(key, SHUFFLE_STREAM), sampler or batch_indices
    steps = step + jnp.arange(n, dtype=jnp.int32)
    return jax.vmap(lambda step: sampler(stream, step, n_examples, batch_size))(steps)


def _scores(metric: Metric, prediction: PyTree, data: Data) -> Log:
    """Evaluate a metric, and return its scores, which are numbers or arrays, by name."""
    name = metric_name(metric)
    with checks.located(f"in the metric {name}, which JAX traces: compute with jax.numpy, without float()"):
        score: Any = metric(prediction, data.y, data.weights)
    scores = {f"{name}/{part}": value for part, value in score.items()} if isinstance(score, dict) else {name: score}
    for value in scores.values():
        if not isinstance(value, NUMBERS) or jnp.iscomplexobj(value):
            raise TypeError(
                f"Run: metrics must return real numbers, an array, or a dict of them, but {name} returned {score!r:.80}"
            )
    return {part: jnp.asarray(value) for part, value in scores.items()}


def _match_initial(name: str, tree: PyTree, initial: PyTree) -> PyTree:
    """Check that initial values have the structure, shapes and dtypes of `initial`, and return them as JAX arrays."""
    checks.same_structure("Run.init", name, tree, initial)
    for (path, leaf), like in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(initial), strict=True):
        if jnp.shape(leaf) != like.shape or jnp.result_type(leaf) != like.dtype:
            raise ValueError(
                f"Run.init: {name}/{checks.path_name(path)} must be {like.shape} {like.dtype}, got {jnp.shape(leaf)} "
                f"{jnp.result_type(leaf)}"
            )
    return jax.tree.map(jnp.asarray, tree)


def metric_name(metric: Metric) -> str:
    """Return the name of a metric in logs, which is the name of its function."""
    return function_name(metric)


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function, also of one inside a `functools.partial`."""
    inner = getattr(function, "func", function)
    return getattr(function, "__name__", getattr(inner, "__name__", type(function).__name__))
