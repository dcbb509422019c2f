"""Convert weights to and from Flax (linen and nnx), and use its modules as layers.

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

Flax's `momentum` of BatchNorm is our `decay`. Its running variance is biased, ours is unbiased. The variance is copied
unchanged, so predictions are equal. In further training, it tends to n / (n - 1) times the old value for n values in a
batch.

Flax also runs a power iteration of `SpectralNorm` in prediction. Imported weights are those after it, so predictions
are equal; exported ones predict the same once the iteration has converged.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.interop import _convert
from nnjax.interop._convert import Convention, Library, Names, renamed, same
from nnjax.interop._parts import Leaves, kind_of
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def import_weights(net: LayerLike, x: PyTree, weights: Any, *, names: Names | None = None) -> tuple[Params, State]:
    """Return parameters and state of a network with the weights of a Flax module that has the same layers.

    Layers of the same kind are paired in order: nnjax's in the order of the network (in `residual`, the shortcut last),
    Flax's in order of creation. Dictionaries that JAX has sorted are read in the order of the numbers in their keys.
    Compare the outputs for one input, because swapped layers of equal shapes cannot be detected.

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
      params, state

    Raises:
      ValueError: if a layer has no weights, if weights have no layer, or if shapes differ. The message names the
        weight, its shape and the expected one.

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
    """Return the weights of a network, structured like the weights of a Flax module.

    Args:
      net: The network.
      x: An input of the network, or its shape and dtype.
      params: Its parameters.
      state: Its state.
      like: Variables of the linen module, or an `nnx.Module` or its `nnx.State`. It is not changed.
      names: As for `import_weights`.

    Returns:
      Variables with the same structure as `like`, for `module.apply`; for nnx a `State`, for `nnx.update(module, …)`.
      Entries without a counterpart keep the values of `like`.

    Raises:
      ValueError: see `import_weights`.

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


# Flax modules as layers ---------------------------------------------------------------------------------------------

_TRAIN = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}


def from_linen(module: Any, *, rngs: Sequence[str] = ("dropout",)) -> Layer:
    """Return a linen module as a layer.

    The parameters are the collection "params"; the state is a dictionary of the other collections, or () if there are
    none. Both come from `module.init`, so `module.apply({"params": params, **state}, x)` works too.

    Args:
      module: A `flax.linen.Module` that takes one input. Its arguments `train`, `training`, `is_training`,
        `deterministic` and `use_running_average` are set from the layer's `train`.
      rngs: Names of the random streams that the module draws from in training.

    >>> import flax.linen
    >>> net = interop.flax.from_linen(flax.linen.Dense(3))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> net.apply(params, state, jnp.ones((32, 4)), train=False)[0].shape
    (32, 3)
    """
    name = type(module).__name__
    if not hasattr(module, "lazy_init"):
        raise TypeError(f"interop.flax.from_linen: expected a flax.linen.Module, got {module!r:.80}; see from_nnx")
    known = {argument: value for argument, value in _TRAIN.items() if argument in _arguments(module)}

    def mode(train: bool) -> dict[str, bool]:
        return {argument: value == train for argument, value in known.items()}

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        keys = {stream: jax.random.fold_in(key, i) for i, stream in enumerate(("params", *rngs))}
        variables = dict(module.lazy_init(keys, jax.eval_shape(lambda x: x, x), **mode(False)))
        return variables.pop("params", ()), variables or ()

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        keys = {} if key is None else {stream: jax.random.fold_in(key, i) for i, stream in enumerate(rngs)}
        variables = {"params": params, **(state or {})}
        if not train or not state:
            return module.apply(variables, x, rngs=keys, **mode(train)), state
        y, new = module.apply(variables, x, rngs=keys, mutable=list(state), **mode(train))
        return y, dict(new)

    return Layer(name, init, apply)


def from_nnx(make_module: Callable[[Any], Any]) -> Layer:
    """Return an nnx module as a layer.

    The parameters are the module's `nnx.Param`, and the state is its other variables, both as nested dictionaries. The
    random streams start from the layer's key. `nnx.update(module, params)` writes the parameters into a module.

    Args:
      make_module: Function of `nnx.Rngs` that returns the module, which takes one input. Its mode is set by
        `module.train()` and `module.eval()`.

    >>> from flax import nnx
    >>> net = interop.flax.from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> net.apply(params, state, jnp.ones((32, 4)), train=False)[0].shape
    (32, 3)
    """
    from flax import nnx

    checks.function_of("interop.flax.from_nnx", "make_module", make_module, "rngs")
    if isinstance(make_module, nnx.Module):
        raise TypeError(
            f"interop.flax.from_nnx: make_module must be a function of nnx.Rngs that returns the module, got a module, "
            f"{type(make_module).__name__}"
        )
    shapes = nnx.eval_shape(lambda: make_module(nnx.Rngs(0)))
    definition, *structures = nnx.split(shapes, nnx.Param, nnx.RngState, ...)
    name = type(shapes).__name__

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        module = make_module(nnx.Rngs(checks.key(name, key, x)))
        params, _, state = nnx.state(module, nnx.Param, nnx.RngState, ...)
        return nnx.to_pure_dict(params) or (), nnx.to_pure_dict(state) or ()

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        source = jax.random.key(0) if key is None else key
        rngs = [
            jax.random.fold_in(source, i) if checks.is_key(leaf) else jnp.zeros(leaf.shape, leaf.dtype)
            for i, leaf in enumerate(jax.tree.leaves(structures[1]))
        ]
        leaves = jax.tree.leaves(params), rngs, jax.tree.leaves(state)
        states = [jax.tree.unflatten(jax.tree.structure(s), own) for s, own in zip(structures, leaves, strict=True)]
        module = nnx.merge(definition, *states)
        module.train() if train else module.eval()
        y = module(x)
        return y, (nnx.to_pure_dict(nnx.state(module, nnx.Param, nnx.RngState, ...)[2]) or ()) if train else state

    return Layer(name, init, apply)


def _arguments(module: Any) -> Mapping[str, Any]:
    return inspect.signature(type(module).__call__).parameters


# Flax's weights by path ----------------------------------------------------------------------------------------------


def _is_linen(weights: Any) -> bool:
    return isinstance(weights, Mapping) and not hasattr(weights, "flat_state")


class _Flat(NamedTuple):
    """The weights of a module."""

    tree: Any
    names: dict[str, str]  # names of the floating arrays, by path in the tree
    leaves: Leaves  # the floating arrays by name, in the order of creation
    library: Library


def _flat(weights: Any) -> _Flat:
    linen = _is_linen(weights)
    tree = weights
    if not linen:
        from flax import nnx

        if not isinstance(weights, (nnx.Module, nnx.State)):
            got = type(weights).__name__
            raise TypeError(f"interop.flax: expected variables, an nnx.Module or an nnx.State, got {got}")
        tree = nnx.state(weights) if isinstance(weights, nnx.Module) else weights
    leaves = [
        (_convert.steps_of(weights, _keys(path)), jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)  # leaves out keys and counters
    ]
    leaves.sort(key=lambda item: [step.position for step in item[0]])
    modules = {tuple(step.name for step in steps[1:-1]) for steps, _, _ in leaves}
    names = {path: _name([step.name for step in steps], modules, linen=linen) for steps, path, _ in leaves}
    steps_by_name = {names[path]: steps for steps, path, _ in leaves}

    def ordered(name: str, other: str) -> bool:
        return _convert.are_ordered(steps_by_name[name], steps_by_name[other])

    library = Library("interop.flax", "/", partial(_conventions, _LINEN if linen else _NNX), ordered=ordered)
    return _Flat(tree, names, {names[path]: leaf for _, path, leaf in leaves}, library)


def _keys(path: tuple[Any, ...]) -> list[Any]:
    """Return the keys that lead to an array, without the attribute `value` of the variable that holds it."""
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


# Conventions ---------------------------------------------------------------------------------------------------------

_DENSE = {"w": ("kernel", same, same), "b": ("bias", same, same)}
_NORM = {"scale": ("scale", same, same), "bias": ("bias", same, same)}
_NO_EFFECT = {"scale": 1.0, "bias": 0.0}


def _reverse_kernel(w: Array) -> Array:
    return jnp.flip(w, tuple(range(w.ndim - 2)))


def _attention(heads: int) -> Convention:
    def to_theirs(ours: Leaves) -> Leaves:
        theirs = {}
        for name, leaf in ours.items():
            part, kind = name.split("/")
            split = leaf.reshape(*leaf.shape[:-1], heads, -1) if part != "out" else leaf
            split = leaf.reshape(heads, -1, leaf.shape[-1]) if name == "out/w" else split
            theirs[f"{part}/{'kernel' if kind == 'w' else 'bias'}"] = split
        return theirs

    def to_ours(theirs: Leaves) -> Leaves:
        ours = {}
        for name, leaf in theirs.items():
            part, kind = name.split("/")
            rows = leaf.shape[:1] if part != "out" else (-1,)
            ours[f"{part}/{'w' if kind == 'kernel' else 'b'}"] = (
                leaf.reshape(*rows, leaf.shape[-1] if part == "out" else -1) if kind == "kernel" else leaf.ravel()
            )
        return ours

    return Convention(to_theirs, to_ours)


def _gates(inputs: Sequence[str], states: Sequence[str], biased: str) -> Convention:
    """Return the convention of a cell with a matrix for each gate.

    Args:
      inputs: names of the affine maps of the input, one per gate.
      states: names of the affine maps of the state, one per gate.
      biased: which of the maps have a bias, "inputs" or "states".
    """
    with_bias = inputs if biased == "inputs" else states

    def to_theirs(ours: Leaves) -> Leaves:
        theirs: Leaves = {}
        for leaf, names, end in (("w_x", inputs, "kernel"), ("w_h", states, "kernel"), ("b", with_bias, "bias")):
            blocks = jnp.split(ours[leaf], len(names), -1)
            theirs |= {f"{name}/{end}": block for name, block in zip(names, blocks, strict=True)}
        return theirs | ({f"{states[-1]}/bias": ours["b_h"]} if "b_h" in ours else {})

    def to_ours(theirs: Leaves) -> Leaves:
        def joined(names: Sequence[str], end: str) -> Array:
            return jnp.concatenate([theirs[f"{name}/{end}"] for name in names], -1)

        ours = {"w_x": joined(inputs, "kernel"), "w_h": joined(states, "kernel"), "b": joined(with_bias, "bias")}
        second = f"{states[-1]}/bias"
        return ours | ({"b_h": theirs[second]} if biased == "inputs" and second in theirs else {})

    return Convention(to_theirs, to_ours)


def _joint(bias: str) -> Convention:
    """Return the convention of an nnx cell with one matrix for all gates. The map named `bias` has the bias."""
    return renamed(
        {
            "w_x": ("dense_i/kernel", same, same),
            "w_h": ("dense_h/kernel", same, same),
            "b": (f"{bias}/bias", same, same),
            "b_h": ("missing b_h", same, same),
        },
        {"missing b_h": 0.0},
    )


def _spectral(kernel: str, b: str, stats: str) -> Convention:
    """Return the convention of `spectral_norm`. Flax stores u from before the power iteration, nnjax from after it."""
    leaves = renamed({"w": (kernel, same, same), "b": (b, same, same)})

    def to_theirs(ours: Leaves) -> Leaves:
        w = ours["w"].reshape(-1, ours["w"].shape[-1])
        return leaves.to_theirs(ours) | {f"{stats}/u": ours["u"][None], f"{stats}/sigma": ours["v"] @ w @ ours["u"]}

    def to_ours(theirs: Leaves) -> Leaves:
        ours = leaves.to_ours(theirs)
        w = ours["w"].reshape(-1, ours["w"].shape[-1])
        v = w @ theirs[f"{stats}/u"][0]
        v = v / jnp.linalg.norm(v)
        u = v @ w
        return ours | {"u": u / jnp.linalg.norm(u), "v": v}

    return Convention(to_theirs, to_ours)


_TABLE: dict[str, Sequence[Convention]] = {
    "dense": [renamed(_DENSE)],
    "maxout": [renamed(_DENSE)],
    "conv": [renamed(_DENSE)],
    "conv_transpose": [renamed(_DENSE | {"w": ("kernel", _reverse_kernel, _reverse_kernel)})],
    "embedding": [renamed({"w": ("embedding", same, same)})],
    "learned_positions": [renamed({"w": ("embedding", same, same)})],
    "layer_norm": [renamed(_NORM, _NO_EFFECT)],
    "group_norm": [renamed(_NORM, _NO_EFFECT)],
    "instance_norm": [renamed(_NORM, _NO_EFFECT)],
    "rms_norm": [renamed({"scale": ("scale", same, same)}, _NO_EFFECT)],
    "batch_norm": [renamed({**_NORM, "mean": ("mean", same, same), "var": ("var", same, same)}, _NO_EFFECT)],
}
_LINEN = _TABLE | {
    "rnn": [_gates(["i"], ["h"], "inputs")],
    "lstm": [_gates(["ii", "if", "ig", "io"], ["hi", "hf", "hg", "ho"], "states")],
    "gru": [_gates(["ir", "iz", "in"], ["hr", "hz", "hn"], "inputs")],
    "weight_norm": [renamed(_DENSE | {"g": ("kernel/scale", same, same)})],
    "spectral_norm": [_spectral("kernel", "bias", "kernel")],
}
_NNX = _TABLE | {
    "rnn": [_joint("dense_i")],
    "lstm": [_joint("dense_h"), _gates(["ii", "if_", "ig", "io"], ["hi", "hf", "hg", "ho"], "states")],
    "gru": [_joint("dense_i")],
    "weight_norm": [
        renamed(
            {
                "w": ("layer_instance/kernel", same, same),
                "b": ("layer_instance/bias", same, same),
                "g": ("scales/kernel", same, same),
            }
        )
    ],
    "spectral_norm": [_spectral("layer_instance/kernel", "layer_instance/bias", "batch_stats/kernel")],
}


def _conventions(table: Mapping[str, Sequence[Convention]], kind: str, arguments: str) -> Sequence[Convention]:
    if kind == "multi_head_attention":
        return [_attention(int(arguments))]
    if kind in ("weight_norm", "spectral_norm") and kind_of(arguments)[0] not in ("dense", "conv"):
        return []
    return table.get(kind, [])
