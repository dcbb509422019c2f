"""Build recurrent layers, which scan a cell over time: plain, LSTM and GRU."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from nnjax import checks
from nnjax.nn._features import param_dtype, wide_dtype
from nnjax.nn.branch import branch
from nnjax.nn.initializers import Activation, glorot_normal
from nnjax.types import Initializer, Key, Layer, LayerLike, Params, State

Carry = tuple[Array, ...]  # state of the cell, arrays (batch, features); the first one is the output
Cell = Callable[[Params, Carry, Array], Carry]  # (params, carry, x w_x + b at one time step) -> carry


class Sequences(NamedTuple):
    """Sequences padded to a common length. A recurrent layer applied to `Sequences` also returns `Sequences`."""

    x: Array  # (batch, time, features)
    lengths: Array  # (batch,), integers; values beyond a length are ignored in inputs and 0 in outputs


def rnn(
    features: int,
    *,
    activation: Activation = jnp.tanh,
    reverse: bool = False,
    last: bool = False,
    w_init: Initializer = glorot_normal(),
) -> Layer:
    """Carry a state through time (Elman's recurrent network).

        h_t = activation(x_t w_x + h_{t-1} w_h + b),   h_0 = 0;   y_t = h_t

    Args:
      features: Number of features of the state.
      activation: Elementwise function.
      reverse: True to run from the last time step to the first.
      last: True to return only the final state.
      w_init: Initialiser of `w_x`. `w_h` starts as an orthogonal matrix.

    Shapes: x (batch, time, inputs), or `Sequences` with lengths -> y (batch, time, features), or `Sequences`; with
    `last` (batch, features). Parameters `{"w_x": (inputs, features), "w_h": (features, features), "b": (features,)}`.

    Raises:
      ValueError: if features < 1, or if x or the lengths have the wrong shape.
      TypeError: if the lengths are not integers.

    >>> layer = nn.rnn(8)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 5, 3)))
    >>> layer.apply(params, state, jnp.ones((4, 7, 3)), train=False)[0].shape
    (4, 7, 8)

    Source: Elman 1990.
    """
    checks.function("rnn", "activation", activation, "jnp.tanh")

    def cell(params: Params, carry: Carry, x: Array) -> Carry:
        return (activation(x + carry[0] @ params["w_h"]),)

    return _recurrent("rnn", features, cell, w_init, gates=1, reverse=reverse, last=last)


def lstm(
    features: int,
    *,
    reverse: bool = False,
    last: bool = False,
    w_init: Initializer = glorot_normal(),
    forget_bias: float = 1.0,
) -> Layer:
    """Carry a state and a memory through time, controlled by gates (LSTM).

        i, f, o = sigmoid(x_t w_x + h_{t-1} w_h + b), one block of columns each;   g = tanh(its block)
        c_t = f c_{t-1} + i g,   h_t = o tanh(c_t),   h_0 = c_0 = 0;   y_t = h_t

    Args:
      features: Number of features of state and memory.
      reverse: True to run from the last time step to the first.
      last: True to return only the final state h.
      w_init: Initialiser of each block of `w_x`. Each block of `w_h` starts as an orthogonal matrix.
      forget_bias: Initial bias of the forget gate. A bias of 1 preserves the memory at first; torch starts near 0.

    Shapes: x (batch, time, inputs), or `Sequences` with lengths -> y (batch, time, features), or `Sequences`; with
    `last` (batch, features). Parameters `{"w_x": (inputs, 4 features), "w_h": (features, 4 features), "b":
    (4 features,)}` with the blocks i, f, g, o, as in torch; `b` is the sum of torch's two biases.

    Raises:
      ValueError: if features < 1, or if x or the lengths have the wrong shape.
      TypeError: if the lengths are not integers.

    >>> layer = nn.lstm(8, last=True)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 5, 3)))
    >>> layer.apply(params, state, jnp.ones((4, 7, 3)), train=False)[0].shape
    (4, 8)

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000 (forget gate); Jozefowicz et al. 2015 (its bias).
    """
    forget_bias = checks.in_range("lstm", "forget_bias", forget_bias, "(-inf, inf)")

    def cell(params: Params, carry: Carry, x: Array) -> Carry:
        h, c = carry
        i, f, g, o = jnp.split(x + h @ params["w_h"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    layer = _recurrent("lstm", features, cell, w_init, gates=4, reverse=reverse, last=last, carries=2)

    def init(key: Key, x: Array | Sequences, /) -> tuple[Params, State]:
        params, state = layer.init(key, x)
        return params | {"b": params["b"].at[features : 2 * features].set(forget_bias)}, state

    return layer._replace(init=init)


def gru(features: int, *, reverse: bool = False, last: bool = False, w_init: Initializer = glorot_normal()) -> Layer:
    """Carry a state through time, controlled by two gates (GRU).

        r, z = sigmoid(x_t w_x + h_{t-1} w_h + b), one block of columns each
        n = tanh(x_t w_x + b + r (h_{t-1} w_h + b_h)),   h_t = (1 - z) n + z h_{t-1},   h_0 = 0;   y_t = h_t

    Args:
      features: Number of features of the state.
      reverse: True to run from the last time step to the first.
      last: True to return only the final state.
      w_init: Initialiser of each block of `w_x`. Each block of `w_h` starts as an orthogonal matrix.

    Shapes: x (batch, time, inputs), or `Sequences` with lengths -> y (batch, time, features), or `Sequences`; with
    `last` (batch, features). Parameters `{"w_x": (inputs, 3 features), "w_h": (features, 3 features), "b":
    (3 features,), "b_h": (features,)}` with the blocks r, z, n, as in torch; for r and z, `b` is the sum of torch's two
    biases. As in torch, Flax and Keras, the reset gate is applied after the product with w_h; the paper does it before.

    Raises:
      ValueError: if features < 1, or if x or the lengths have the wrong shape.
      TypeError: if the lengths are not integers.

    >>> layer = nn.bidirectional(nn.gru(8), nn.gru(8, reverse=True))
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 5, 3)))
    >>> layer.apply(params, state, jnp.ones((4, 7, 3)), train=False)[0].shape
    (4, 7, 16)

    Source: Cho et al. 2014, arXiv:1406.1078.
    """

    def cell(params: Params, carry: Carry, x: Array) -> Carry:
        (h,) = carry
        product = h @ params["w_h"]
        r, z = jnp.split(jax.nn.sigmoid((x + product)[:, : 2 * features]), 2, -1)
        n = jnp.tanh(x[:, 2 * features :] + r * (product[:, 2 * features :] + params["b_h"][None]))
        return ((1 - z) * n + z * h,)

    layer = _recurrent("gru", features, cell, w_init, gates=3, reverse=reverse, last=last, extra={"b_h": (features,)})

    def init(key: Key, x: Array | Sequences, /) -> tuple[Params, State]:
        params, state = layer.init(key, x)
        return params | {"b_h": jnp.zeros_like(params["b"][:features])}, state

    return layer._replace(init=init)


def bidirectional(forward: LayerLike, backward: LayerLike) -> Layer:
    """Combine two recurrent layers that run in opposite directions.

        y_t = [forward(x)_t, backward(x)_t]

    Args:
      forward: The layer that runs forward in time, such as `nn.lstm(8)`.
      backward: The layer that runs backward in time, such as `nn.lstm(8, reverse=True)`.

    Shapes: as for the two layers, with their features concatenated. Parameters are the tuple
    `(parameters of forward, parameters of backward)`.

    Raises:
      TypeError: if an argument is neither a layer nor a function.

    >>> layer = nn.bidirectional(nn.rnn(2, last=True), nn.rnn(2, last=True, reverse=True))
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 5, 3)))
    >>> layer.apply(params, state, jnp.ones((4, 7, 3)), train=False)[0].shape
    (4, 4)

    Source: Schuster and Paliwal 1997.
    """
    return branch(forward, backward, merge=_join)._replace(name="bidirectional")


def _join(ys: Sequence[Any]) -> Any:
    if isinstance(ys[0], Sequences):
        return Sequences(jnp.concatenate([y.x for y in ys], -1), ys[0].lengths)
    return jnp.concatenate(ys, -1)


def _recurrent(
    kind: str,
    features: int,
    cell: Cell,
    w_init: Initializer,
    *,
    gates: int,
    reverse: bool,
    last: bool,
    carries: int = 1,
    extra: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> Layer:
    """Return a layer that scans a cell over time.

    Args:
      kind: name of the layer type.
      features: number of features of each array in the cell's state.
      cell: function that computes one time step.
      w_init: initialiser of each block of `w_x`.
      gates: number of blocks of columns in `w_x` and `w_h`.
      reverse: True to run from the last time step to the first.
      last: True to return only the final state.
      carries: number of arrays in the cell's state.
      extra: shapes of the cell's other parameters.
    """
    features = checks.positive_int(kind, "features", features)
    name = f"{kind}({features})"
    reverse, last = checks.flag(name, "reverse", reverse), checks.flag(name, "last", last)
    checks.function(name, "w_init", w_init, "nn.initializers.glorot_normal()")
    orthogonal = jax.nn.initializers.orthogonal()

    def init(key: Key, x: Array | Sequences, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        inputs = _sequences(name, x).x
        dtype = param_dtype(inputs)

        def blocks(init: Initializer, stream: int, rows: int) -> Array:
            keys = [jax.random.fold_in(jax.random.fold_in(key, stream), gate) for gate in range(gates)]
            wide = wide_dtype(inputs.dtype)  # orthogonal() computes a QR decomposition, which needs at least 32 bits
            return jnp.concatenate([init(k, (rows, features), wide).astype(dtype) for k in keys], -1)

        return {
            "w_x": blocks(w_init, 0, inputs.shape[-1]),
            "w_h": blocks(orthogonal, 1, features),
            "b": jnp.zeros(gates * features, dtype),
        }, ()

    def apply(
        params: Params, state: State, x: Array | Sequences, /, *, train: bool, key: Key | None = None
    ) -> tuple[Array | Sequences, State]:
        sequences = _sequences(name, x)
        columns = gates * features
        expected = {"w_x": (None, columns), "w_h": (features, columns), "b": (columns,), **extra}
        checks.leaves(name, "params", params, expected)
        checks.features(name, sequences.x, params["w_x"].shape[0])
        batch, time = sequences.x.shape[:2]
        projected = sequences.x @ params["w_x"] + params["b"][None, None]  # x w_x + b for all time steps at once
        valid = jnp.arange(time)[:, None] < sequences.lengths[None]

        def step(carry: Carry, now: tuple[Array, Array]) -> tuple[Carry, Array]:
            projected, valid = now
            new = cell(params, carry, projected)
            carry = tuple(jnp.where(valid[:, None], n, c) for n, c in zip(new, carry, strict=True))
            return carry, jnp.where(valid[:, None], carry[0], jnp.zeros_like(carry[0]))

        start = (jnp.zeros((batch, features), projected.dtype),) * carries
        carry, ys = lax.scan(step, start, (projected.swapaxes(0, 1), valid), reverse=reverse)
        if last:
            return carry[0], state
        y = ys.swapaxes(0, 1)
        return (Sequences(y, sequences.lengths) if isinstance(x, Sequences) else y), state

    return Layer(name, init, apply)


def _sequences(name: str, x: Array | Sequences) -> Sequences:
    """Return the input as `Sequences` after checking its shapes."""
    array = x.x if isinstance(x, Sequences) else x
    checks.sequences(name, array, "(batch, time, features)")
    if not isinstance(x, Sequences):
        return Sequences(x, jnp.full(array.shape[0], array.shape[1]))
    if not jnp.issubdtype(x.lengths.dtype, jnp.integer):
        raise TypeError(
            f"{name}: lengths must be integers, got {x.lengths.dtype}; cast them, as in lengths.astype(int)"
        )
    if x.lengths.shape != array.shape[:1]:
        raise ValueError(f"{name}: lengths must be ({array.shape[0]},), one per sequence, got {tuple(x.lengths.shape)}")
    return x
