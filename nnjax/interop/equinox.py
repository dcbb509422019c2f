"""Convert weights to and from Equinox, and use Equinox modules as layers.

| layer | Equinox | converted |
|---|---|---|
| `dense`, `maxout` | `Linear` | Equinox has (outputs, inputs) |
| `conv` | `Conv1d` … `Conv3d` | (outputs, inputs / groups, *kernel) |
| `conv_transpose` | `ConvTranspose1d` … | the same, and the kernel is flipped |
| `embedding`, `learned_positions` | `Embedding` | |
| `batch_norm` | `BatchNorm`, in both modes | the statistics are in its `State` |
| `layer_norm`, `group_norm`, `instance_norm` | `LayerNorm`, `GroupNorm`, `GroupNorm` with one group per channel | |
| `rms_norm` | `RMSNorm` with `use_bias=False` | |
| `multi_head_attention` | `MultiheadAttention` | as `dense` |
| `lstm`, `gru` | `LSTMCell`, `GRUCell` | Equinox has (outputs, inputs) |
| `weight_norm`, `spectral_norm` | `WeightNorm`, `SpectralNorm` | as the layer inside |

Equinox's `momentum` of BatchNorm is nnjax's `decay`. Its running variance is biased, nnjax's is unbiased. The variance
is copied unchanged, so predictions are equal. Further training after an import changes it by a factor of about n / (n -
1) for n values in a batch, and after an export by the inverse. Exported statistics have a counter of 10⁶, so the
division by 1 - momentum^counter in mode "batch" has no effect.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.interop import _convert
from nnjax.interop._common_conventions import norm_conventions, outputs_first, outputs_last, with_channels_first
from nnjax.interop._convert import Convention, Library, Names, leaf_conversions, same
from nnjax.interop._parts import Leaves, kind_of
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def import_weights(net: LayerLike, x: PyTree, weights: Any, *, names: Names | None = None) -> tuple[Params, State]:
    """Convert the weights of an Equinox module to the parameters and state of a network with the same layers.

    Layers are paired and inputs reordered as in `interop.torch.import_weights`. The layers of an Equinox module are in
    the order of its fields.

    Args:
      net: The network.
      x: An input of the network with a batch axis, or its shape and dtype; the parameters get its dtype.
      weights: The module, or (module, state) if it has an `equinox.nn.State`.
      names: For layers in a different order, a mapping from the path of a layer to the path of its module, such as
        {"3/1": "layers/4"}.

    Returns:
      The parameters and the state of the network.

    Raises:
      ValueError: if a layer has no weights, if weights have no layer, if shapes differ, if a layer cannot be converted,
        if `names` is wrong, or if a module with statistics is passed without its state.
      TypeError: if `weights` is not a module or (module, state).

    >>> import equinox as eqx
    >>> module = eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
    >>> params, state = interop.equinox.import_weights(nn.mlp([8], 2), jnp.ones((1, 4)), module)
    >>> params[1]["w"].shape
    (4, 8)
    """
    return _convert.import_weights(_EQUINOX, net, x, _flat(*_module_and_state(weights)), names)


def export_weights(
    net: LayerLike, x: PyTree, params: Params, state: State, *, like: Any, names: Names | None = None
) -> Any:
    """Convert the weights of a network to an Equinox module.

    Args:
      net: The network.
      x: An input of the network, or its shape and dtype.
      params: The parameters of the network.
      state: The state of the network.
      like: The module, or (module, state) if it has an `equinox.nn.State`. It is not changed.
      names: As for `import_weights`.

    Returns:
      The module, or (module, state), as in `like`.

    Raises:
      ValueError: as in `import_weights`; or if params or state do not fit the network, or if `like` has no
        counterpart for an array that affects the output, such as a nonzero bias.
      TypeError: if `like` is not a module or (module, state).

    >>> import equinox as eqx
    >>> params, state = nn.mlp([8], 2).init(jax.random.key(0), jnp.ones((1, 4)))
    >>> like = eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
    >>> module = interop.equinox.export_weights(nn.mlp([8], 2), jnp.ones((1, 4)), params, state, like=like)
    >>> bool((module.layers[0].weight == params[1]["w"].T).all())
    True
    """
    module, module_state = _module_and_state(like)
    leaves = _flat(module, module_state)
    values = _convert.export_weights(_EQUINOX, net, x, (params, state), leaves, names)

    def value(path: tuple[Any, ...], leaf: Any) -> Any:
        name = checks.path_name(path)
        return values[name].reshape(leaf.shape).astype(leaf.dtype) if name in values else leaf

    new = jax.tree_util.tree_map_with_path(value, module)
    if module_state is None:
        return new
    module_state = _copy(module_state)
    for start, layer in _stateful_layers(module):
        statistics = {name: values[start + name] for name in _statistics(layer, module_state) if start + name in values}
        module_state = _with_statistics(layer, module_state, statistics) if statistics else module_state
    return new, module_state


def from_module(make_module: Callable[[Key], Any]) -> Layer:
    """Turn an Equinox module into a layer, which applies it to each example of a batch with `jax.vmap`.

    The parameters are the module with None in place of everything except floating-point arrays, as returned by
    `eqx.partition(module, eqx.is_inexact_array)`. The state is a pair of the other arrays and the `equinox.nn.State`,
    with () for a missing `State`; or () if there is neither.

    Args:
      make_module: Function of a key that returns the module, or (module, state), as `eqx.nn.make_with_state` does. The
        module takes one example, the state if there is one, and `key` if its signature contains it. BatchNorm must have
        `axis_name="batch"`.

    Raises:
      TypeError: if `make_module` is not a function of a key, or returns something else.

    >>> import equinox as eqx
    >>> net = interop.equinox.from_module(lambda key: eqx.nn.MLP(4, 2, 8, 1, key=key))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> net.apply(params, state, jnp.ones((32, 4)), train=False)[0].shape
    (32, 2)
    """
    import equinox as eqx

    checks.function_of("interop.equinox.from_module", "make_module", make_module, "key")
    module, shapes = _module_and_state(eqx.filter_eval_shape(make_module, jax.random.key(0)))
    static = eqx.partition(module, _has_dtype)[1]
    takes_key = "key" in inspect.signature(type(module).__call__).parameters
    name = type(module).__name__

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        module, module_state = _module_and_state(make_module(checks.key(name, key, x)))
        params, others = eqx.partition(eqx.filter(module, eqx.is_array), eqx.is_inexact_array)
        state = (others, () if module_state is None else module_state)
        return params, state if jax.tree.leaves(state) else ()

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        others, module_state = state or (eqx.filter(static, _has_dtype), ())
        module = eqx.nn.inference_mode(eqx.combine(params, others, static), value=not train)
        batch = jax.tree.leaves(x)[0].shape[0]
        keys = None if key is None or not takes_key else jax.random.split(key, batch)

        def apply_example(x: PyTree, key: Key | None) -> tuple[PyTree, Any]:
            options = {} if key is None else {"key": key}
            return (module(x, **options), ()) if shapes is None else module(x, _copy(module_state), **options)

        axes = (0, None if keys is None else 0)
        y, new = jax.vmap(apply_example, in_axes=axes, out_axes=(0, None), axis_name="batch")(x, keys)
        return y, (others, new) if train and shapes is not None else state

    return Layer(name, init, apply)


# Equinox's weights by path -------------------------------------------------------------------------------------------


def _has_dtype(leaf: Any) -> bool:
    return hasattr(leaf, "dtype")


def _module_and_state(weights: Any) -> tuple[Any, Any]:
    import equinox as eqx

    if isinstance(weights, tuple) and len(weights) == 2 and isinstance(weights[1], eqx.nn.State):
        return weights
    if not isinstance(weights, eqx.Module):
        raise TypeError(f"interop.equinox: expected a module or (module, state), got {type(weights).__name__}")
    return weights, None


def _copy(state: Any) -> Any:
    """Return a copy of an `equinox.nn.State`, because an update makes the original unusable."""
    return jax.tree.map(lambda leaf: leaf, state)


def _flat(module: Any, state: Any) -> Leaves:
    """Return the floating-point arrays and the running statistics of a module by path."""
    import equinox as eqx

    leaves = jax.tree_util.tree_leaves_with_path(module, is_leaf=lambda node: isinstance(node, eqx.nn.StateIndex))
    arrays = {checks.path_name(path): leaf for path, leaf in leaves if eqx.is_inexact_array(leaf)}
    # Flatten vectors, because they may have axes of length 1
    result = {name: leaf.ravel() if name.rpartition("/")[2] in ("bias", "g") else leaf for name, leaf in arrays.items()}
    for start, layer in _stateful_layers(module):
        if state is None:
            raise ValueError(f"interop.equinox: {type(layer).__name__} has statistics; pass (module, state)")
        result |= {start + name: leaf for name, leaf in _statistics(layer, state).items()}
    return result


def _stateful_layers(module: Any) -> list[tuple[str, Any]]:
    """Return pairs of the path prefix and the layer, for all layers with statistics."""
    import equinox as eqx

    def is_stateful(node: Any) -> bool:
        return isinstance(node, (eqx.nn.BatchNorm, eqx.nn.SpectralNorm))

    nodes = jax.tree_util.tree_leaves_with_path(module, is_leaf=is_stateful)
    return [(f"{checks.path_name(path)}/" if path else "", node) for path, node in nodes if is_stateful(node)]


def _statistics(layer: Any, state: Any) -> Leaves:
    """Return the statistics that a layer uses in evaluation mode."""
    import equinox as eqx

    if isinstance(layer, eqx.nn.SpectralNorm):
        return dict(zip("uv", state.get(layer.uv_index), strict=True))
    mean, var = state.get(layer.ema_state_index if layer.mode == "ema" else layer.batch_state_index)
    if layer.mode == "batch":
        counter = state.get(layer.batch_counter)
        scale = jnp.where(counter == 0, 1, 1 - jnp.asarray(layer.momentum, mean.dtype) ** counter).astype(mean.dtype)
        mean, var = mean / scale, var / scale
    return {"mean": mean, "var": var}


def _with_statistics(layer: Any, state: Any, values: Leaves) -> Any:
    """Return the state with new statistics for a layer."""
    import equinox as eqx

    def like(leaf: Array, old: Array) -> Array:
        return leaf.astype(old.dtype)

    if isinstance(layer, eqx.nn.SpectralNorm):
        old = state.get(layer.uv_index)
        return state.set(layer.uv_index, (like(values["u"], old[0]), like(values["v"], old[1])))
    index = layer.ema_state_index if layer.mode == "ema" else layer.batch_state_index
    mean, var = state.get(index)
    state = state.set(index, (like(values["mean"], mean), like(values["var"], var)))
    if layer.mode == "ema":
        return state.set(layer.ema_first_time_index, jnp.asarray(False))
    return state.set(layer.batch_counter, jnp.full_like(state.get(layer.batch_counter), 10**6))


# Conventions ---------------------------------------------------------------------------------------------------------


def _transpose_conv(w: Array) -> Array:
    return outputs_first(jnp.flip(w, tuple(range(w.ndim - 2))))


def _transpose_conv_back(w: Array) -> Array:
    return outputs_last(jnp.flip(w, tuple(range(2, w.ndim))))


_WEIGHTS = {
    "dense": (jnp.transpose, jnp.transpose),
    "conv": (outputs_first, outputs_last),
    "conv_transpose": (_transpose_conv, _transpose_conv_back),
}
_ATTENTION = {"query": "query_proj", "key": "key_proj", "value": "value_proj", "out": "output_proj"}


def _affine(kind: str, start: str = "") -> dict[str, Any]:
    return {"w": (f"{start}weight", *_WEIGHTS[kind]), "b": (f"{start}bias", same, same)}


_RECURRENT = {
    "w_x": ("weight_ih", *_WEIGHTS["dense"]),
    "w_h": ("weight_hh", *_WEIGHTS["dense"]),
    "b": ("bias", same, same),
    "b_h": ("bias_n", same, same),
}


_TABLE = {
    "dense": leaf_conversions(_affine("dense")),
    "maxout": leaf_conversions(_affine("dense")),
    "conv": leaf_conversions(_affine("conv")),
    "conv_transpose": leaf_conversions(_affine("conv_transpose")),
    "embedding": leaf_conversions({"w": ("weight", same, same)}),
    "learned_positions": leaf_conversions({"w": ("weight", same, same)}),
    **norm_conventions("weight", "bias", "mean", "var"),
    "multi_head_attention": leaf_conversions(
        {
            f"{part}/{leaf}": names
            for part, other in _ATTENTION.items()
            for leaf, names in _affine("dense", f"{other}/").items()
        }
    ),
    "lstm": leaf_conversions(_RECURRENT, {"bias": 0.0}),
    "gru": leaf_conversions(_RECURRENT, {"bias": 0.0, "bias_n": 0.0}),
}


def _conventions(kind: str, arguments: str) -> Sequence[Convention]:
    inner, _, _ = kind_of(arguments)
    if kind == "weight_norm" and inner in ("dense", "conv"):
        return [leaf_conversions({**_affine(inner, "layer/"), "g": ("g", same, same)})]
    if kind == "spectral_norm" and inner in ("dense", "conv"):
        return [with_channels_first(leaf_conversions({**_affine(inner, "layer/"), "u": ("u", same, same)}), "v")]
    return [_TABLE[kind]] if kind in _TABLE else []


_EQUINOX = Library("interop.equinox", "/", _conventions, channels_first=True)
