"""Adapt optimizers of all supported kinds to one interface."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import checks
from nnjax.optcheck.trace.kinds import (
    KINDS,
    NotAnOptimizerError,
    StructureError,
    argument_order,
    describe,
    kind_of,
    method_of,
    name_of,
    positional_names,
)
from nnjax.types import PyTree


class Adapter(NamedTuple):
    """An optimizer adapted to one interface. `step` is a pure function for all kinds except "object" and "torch"."""

    name: str
    kind: str
    init: Callable[[PyTree], Any]  # params -> state
    step: Callable[[Any, PyTree, PyTree], tuple[PyTree, Any]]  # (state, params, grads) -> (updates, state)
    params_of: Callable[[Any], PyTree] | None = None  # returns the parameters if the state holds them

    @property
    def pure(self) -> bool:
        """True if `step` can be transformed by jit and scan."""
        return self.kind not in ("object", "torch")

    @property
    def array(self) -> Callable[..., Any]:
        """The constructor of the arrays that it receives: JAX's if it is pure, else NumPy's."""
        return jnp.array if self.pure else np.array


def adapt(optimizer: Any, kind: str | None = None, init: Callable[[PyTree], Any] | None = None) -> Adapter:
    """Return an adapter of an optimizer.

    Args:
      optimizer: an `optax.GradientTransformation`; a pair `(init, update)`; a triple `(init, update, get_params)` of
        jax.example_libraries; a function `step(params, grads, state) -> (params, state)`; an object with
        `step(params, grads)`, which returns parameters or changes them in place; or a `torch.optim.Optimizer` class
        with its arguments, such as `functools.partial(torch.optim.Adam, lr=1e-3)`.
      kind: one of `KINDS`; None to recognise it.
      init: function that returns the first state of a step function, `init(params)`; None to use its attribute
        `init`, or else the state None.

    Raises:
      NotAnOptimizerError: if the object is not an optimizer of this kind.
    """
    if isinstance(optimizer, Adapter):
        return optimizer
    kind = kind or kind_of(optimizer)
    checks.one_of("optcheck", "kind", kind, KINDS)
    count = {"pair": 2, "triple": 3}.get(kind)
    if count and not (isinstance(optimizer, tuple) and len(optimizer) == count):
        raise NotAnOptimizerError(f"optcheck: a {kind} is {count} functions, got {describe(optimizer)}")
    adapters = {"optax": _optax, "pair": _optax, "triple": _triple, "object": _object, "torch": _torch}
    return _step_function(optimizer, init) if kind == "step" else adapters[kind](optimizer)


def _optax(optimizer: Any) -> Adapter:
    """Adapt an optax transformation or a pair. Its update also receives value=0 if it takes extra arguments."""
    init, update = (optimizer.init, optimizer.update) if hasattr(optimizer, "init") else optimizer
    names = positional_names(update)

    def step(state: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        if isinstance(optimizer, optax.GradientTransformationExtraArgs):
            result = _update_with_value(update, grads, state, params)
        else:
            result = update(grads, state, params) if names is None or len(names) >= 3 else update(grads, state)
        return _two(result, "(updates, state)")

    return Adapter(name_of(update), "optax" if hasattr(optimizer, "init") else "pair", init, step)


def _update_with_value(update: Any, grads: PyTree, state: Any, params: PyTree) -> Any:
    try:
        return update(grads, state, params, value=jnp.zeros(()))
    except TypeError as error:
        if "value_fn" not in str(error):
            raise
        raise NotAnOptimizerError(
            f"optcheck: {name_of(update)} needs the loss function (value_fn=), but optcheck has only gradients; "
            "switch its line search off: optax.lbfgs(linesearch=None)"
        ) from None


def _triple(triple: Any) -> Adapter:
    """Adapt a triple of jax.example_libraries, whose state holds the parameters."""
    init, update, get_params = triple

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        count, state = carry
        new_state = update(count, grads, state)
        return _difference(get_params(new_state), get_params(state)), (count + 1, new_state)

    return Adapter(
        name_of(update),
        "triple",
        init=lambda params: (jnp.zeros((), jnp.int32), init(params)),
        step=step,
        params_of=lambda carry: get_params(carry[1]),
    )


def _step_function(function: Any, init: Callable[[PyTree], Any] | None) -> Adapter:
    """Adapt a function of parameters, gradients and state, in the order of its argument names."""
    order = argument_order(function)

    def step(state: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        arguments = {"params": params, "grads": grads, "state": state}
        new_params, state = _two(function(*(arguments[role] for role in order)), "(params, state)")
        return _difference(new_params, params), state

    return Adapter(name_of(function), "step", init or getattr(function, "init", None) or (lambda params: None), step)


def _object(optimizer: Any) -> Adapter:
    """Adapt an object that holds its own state. Each run uses a copy of the object."""
    method_of(optimizer)  # raises if it has no suitable method

    def init(params: PyTree) -> Any:
        try:
            copy.deepcopy(optimizer)
        except Exception as error:
            raise NotAnOptimizerError(
                f"optcheck: each run needs a copy of the {name_of(optimizer)}, which cannot be copied ({error}); pass "
                "a function that makes one, and hparams="
            ) from error
        return copy.deepcopy(optimizer), _returns_updates(copy.deepcopy(optimizer), params)

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        instance, returns_updates = carry
        before = jax.tree.map(np.array, params)
        inputs = jax.tree.map(_writable, params)
        result = method_of(instance)(inputs, jax.tree.map(_writable, grads))
        return (result if returns_updates else _difference(inputs if result is None else result, before)), carry

    return Adapter(name_of(optimizer), "object", init, step)


def _returns_updates(optimizer: Any, params: PyTree) -> bool:
    """Return True if an object returns updates instead of parameters: with gradients 0, updates are small."""
    result = method_of(optimizer)(jax.tree.map(_writable, params), jax.tree.map(np.zeros_like, params))
    if result is None:
        return False
    with np.errstate(all="ignore"):
        size_as_updates, size_as_params = (
            sum(float(np.nansum(np.abs(np.asarray(leaf, np.float64)))) for leaf in jax.tree.leaves(tree))
            for tree in (result, _difference(result, params))
        )
    return size_as_updates < size_as_params


def _torch(optimizer: Any) -> Adapter:
    """Adapt an optimizer class of PyTorch: parameters are written before each step and read after it."""
    import torch

    def init(params: PyTree) -> Any:
        tensors = [torch.nn.Parameter(torch.tensor(np.asarray(leaf))) for leaf in jax.tree.leaves(params)]
        return optimizer(tensors), tensors

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        instance, tensors = carry
        leaves, treedef = jax.tree.flatten(params)
        for tensor, leaf, grad in zip(tensors, leaves, jax.tree.leaves(grads), strict=True):
            tensor.data.copy_(torch.tensor(np.asarray(leaf)))
            tensor.grad = torch.tensor(np.asarray(grad))
        try:
            instance.step()
        except TypeError as error:
            raise NotAnOptimizerError(
                f"optcheck: {type(instance).__name__}.step() cannot run on gradients alone: {error}"
            ) from None
        new_params = [tensor.detach().numpy().copy() for tensor in tensors]
        return _difference(jax.tree.unflatten(treedef, new_params), params), carry

    return Adapter(name_of(optimizer), "torch", init, step)


def _two(result: Any, expected: str) -> tuple[Any, Any]:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise StructureError(describe(result), expected)
    return result


def _difference(new: PyTree, old: PyTree) -> PyTree:
    if str(jax.tree.structure(new)) != str(jax.tree.structure(old)):
        raise StructureError(describe(new), "new parameters with the structure of the old ones")
    return jax.tree.map(lambda a, b: a - b, new, old)


def _writable(leaf: Any) -> Any:
    """Copy NumPy arrays, which the optimizer may change in place; return JAX arrays unchanged."""
    return np.array(leaf) if isinstance(leaf, np.ndarray) else leaf
