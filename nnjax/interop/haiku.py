"""Convert weights to and from Haiku, and use transformed Haiku functions as layers.

| layer | Haiku | converted |
|---|---|---|
| `dense`, `maxout` | `Linear` | |
| `conv` | `Conv1D` … `Conv3D` | |
| `conv_transpose` | `Conv1DTranspose` … | Haiku has (*kernel, outputs, inputs), and the kernel is flipped |
| `embedding`, `learned_positions` | `Embed` | |
| `batch_norm` | `BatchNorm` | Haiku has shapes (1, …, features), `average`, `hidden` and `counter`; see below |
| `layer_norm`, `group_norm`, `instance_norm`, `rms_norm` | of the same name | `bias` is `offset`; none in `rms_norm` |
| `multi_head_attention` | `MultiHeadAttention` | |
| `rnn` with `activation=jax.nn.relu` | `VanillaRNN` | Haiku has two biases, which are added |
| `lstm` | `LSTM` | Haiku has one matrix, gates in the order i, g, f, o, and adds 1 to the bias of f |

Haiku's `GRU` multiplies by the reset gate before the product with w_h, nnjax's `gru` after it. Its weights cannot be
converted, but `from_transformed` turns it into a layer.

Haiku's `decay_rate` of BatchNorm is nnjax's `decay`. Its running variance is biased, nnjax's is unbiased. The variance
is copied unchanged, so predictions are equal. Further training after an import changes it by a factor of about n / (n -
1) for n values in a batch, and after an export by the inverse. Exported statistics have a counter of 10⁶, so Haiku's
division by 1 - decay^counter has no effect.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.interop import _convert
from nnjax.interop._common_conventions import norm_conventions
from nnjax.interop._convert import Convention, Library, Names, leaf_conversions, same
from nnjax.interop._parts import Leaves
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def import_weights(net: LayerLike, x: PyTree, weights: Any, *, names: Names | None = None) -> tuple[Params, State]:
    """Convert the weights of a Haiku function to the parameters and state of a network with the same layers.

    Layers are paired as in `interop.flax.import_weights`.

    Args:
      net: The network.
      x: An input of the network, or its shape and dtype; the parameters get its dtype.
      weights: Parameters, or (parameters, state), as returned by Haiku's `init`.
      names: For layers in a different order, a mapping from the path of a layer to the path of its module, such as
        {"3/1": "head/linear"}.

    Returns:
      The parameters and the state of the network.

    Raises:
      ValueError: if a layer has no weights, if weights have no layer, if shapes differ, if a layer cannot be converted,
        if the order of weights with equal shapes is lost, or if `names` is wrong.
      TypeError: if `weights` are not dictionaries.

    >>> weights = {"linear": {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}}
    >>> params, state = interop.haiku.import_weights(nn.dense(3), jnp.ones((1, 4)), weights)
    >>> params["w"].shape
    (4, 3)
    """
    library, leaves = _flat(weights)
    return _convert.import_weights(library, net, x, leaves, names)


def export_weights(
    net: LayerLike, x: PyTree, params: Params, state: State, *, like: Any, names: Names | None = None
) -> Any:
    """Convert the weights of a network to the weights of a Haiku function.

    Args:
      net: The network.
      x: An input of the network, or its shape and dtype.
      params: The parameters of the network.
      state: The state of the network.
      like: Parameters, or (parameters, state), as returned by Haiku's `init`. They are not changed.
      names: As for `import_weights`.

    Returns:
      The weights, with the same structure as `like`.

    Raises:
      ValueError: as in `import_weights`; or if params or state do not fit the network, or if `like` has no
        counterpart for an array that affects the output, such as a nonzero bias.
      TypeError: if `like` does not consist of dictionaries.

    >>> params, state = nn.dense(3).init(jax.random.key(0), jnp.ones((1, 4)))
    >>> like = {"linear": {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}}
    >>> weights = interop.haiku.export_weights(nn.dense(3), jnp.ones((1, 4)), params, state, like=like)
    >>> bool((weights["linear"]["w"] == params["w"]).all())
    True
    """
    library, leaves = _flat(like)
    values = _convert.export_weights(library, net, x, (params, state), leaves, names)

    def value(path: tuple[Any, ...], leaf: Array) -> Array:
        name = "/".join(step.key for step in path if hasattr(step, "key"))
        return values[name].reshape(leaf.shape).astype(leaf.dtype) if name in values else leaf

    return jax.tree_util.tree_map_with_path(value, like)


def from_transformed(transformed: Any, *, train: str | None = None) -> Layer:
    """Turn a transformed Haiku function into a layer.

    The parameters and the state come from `transformed.init`, called with an input of zeros and in training mode.

    Args:
      transformed: Result of `hk.transform` or `hk.transform_with_state` of a function of one input.
      train: Name of the argument of the function that receives the layer's `train`, such as "is_training"; None if
        there is no such argument.

    Raises:
      TypeError: if `transformed` is not such a result.

    >>> import haiku as hk
    >>> net = interop.haiku.from_transformed(hk.transform(lambda x: hk.Linear(3)(x)))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> net.apply(params, state, jnp.ones((32, 4)), train=False)[0].shape
    (32, 3)
    """
    import haiku as hk

    if not isinstance(transformed, (hk.Transformed, hk.TransformedWithState)):
        raise TypeError(
            f"interop.haiku.from_transformed: expected the result of hk.transform or hk.transform_with_state, "
            f"got {transformed!r:.80}"
        )
    stateful = isinstance(transformed, hk.TransformedWithState)

    def mode(value: bool) -> dict[str, bool]:
        return {} if train is None else {train: value}

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x)
        variables: Any = transformed.init(checks.key("haiku", key, x), zeros, **mode(True))
        params, state = variables if stateful else (variables, ())
        return params or (), state or ()

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        if not stateful:
            return transformed.apply(params or {}, key, x, **mode(train)), state
        y, new = transformed.apply(params or {}, state or {}, key, x, **mode(train))
        return y, new if state else state

    return Layer("haiku", init, apply)


# Haiku's weights by path ---------------------------------------------------------------------------------------------


def _flat(weights: Any) -> tuple[Library, Leaves]:
    """Return the conventions of Haiku, and the arrays by name in the order of creation."""
    trees = weights if isinstance(weights, tuple) else (weights,)
    if not all(isinstance(tree, Mapping) for tree in trees):
        raise TypeError(
            f"interop.haiku: expected parameters or (parameters, state), got {type(weights).__name__}; "
            "pass what init of Haiku returned"
        )
    steps, leaves = {}, {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        keys = [step.key for step in path[1:]]
        name = "/".join(keys)
        steps[name] = _convert.steps_of(trees, [path[0].idx, *keys])
        leaves[name] = leaf.ravel() if name.endswith(_VECTORS) else leaf  # vectors may have axes of length 1
    order = sorted(leaves, key=lambda name: [step.position for step in steps[name]])

    def ordered(name: str, other: str) -> bool:
        return _convert.are_ordered(steps[name], steps[other])

    return Library("interop.haiku", "/", _conventions, ordered=ordered), {name: leaves[name] for name in order}


_VECTORS = ("/scale", "/offset", "/hidden", "/average")


# Conventions ---------------------------------------------------------------------------------------------------------


def _transpose_conv(w: Array) -> Array:
    return jnp.flip(w, tuple(range(w.ndim - 2))).swapaxes(-1, -2)


def _attention_names() -> dict[str, Any]:
    foreign = {"query": "query", "key": "key", "value": "value", "out": "linear"}
    return {f"{part}/{leaf}": (f"{other}/{leaf}", same, same) for part, other in foreign.items() for leaf in "wb"}


def _batch_norm(averages: Convention) -> Convention:
    """Return the convention of batch norm, whose averages also have hidden values and counters."""

    def to_library(native: Leaves) -> Leaves:
        hidden = {"~/mean_ema/hidden": native["mean"], "~/var_ema/hidden": native["var"]}
        counters = {f"~/{name}_ema/counter": jnp.full((), 10**6, jnp.int32) for name in ("mean", "var")}
        return averages.to_library(native) | hidden | counters

    return averages._replace(to_library=to_library)


def _rnn_to_haiku(native: Leaves) -> Leaves:
    return {
        "linear/w": native["w_x"],
        "linear/b": native["b"],
        "linear_1/w": native["w_h"],
        "linear_1/b": 0 * native["b"],
    }


def _rnn_from_haiku(foreign: Leaves) -> Leaves:
    b = foreign["linear/b"] + foreign["linear_1/b"]
    return {"w_x": foreign["linear/w"], "w_h": foreign["linear_1/w"], "b": b}


def _swap_gates(leaf: Array) -> Array:
    i, f, g, o = jnp.split(leaf, 4, -1)
    return jnp.concatenate([i, g, f, o], -1)


def _lstm_to_haiku(native: Leaves) -> Leaves:
    features = native["w_h"].shape[0]
    b = native["b"].at[features : 2 * features].add(-1)
    w = jnp.concatenate([native["w_x"], native["w_h"]])
    return {"linear/w": _swap_gates(w), "linear/b": _swap_gates(b)}


def _lstm_from_haiku(foreign: Leaves) -> Leaves:
    w, b = _swap_gates(foreign["linear/w"]), _swap_gates(foreign["linear/b"])
    features = w.shape[1] // 4
    return {"w_x": w[:-features], "w_h": w[-features:], "b": b.at[features : 2 * features].add(1)}


_AFFINE = {"w": ("w", same, same), "b": ("b", same, same)}
_NORMS = norm_conventions("scale", "offset", "~/mean_ema/average", "~/var_ema/average")
_TABLE = {
    "dense": leaf_conversions(_AFFINE),
    "maxout": leaf_conversions(_AFFINE),
    "conv": leaf_conversions(_AFFINE),
    "conv_transpose": leaf_conversions(_AFFINE | {"w": ("w", _transpose_conv, _transpose_conv)}),
    "embedding": leaf_conversions({"w": ("embeddings", same, same)}),
    "learned_positions": leaf_conversions({"w": ("embeddings", same, same)}),
    **_NORMS,
    "batch_norm": _batch_norm(_NORMS["batch_norm"]),
    "multi_head_attention": leaf_conversions(_attention_names()),
    "rnn": Convention(_rnn_to_haiku, _rnn_from_haiku, {"linear_1/b": 0.0}),
    "lstm": Convention(_lstm_to_haiku, _lstm_from_haiku),
}


def _conventions(kind: str, arguments: str) -> Sequence[Convention]:
    return [_TABLE[kind]] if kind in _TABLE else []
