"""Convert weights to and from Flax (linen and nnx), and use Flax modules as layers.

| layer | linen | nnx | converted |
|---|---|---|---|
| `dense`, `maxout` | `Dense` | `Linear` | |
| `conv` | `Conv` | `Conv` | |
| `conv_transpose` | `ConvTranspose` | `ConvTranspose` | the kernel is flipped |
| `embedding`, `learned_positions` | `Embed` | `Embed` | |
| `batch_norm` | `BatchNorm` | `BatchNorm` | see below |
| `layer_norm`, `rms_norm`, `group_norm`, `instance_norm` | of the same name | of the same name | |
| `multi_head_attention` | `MultiHeadDotProductAttention` | `MultiHeadAttention` | Flax has an axis of heads |
| `rnn` | `SimpleCell` | `SimpleCell` | |
| `lstm` | `LSTMCell`, `OptimizedLSTMCell` | the same | one matrix per gate, except in nnx's `OptimizedLSTMCell` |
| `gru` | `GRUCell` | `GRUCell` | one matrix per gate in linen; no second bias in nnx |
| `weight_norm`, `spectral_norm` | of the same name | of the same name | |

Flax's `momentum` of BatchNorm is nnjax's `decay`. Its running variance is biased, nnjax's is unbiased. The variance is
copied unchanged, so predictions are equal. Further training after an import changes it by a factor of about n / (n - 1)
for n values in a batch, and after an export by the inverse.

Flax also runs the power iteration of `SpectralNorm` in evaluation mode. Weights are imported after this iteration, so
predictions are equal. Exported weights give equal predictions once the iteration has converged.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nnjax.interop import _convert
from nnjax.interop._convert import Library, Names
from nnjax.interop._flax_conventions import LINEN, NNX, conventions_of
from nnjax.interop._flax_layers import from_linen, from_nnx
from nnjax.interop._parts import Leaves
from nnjax.types import LayerLike, Params, PyTree, State

__all__ = ["export_weights", "from_linen", "from_nnx", "import_weights"]


def import_weights(net: LayerLike, x: PyTree, weights: Any, *, names: Names | None = None) -> tuple[Params, State]:
    """Convert the weights of a Flax module to the parameters and state of a network with the same layers.

    Layers of the same kind are paired in order. In nnjax, this is the order of the network (in `residual`, the shortcut
    is last); in Flax, the order of creation. Dictionaries that JAX has sorted are read in the order of the numbers in
    their keys. Compare the outputs for one input, because swapped layers of equal shapes cannot be detected.

    Args:
      net: The network.
      x: An input of the network, or its shape and dtype; the parameters get its dtype.
      weights: The variables of a linen module, such as {"params": …, "batch_stats": …}; or an `nnx.Module`, or its
        `nnx.State`.
      names: For layers in a different order, a mapping from the path of a layer to the path of its module, such as
        {"3/1": "head/Dense_0"}, or to None if the module has no weights. Inside `repeat`, the number of the copy is
        part of the path. A path such as "3/query" pairs one affine map of a layer, and the module's path may also be
        the path of a single array.

    Returns:
      The parameters and the state of the network.

    Raises:
      ValueError: if a layer has no weights, if weights have no layer, if shapes differ (the message names the weight,
        its shape and the expected shape), if a layer cannot be converted, if the order of weights with equal
        shapes is lost, or if `names` is wrong.
      TypeError: if `weights` are not variables, an `nnx.Module` or an `nnx.State`.

    >>> weights = {"params": {"Dense_0": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}}}
    >>> params, state = interop.flax.import_weights(nn.dense(3), jnp.ones((1, 4)), weights)
    >>> params["w"].shape
    (4, 3)
    """
    flat = _flat(weights)
    return _convert.import_weights(flat.library, net, x, flat.leaves, names)


def export_weights(
    net: LayerLike, x: PyTree, params: Params, state: State, *, like: Any, names: Names | None = None
) -> Any:
    """Convert the weights of a network to the weights of a Flax module.

    Args:
      net: The network.
      x: An input of the network, or its shape and dtype.
      params: The parameters of the network.
      state: The state of the network.
      like: Variables of the linen module, or an `nnx.Module` or its `nnx.State`. It is not changed.
      names: As for `import_weights`.

    Returns:
      Variables with the same structure as `like`, for `module.apply`. For nnx, a `State` for `nnx.update(module, …)`.
      Entries without a counterpart keep the values of `like`.

    Raises:
      ValueError: as in `import_weights`; or if params or state do not fit the network, or if `like` has no
        counterpart for an array that affects the output, such as a nonzero bias.
      TypeError: if `like` is not variables, an `nnx.Module` or an `nnx.State`.

    >>> params, state = nn.dense(3).init(jax.random.key(0), jnp.ones((1, 4)))
    >>> like = {"params": {"Dense_0": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}}}
    >>> weights = interop.flax.export_weights(nn.dense(3), jnp.ones((1, 4)), params, state, like=like)
    >>> weights["params"]["Dense_0"]["kernel"].shape
    (4, 3)
    """
    flat = _flat(like)
    values = _convert.export_weights(flat.library, net, x, (params, state), flat.leaves, names)

    def value(path: tuple[Any, ...], leaf: Array) -> Array:
        name = flat.names.get(jax.tree_util.keystr(path))
        return values[name].astype(leaf.dtype) if name in values else leaf

    return jax.tree_util.tree_map_with_path(value, flat.tree)


def _is_linen(weights: Any) -> bool:
    return isinstance(weights, Mapping) and not hasattr(weights, "flat_state")


class _Flat(NamedTuple):
    """The weights of a module as a flat dictionary, with the conventions of its library."""

    tree: Any
    names: dict[str, str]  # names of the floating-point arrays, by path in the tree
    leaves: Leaves  # the floating-point arrays by name, in the order of creation
    library: Library


def _flat(weights: Any) -> _Flat:
    linen = _is_linen(weights)
    tree = weights
    if not linen:
        from flax import nnx

        if not isinstance(weights, (nnx.Module, nnx.State)):
            got = type(weights).__name__
            raise TypeError(
                f"interop.flax: expected variables, an nnx.Module or an nnx.State, got {got}; "
                "linen's init returns variables"
            )
        tree = nnx.state(weights) if isinstance(weights, nnx.Module) else weights
    leaves = [
        (_convert.steps_of(weights, _keys(path)), jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)  # omit random keys and counters
    ]
    leaves.sort(key=lambda item: [step.position for step in item[0]])
    modules = {tuple(step.name for step in steps[1:-1]) for steps, _, _ in leaves}
    names = {path: _name([step.name for step in steps], modules, linen=linen) for steps, path, _ in leaves}
    steps_by_name = {names[path]: steps for steps, path, _ in leaves}

    def ordered(name: str, other: str) -> bool:
        return _convert.are_ordered(steps_by_name[name], steps_by_name[other])

    library = Library("interop.flax", "/", partial(conventions_of, LINEN if linen else NNX), ordered=ordered)
    return _Flat(tree, names, {names[path]: leaf for _, path, leaf in leaves}, library)


def _keys(path: tuple[Any, ...]) -> list[Any]:
    """Return the keys that lead to an array, without the attribute `value` of the variable that contains it."""
    return [step.key for step in path if hasattr(step, "key")]


def _name(steps: list[str], modules: set[tuple[str, ...]], *, linen: bool) -> str:
    """Return the name of an array such as "Dense_0/kernel", without linen's collection.

    A linen wrapper names its own arrays by the path of the wrapped array, relative to itself or to its parent.
    """
    if not linen:
        return "/".join(steps)
    *start, last = steps[1:]
    owner, slash, _ = last.partition("/")
    if slash and (*start, owner) not in modules:
        start = start[:-1]
    return "/".join([*start, last])
