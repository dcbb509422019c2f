"""Evaluate the objective of a run: the loss of each example, the weighted mean and its gradient."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nnjax import checks, metrics
from nnjax.data import n_rows
from nnjax.nn import as_layer
from nnjax.nn._features import wide_dtype
from nnjax.nn.as_layer import checked_layer, refuse_module
from nnjax.train._blocks import map_blocks
from nnjax.types import Data, Key, Layer, LayerLike, Log, Loss, Objective, Params, PyTree, State

NUMBERS = (Array, np.ndarray, np.number, np.bool_, int, float)
RESERVED = ("loss", "epoch", "step")  # names of the entries that `fit` adds to a record

Gradient: TypeAlias = tuple[Array, State, Log, Params]  # loss, new state, log, gradient with respect to params


def objective_of(net: LayerLike, loss: Loss) -> Objective:
    """Return the objective that applies a loss to the output of a network.

        losses_i = loss(net(x_i), y_i)

    `Run(net, loss, …)` is the same as `Run(net, objective=objective_of(net, loss), …)`. To add terms to a loss, call
    this objective in your own.

    Args:
      net: a layer or network.
      loss: function `(prediction, target) -> (batch,)` that returns one number per example.

    Raises:
      TypeError: if `net` is not a layer or a function, or `loss` is not a function of two arguments. The objective
        raises TypeError and ValueError if the loss does not return (batch,).

    >>> net = nn.mlp([8], 10)
    >>> plain = train.objective_of(net, losses.cross_entropy)
    >>> def decayed(params, state, batch, *, train, key):
    ...     losses, state, log = plain(params, state, batch, train=train, key=key)
    ...     penalty = 1e-4 * optax.tree.norm(params, squared=True)
    ...     return losses + penalty, state, log | {"penalty": penalty}
    >>> run = train.Run(net, objective=decayed, optimizer=optim.adam(1e-2), batch_size=32)
    >>> result = train.fit(run, data.load("digits").train, epochs=1)
    >>> sorted(result.history[-1])
    ['epoch', 'loss', 'penalty', 'step']
    """
    check_net("objective_of", net)
    checks.function_of("objective_of", "loss", loss, "prediction", "target")
    layer = as_layer(net)

    def objective(params: Params, state: State, batch: Data, /, *, train: bool, key: Key) -> tuple[Array, State, Log]:
        prediction, state = network_output(layer, layer.apply(params, state, batch.x, train=train, key=key))
        with jax.named_scope("loss"):
            return losses_of(loss, prediction, batch.y), state, {}

    return objective


def gradient_of(
    objective: Objective, params: Params, state: State, batch: Data, *, key: Key, micro_batches: int = 1
) -> Gradient:
    """Return the weighted mean of an objective over a batch, the new state, the log, and the gradient of the mean.

        Σ_i w_i losses_i / Σ_i w_i

    With micro-batches, sums are computed in float32 or wider, and the log is averaged over the micro-batches.

    Raises:
      ValueError: if `micro_batches` does not divide the batch, or is > 1 in a run without data.
    """
    weights = batch.weights
    n = n_rows(batch)
    total = jnp.asarray(n, jnp.float32) if weights is None else weights.astype(wide_dtype(weights.dtype)).sum()

    def mean(params: Params, state: State, part: Data, key: Key) -> tuple[Array, tuple[State, Log]]:
        losses, state, log = evaluate_objective(objective, params, state, part, train=True, key=key)
        with jax.named_scope("loss"):
            weighted = losses if part.weights is None else losses * part.weights.astype(losses.dtype)
            count = total if n else jnp.asarray(losses.size, jnp.float32)
            scale = count.astype(losses.dtype)
            return weighted.sum() / jnp.where(scale == 0, jnp.ones_like(scale), scale), (state, log)

    gradient = jax.value_and_grad(mean, has_aux=True)
    if micro_batches == 1:
        (loss, (state, log)), grads = gradient(params, state, batch, key)
        return loss, state, log, grads

    size, rest = divmod(n, micro_batches)
    if not n:
        raise ValueError(f"Run: micro_batches={micro_batches} splits a batch, but this run has no data; omit it")
    if rest:
        raise ValueError(f"Run: micro_batches {micro_batches} must divide the batch of {n} examples")
    parts = jax.tree.map(lambda a: a.reshape(micro_batches, size, *a.shape[1:]), batch)

    def accumulate(carry: Gradient, part: tuple[Data, Array]) -> tuple[Gradient, None]:
        loss, state, log, grads = carry
        data, i = part
        (more, (state, values)), gradients = gradient(params, state, data, jax.random.fold_in(key, i))
        log, grads = jax.tree.map(lambda a, b: a + b.astype(a.dtype), (log, grads), (values, gradients))
        return (loss + more, state, log, grads), None

    first = jax.tree.map(lambda a: a[0], parts)
    shape, (_, log) = jax.eval_shape(mean, params, state, first, key)
    start = (
        jnp.zeros((), shape.dtype),
        state,
        jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), log),
        jax.tree.map(lambda p: jnp.zeros(p.shape, wide_dtype(p.dtype)), params),
    )
    (loss, state, log, grads), _ = lax.scan(accumulate, start, (parts, jnp.arange(micro_batches)))
    log = {name: total / micro_batches for name, total in log.items()}
    return loss, state, log, jax.tree.map(lambda grad, p: grad.astype(p.dtype), grads, params)


def evaluate_objective(
    objective: Objective, params: Params, state: State, batch: Data, *, train: bool, key: Key
) -> tuple[Array, State, Log]:
    """Evaluate an objective and check its results, because a scalar loss would otherwise be accepted silently.

    Raises:
      TypeError, ValueError: if the objective does not return losses (batch,), a state, and a log of numbers.
    """
    output: Any = objective(params, state, batch, train=train, key=key)
    if not isinstance(output, tuple) or len(output) != 3:
        raise TypeError(
            f"Run: the objective must return (losses, state, log), got {_describe(output)}; return {{}} as the log if "
            "there is nothing to record"
        )
    losses, new_state, log = output
    n = n_rows(batch)
    shape = f"one number per example, ({n},)" if n else "an array (m,) of losses"
    if not isinstance(losses, NUMBERS):
        raise TypeError(f"Run: the objective must return {shape}, got {losses!r:.80}")
    if len(jnp.shape(losses)) != 1 or (n and jnp.shape(losses) != (n,)) or jnp.size(losses) == 0:
        raise ValueError(
            f"Run: the objective must return {shape}, got {jnp.shape(losses)}; the run takes the mean itself"
        )
    if train:
        checks.same_structure("Run", "the state that the objective returns", new_state, state)
    return as_wide(losses), new_state, check_log("the objective", log)


def evaluate_in_blocks(objective: Objective, params: Params, state: State, data: Data, key: Key) -> Log:
    """Return the mean loss and log of an objective in evaluation mode, computed in blocks of 4096 rows.

    The loss is weighted by `data.weights`; the log is averaged over the rows without weights.
    """

    def evaluate(part: Data, first: Array) -> tuple[Array, Log]:
        key_of_block = jax.random.fold_in(key, first)
        losses, _, log = evaluate_objective(objective, params, state, part, train=False, key=key_of_block)
        return losses, {name: jnp.full(losses.shape, value) for name, value in log.items()}

    losses, log = map_blocks(evaluate, data)
    return {
        "loss": metrics.weighted_mean(losses, data.weights),
        **{name: values.mean() for name, values in log.items()},
    }


def check_log(where: str, log: Any, *, with_loss: bool = False) -> Log:
    """Check a log, and return its scalars as floating-point numbers.

    Args:
      where: name of the function that returned the log, for the message.
      log: the log.
      with_loss: True if the log must have an entry "loss"; False if the run adds it.

    Raises:
      TypeError, ValueError: if the log is not a dict of real scalars, or has a reserved name.
    """
    if not isinstance(log, dict) or not all(isinstance(name, str) for name in log):
        raise TypeError(f"Run: the log of {where} must be a dict that maps names to scalars, got {log!r:.80}")
    if with_loss and "loss" not in log:
        raise ValueError(f"Run: the log of {where} must have an entry 'loss', got {sorted(log)}")
    numbers = {}
    for name, value in log.items():
        if (name in RESERVED and not (with_loss and name == "loss")) or name.startswith("validation_"):
            raise ValueError(f"Run: {where} logs {name!r}, a name that fit uses itself; choose a different name")
        if not isinstance(value, NUMBERS) or jnp.shape(value) != () or jnp.iscomplexobj(value):
            raise TypeError(f"Run: {where} must log scalars, but {name!r} is {_describe(value)}; take its mean or norm")
        number = as_wide(value)
        numbers[name] = number if jnp.issubdtype(number.dtype, jnp.floating) else number.astype(jnp.result_type(float))
    return numbers


def losses_of(loss: Loss, prediction: PyTree, target: PyTree) -> Array:
    """Return the loss of each example; raise unless the loss function returns one number per example."""
    losses: Any = loss(prediction, target)
    if not isinstance(losses, NUMBERS):
        raise TypeError(f"Run: loss must return one number per example, (batch,), got {losses!r:.80}")
    n = jnp.shape(jax.tree.leaves(prediction)[0])[:1]
    if not n or jnp.shape(losses) != n:
        raise ValueError(
            f"Run: loss must return one number per example, {n or '(batch,)'}, got {jnp.shape(losses)}; "
            "the run takes the mean itself"
        )
    return as_wide(losses)


def network_output(net: Layer, output: Any) -> tuple[PyTree, State]:
    """Return the output of a network's `apply`; raise TypeError unless it is a prediction and a state."""
    if not isinstance(output, tuple) or len(output) != 2:
        raise TypeError(
            f"Run: the apply of net must return (y, state), but {net.name} returned {checks.describe(output)}; "
            "return (y, ()) if there is no state"
        )
    if not jax.tree.leaves(output[0]):
        raise TypeError(f"Run: net must return at least one array, but {net.name} returned {output[0]!r}")
    return output


def check_net(where: str, net: Any) -> None:
    """Check that `net` is a layer or a function of one argument.

    Raises:
      TypeError: if it is neither, or if it is a function that returns a layer.
    """
    if not (isinstance(net, Layer) or callable(net)):
        raise TypeError(f"{where}: net must be a layer such as nn.mlp([32], 10), or a function, got {net!r:.80}")
    if getattr(net, "__annotations__", {}).get("return") in (Layer, "Layer"):
        name = getattr(net, "__name__", "it")
        raise TypeError(f"{where}: net is the function {name}, which makes a layer; call it, as in {name}(…)")
    if isinstance(net, Layer):
        checked_layer(where, net)
    else:
        refuse_module(where, net)
        checks.function_of(where, "net", net, "x")


def as_wide(values: Any) -> Array:
    """Return the values as an array. Floating-point numbers with fewer than 32 bits are promoted to float32."""
    array = jnp.asarray(values)
    return array.astype(wide_dtype(jnp.result_type(array)))


def _describe(value: Any) -> str:
    shape = f" of shape {value.shape}" if hasattr(value, "shape") else ""
    if isinstance(value, tuple):
        return f"{len(value)} values"
    return f"{type(value).__name__}{shape}" if shape else f"{value!r:.80}"
