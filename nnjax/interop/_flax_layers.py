"""Turn Flax modules (linen and nnx) into layers."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nnjax import checks
from nnjax.types import Key, Layer, Params, PyTree, State

_TRAIN = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}


def from_linen(module: Any, *, rngs: Sequence[str] = ("dropout",)) -> Layer:
    """Turn a linen module into a layer.

    The parameters are the collection "params"; the state is a dictionary of the other collections, or () if there are
    none. Both have the structure that `module.init` returns, so `module.apply({"params": params, **state}, x)` works,
    too, if there is a state.

    Args:
      module: A `flax.linen.Module` that takes one input. Its arguments `train`, `training`, `is_training`,
        `deterministic` and `use_running_average` are set from the layer's `train`.
      rngs: Names of the random streams that the module draws from in training.

    Raises:
      TypeError: if `module` is not a linen module.

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
    """Turn an nnx module into a layer.

    The parameters are the `nnx.Param` variables of the module, and the state is its other variables except random
    streams, both as nested dictionaries, or () if there are none. The random streams start from the layer's key.
    `nnx.update(module, params)` writes the parameters into a module.

    Args:
      make_module: Function of `nnx.Rngs` that returns the module, which takes one input. Its mode is set by
        `module.train()` and `module.eval()`.

    Raises:
      TypeError: if `make_module` is not a function of one argument.

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
        states = [
            jax.tree.unflatten(jax.tree.structure(s), arrays) for s, arrays in zip(structures, leaves, strict=True)
        ]
        module = nnx.merge(definition, *states)
        module.train() if train else module.eval()
        y = module(x)
        return y, (nnx.to_pure_dict(nnx.state(module, nnx.Param, nnx.RngState, ...)[2]) or ()) if train else state

    return Layer(name, init, apply)


def _arguments(module: Any) -> Mapping[str, Any]:
    return inspect.signature(type(module).__call__).parameters
