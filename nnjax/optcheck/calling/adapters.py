"""Adapt optimizers of all supported kinds to one interface."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from nnjax import checks
from nnjax.optcheck.calling.adapter import Adapter, difference
from nnjax.optcheck.calling.binding import bind
from nnjax.optcheck.calling.calls import Target
from nnjax.optcheck.calling.holders import factory_of, hold
from nnjax.optcheck.calling.kinds import (
    KINDS,
    NotAnOptimizerError,
    OrderError,
    StructureError,
    describe,
    is_torch,
    kind_of,
    methods_of,
    missing_numbers_error,
    name_of,
)
from nnjax.optcheck.calling.layer_objects import hold_layers, takes_layers
from nnjax.optcheck.calling.layouts import TREE
from nnjax.optcheck.calling.loops import drive
from nnjax.optcheck.calling.names import arguments_of
from nnjax.optcheck.calling.objective import VALUE, gradient, objective
from nnjax.optcheck.calling.tree_layouts import in_first_layout
from nnjax.optcheck.calling.verdicts import is_update
from nnjax.types import PyTree

ROLES = ("params", "grads", "state", "count", "leaf", "pairs", "objective", "gradient", "value", "hessian")
INITS = ("init", "init_state", "initialize", "create_state", "init_opt_state")


def adapt(
    optimizer: Any,
    kind: str | None = None,
    init: Callable[..., Any] | str | None = None,
    order: tuple[str, ...] | None = None,
) -> Adapter:
    """Adapt an optimizer to the common interface.

    Args:
      optimizer: see `candidate` of `nnjax.optcheck.compare`.
      kind: one of `KINDS`; None to detect it.
      init: see `nnjax.optcheck.compare`.
      order: the roles of the arguments, such as ("grads", "params", "state"); None to infer them.

    Raises:
      NotAnOptimizerError: if the object is not an optimizer of this kind.
      ValueError: if `kind` or a role in `order` is unknown.
    """
    if isinstance(optimizer, Adapter):
        return optimizer
    if kind is not None:
        checks.one_of("optcheck", "kind", kind, KINDS)
    for role in order or ():
        checks.one_of("optcheck", "order", role.partition(" ")[0], ROLES)
    kind = kind or kind_of(optimizer)
    count = {"pair": 2, "triple": 3}.get(kind)
    has_methods = kind == "triple" and hasattr(optimizer, "get_params")
    if count and not has_methods and not (isinstance(optimizer, tuple) and len(optimizer) == count):
        raise NotAnOptimizerError(f"optcheck: kind={kind!r} needs {count} functions, got {describe(optimizer)}")
    adapters: dict[str, Callable[[], Adapter]] = {
        "optax": lambda: _optax(optimizer, kind, order),
        "pair": lambda: _optax(optimizer, kind, order),
        "triple": lambda: _triple(optimizer),
        "torch": lambda: _torch(optimizer),
        "holder": lambda: _holder(optimizer),
        "object": lambda: (_method if inspect.ismethod(optimizer) else _object)(optimizer, init, order),
        "loop": lambda: _loop(optimizer),
        "factory": lambda: _factory(optimizer, init, order),
        "step": lambda: _function(optimizer, init, order),
    }
    return adapters[kind]()


def _optax(optimizer: Any, kind: str, order: tuple[str, ...] | None) -> Adapter:
    """Adapt an optax transformation or a pair.

    An update that takes extra arguments also receives the value, gradient and function of a small quadratic.
    """
    init, update = (optimizer.init, optimizer.update) if hasattr(optimizer, "init") else optimizer
    arguments = arguments_of(update)
    required = [argument for argument in arguments or () if argument.required]
    names = [argument.role for argument in arguments or ()]
    target = Target(name_of(update), lambda: update, owns_state=False)
    if order or len(required) > 3 or (arguments and names[0] == "params" and "grads" in names):
        return bind(target, init, order)

    takes_params = arguments is None or len(arguments) >= 3

    def step(state: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        if isinstance(optimizer, optax.GradientTransformationExtraArgs):
            result = _update_with_value(update, grads, state, params)
        else:
            result = update(grads, state, params) if takes_params else update(grads, state)
        return _two(result, "(updates, state)")

    call = f"{name_of(update)}(grads, state{', params' if takes_params else ''})"
    adapter = Adapter(name_of(update), kind, init, step)
    if not _has_cache(update):  # a trial would fill it, and hide what the contract checks
        adapter = in_first_layout(adapter, call)
    usual = bool(names) and names[0] == "grads" and required[2:] == []  # parameters are optional: it returns updates
    if isinstance(optimizer, optax.GradientTransformation) or usual or _has_cache(update) or is_update(adapter):
        return adapter
    try:  # it returns new parameters, or its arguments have another order
        return bind(target, init)
    except OrderError:
        raise
    except NotAnOptimizerError:
        return adapter


def _has_cache(function: Callable[..., Any]) -> bool:
    """Return True if a function has a dict, list or set in its closure."""
    cells = getattr(function, "__closure__", None) or ()
    return any(isinstance(cell.cell_contents, (dict, list, set)) for cell in cells)


def _update_with_value(update: Any, grads: PyTree, state: Any, params: PyTree) -> Any:
    """Call an update that needs an objective (line search, Polyak step size, SAM, Sophia) with a small quadratic."""
    f = objective(params, grads)
    slope = gradient(params, grads, TREE)
    usual = {"value": jnp.full((), VALUE), "grad": grads, "value_fn": f}
    errors: list[Exception] = []
    for extra in (usual, {**usual, "obj_fn": f, "grad_fn": slope}, {"obj_fn": f}, {"grad_fn": slope}):
        try:
            return update(grads, state, params, **extra)
        except (TypeError, ValueError, KeyError) as error:  # some updates reject unknown arguments
            errors.append(error)
    raise errors[0]


def _holder(function: Any) -> Adapter:
    """Adapt a function that creates an optimizer from parameters, or that updates their `.data` with their `.grad`."""
    try:
        return hold(function, name_of(function))
    except NotAnOptimizerError as error:
        if isinstance(function, type):
            raise
        try:
            return bind(Target(name_of(function), lambda: function, owns_state=False))
        except NotAnOptimizerError:
            raise error from None


def _torch(optimizer: Any) -> Adapter:
    """Adapt a PyTorch class or instance; an instance is created anew with the same options."""
    required = [argument for argument in arguments_of(optimizer) or () if argument.required]
    if is_torch(optimizer) and any(argument.role == "number" for argument in required):
        raise missing_numbers_error(name_of(optimizer), required)
    if is_torch(optimizer):
        return hold(optimizer, name_of(optimizer))
    return hold(factory_of(optimizer), name_of(type(optimizer)))


def _triple(triple: Any) -> Adapter:
    """Adapt a triple as in jax.example_libraries, or an object with these methods. The state holds the parameters."""
    is_tuple = isinstance(triple, tuple) and not hasattr(triple, "get_params")
    init, update, get_params = triple if is_tuple else (triple.init, triple.update, triple.get_params)
    counts = len(arguments_of(update) or ()) != 2

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        count, state = carry
        new_state = update(count, grads, state) if counts else update(grads, state)
        return difference(get_params(new_state), get_params(state)), (count + 1, new_state)

    name = name_of(update if is_tuple else triple)
    adapter = Adapter(
        name,
        "triple",
        init=lambda params: (jnp.zeros((), jnp.int32), init(params)),
        step=step,
        params_of=lambda carry: get_params(carry[1]),
    )
    return in_first_layout(adapter, f"{name}({'t, ' if counts else ''}grads, state)")


def _function(function: Any, init: Callable[..., Any] | str | None, order: tuple[str, ...] | None) -> Adapter:
    """Adapt a function that takes parameters, gradients and state, or one that runs the whole training loop."""
    bound = [*function.args, *function.keywords.values()] if isinstance(function, functools.partial) else []
    changeable = any(isinstance(value, (dict, list)) for value in bound)  # such as partial(adam, hyperparams={"t": 1})
    fresh = (lambda: copy.deepcopy(function)) if changeable else (lambda: function)
    target = Target(name_of(function), fresh, owns_state=changeable)
    try:
        return bind(target, init or getattr(function, "init", None), order)
    except NotAnOptimizerError:
        if isinstance(adapter := drive(function, name_of(function)), Adapter):
            return adapter
        raise


def _loop(function: Any) -> Adapter:
    adapter = drive(function, name_of(function))
    if adapter is None:
        raise NotAnOptimizerError(f"optcheck: {name_of(function)} is not a loop(grad, x0, …) that returns parameters")
    return adapter


def _factory(factory: Any, init: Callable[..., Any] | str | None, order: tuple[str, ...] | None) -> Adapter:
    """Call a function without required arguments, and adapt the optimizer or closure that it returns."""
    product = factory()
    if callable(product) and not methods_of(product)[:-1] and not isinstance(product, type):
        name = name_of(factory)
        return bind(Target(name, factory, owns_state=True), init, order)
    return adapt(product, None, init, order)._replace(name=name_of(factory))


def _method(method: Any, init: Callable[..., Any] | str | None, order: tuple[str, ...] | None) -> Adapter:
    """Adapt a bound method. Each run uses a copy of its object."""
    fresh = functools.partial(_method_of_copy, method.__self__, method.__name__)
    return bind(Target(name_of(method), fresh, owns_state=True), init, order)


def _object(optimizer: Any, init: Callable[..., Any] | str | None, order: tuple[str, ...] | None) -> Adapter:
    """Adapt an object that stores its own state. Each run uses a copy of the object."""
    try:
        copy.deepcopy(optimizer)
    except Exception as error:
        raise NotAnOptimizerError(
            f"optcheck: each run needs a copy of the {name_of(optimizer)}, which cannot be copied ({error}); pass "
            "a function that makes one, and hparams="
        ) from error
    errors: list[Exception] = []
    for method in methods_of(optimizer):
        fresh = functools.partial(_method_of_copy, optimizer, method)
        target = Target(f"{name_of(optimizer)}.{method}", fresh, owns_state=True)
        layers = (
            hold_layers(optimizer, method, name_of(optimizer)) if takes_layers(getattr(optimizer, method)) else None
        )
        if layers is not None:
            return layers
        try:
            adapter = bind(target, init or _own_init(optimizer), order)
        except NotAnOptimizerError as error:
            errors.append(error)
            continue
        return adapter._replace(name=name_of(optimizer))
    raise errors[0]


def _own_init(optimizer: Any) -> Any:
    """Return the method that creates the initial state, or None if there is none."""
    return next((getattr(optimizer, name) for name in INITS if callable(getattr(optimizer, name, None))), None)


def _method_of_copy(optimizer: Any, method: str) -> Any:
    return getattr(copy.deepcopy(optimizer), method)


def _two(result: Any, expected: str) -> tuple[Any, Any]:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise StructureError(describe(result), expected)
    return result
