"""Adapt optimizers of all supported kinds to one interface."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import checks
from nnjax.optcheck.calling.adapter import Adapter, difference, example_tree
from nnjax.optcheck.calling.binding import bind, reads_grad
from nnjax.optcheck.calling.calls import Target
from nnjax.optcheck.calling.hidden_state import copies, has_closure_state
from nnjax.optcheck.calling.holders import factory_of, hold
from nnjax.optcheck.calling.kinds import (
    KINDS,
    NotAnOptimizerError,
    OrderError,
    StructureError,
    check_kind,
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
from nnjax.optcheck.calling.verdicts import has_shapes, is_update, repeats, returns_parameters, takes_steps
from nnjax.optcheck.trace.deadline import TimeLimitError
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
    check_kind(optimizer, kind)
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
    by_keyword = any(argument.keyword for argument in required)
    if order or by_keyword or len(required) > 3 or (arguments and names[0] == "params" and "grads" in names):
        return bind(target, init, order)

    takes_params = arguments is None or len(arguments) >= 3

    def call_update(update: Any, grads: PyTree, state: Any, params: PyTree) -> tuple[PyTree, Any]:
        if isinstance(optimizer, optax.GradientTransformationExtraArgs):
            result = _update_with_value(update, grads, state, params)
        else:
            result = update(grads, state, params) if takes_params else update(grads, state)
        return _two(result, "(updates, state)")

    def step(state: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        return call_update(update, grads, state, params)

    call = f"{name_of(update)}(grads, state{', params' if takes_params else ''})"
    adapter = trial = Adapter(name_of(update), kind, init, step)
    if has_closure_state(update):
        trial = in_first_layout(_with_own_closure(adapter, init, update, call_update), call)
        target = Target(name_of(update), lambda: copies(update)[0], owns_state=True)
        if trial.called or not repeats(_on_one_copy(adapter, init, update, call_update)):
            called = f"{trial.called or call}; each run uses a copy of its closure"
            adapter = trial = trial._replace(called=called)
    else:
        adapter = trial = in_first_layout(adapter, call)
    if isinstance(optimizer, optax.GradientTransformation):
        if _is_own(update) and returns_parameters(trial):
            raise _new_parameters_error(name_of(update))
        return adapter
    works, new = takes_steps(trial), returns_parameters(trial)
    if works and not new and is_update(trial):
        return adapter
    swapped = trial._replace(step=lambda *inputs: _swap_results(trial.step(*inputs)))
    if trial is adapter and not new and _returns_updates(swapped):
        return swapped._replace(called=f"{trial.called or call}; it returns (state, updates)")
    try:  # it returns new parameters, or its arguments or results have another order
        bound = bind(target, init)
    except OrderError:
        raise
    except NotAnOptimizerError:
        if _state_holds_parameters(init):
            raise _no_get_params_error(name_of(update)) from None
        return adapter
    return adapter if works and not new and not is_update(bound) else bound


def _swap_results(result: tuple[Any, Any]) -> tuple[Any, Any]:
    return result[1], result[0]


def _returns_updates(adapter: Adapter) -> bool:
    """Return True if two steps give updates with the shapes of the parameters."""
    params, *grads = (example_tree(adapter.array, seed, ndim=adapter.ndim) for seed in range(3))
    try:
        state = adapter.init(params)
        for grad in grads:
            updates, state = adapter.step(state, params, grad)
        return has_shapes(updates, params) and is_update(adapter) and not returns_parameters(adapter)
    except TimeLimitError:
        raise
    except Exception:
        return False


def _with_own_closure(adapter: Adapter, init: Any, update: Any, call_update: Any) -> Adapter:
    """Return an adapter whose runs use copies of both functions, because their closure may contain state."""

    def start(params: PyTree) -> Any:
        new_init, new_update = copies(init, update)
        return new_update, new_init(params)

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        updates, state = call_update(carry[0], grads, carry[1], params)
        return updates, (carry[0], state)

    return adapter._replace(kind="object", init=start, step=step, eager=True)


def _on_one_copy(adapter: Adapter, init: Any, update: Any, call_update: Any) -> Adapter:
    """Return an adapter whose runs share one copy of both functions, to see if runs influence each other."""
    new_init, new_update = copies(init, update)
    return adapter._replace(
        init=new_init, step=lambda state, params, grads: call_update(new_update, grads, state, params)
    )


def _is_own(function: Any) -> bool:
    """Return True unless a function is from optax or nnjax, whose transformations return updates."""
    return str(getattr(function, "__module__", "")).partition(".")[0] not in ("optax", "nnjax")


def _new_parameters_error(name: str) -> NotAnOptimizerError:
    return NotAnOptimizerError(
        f"optcheck: {name} returns new parameters, but optax adds what an optax.GradientTransformation returns to the "
        "parameters; return updates, or pass a pair:\n"
        "  pair = (optimizer.init, optimizer.update)  # may return new parameters\n"
        "  optcheck.compare(pair, …)"
    )


def _state_holds_parameters(init: Any) -> bool:
    """Return True if all parameters are in the state that `init` returns."""
    params = example_tree(jnp.array, 0)
    try:
        leaves = jax.tree.leaves(init(params))
    except TimeLimitError:
        raise
    except Exception:
        return False
    return all(any(np.array_equal(leaf, p) for leaf in leaves) for p in jax.tree.leaves(params))


def _no_get_params_error(name: str) -> NotAnOptimizerError:
    return NotAnOptimizerError(
        f"optcheck: the state of {name} contains the parameters; pass a third function that returns them:\n"
        "  def get_params(state):\n"
        "      return state.params  # or state[0], …\n"
        "  optcheck.compare((init, update, get_params), …)"
    )


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
        except NotAnOptimizerError as of_function:
            raise (of_function if reads_grad(function) else error) from None


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
    known = [argument.role for argument in arguments_of(update) or ()]
    counts = len(known) != 2
    roles = known if known.count("grads") == 1 and len(known) in (2, 3) else ["count", "grads", "state"][not counts :]
    roles = [role if role in ("count", "grads") else "state" for role in roles]
    if sorted(roles) not in (["count", "grads", "state"], ["grads", "state"]):
        roles = ["count", "grads", "state"][not counts :]

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        count, state = carry
        values = {"count": count, "grads": grads, "state": state}
        new_state = update(*(values[role] for role in roles))
        return difference(get_params(new_state), get_params(state)), (count + 1, new_state)

    name = name_of(update if is_tuple else triple)
    adapter = Adapter(
        name,
        "triple",
        init=lambda params: (jnp.zeros((), jnp.int32), init(params)),
        step=step,
        params_of=lambda carry: get_params(carry[1]),
    )
    return in_first_layout(adapter, f"{name}({', '.join(roles).replace('count', 't')})")


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
    if inspect.isgenerator(product):
        raise _no_parameters_error(name_of(factory))
    if callable(product) and not methods_of(product)[:-1] and not isinstance(product, type):
        name = name_of(factory)
        return bind(Target(name, factory, owns_state=True), init, order)
    return adapt(product, None, init, order)._replace(name=name_of(factory))


def _no_parameters_error(name: str) -> NotAnOptimizerError:
    return NotAnOptimizerError(
        f"optcheck: {name} is a generator function without an argument for the parameters; if it yields updates, pass\n"
        "  def optimizer(params):  # yields new parameters, and receives gradients\n"
        f"      steps = {name}(); next(steps)\n"
        "      while True:\n"
        "          params = params + steps.send((yield params))"
    )


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
    if takers := _methods_of_parameters(optimizer):
        raise _unregistered_error(name_of(optimizer), takers[0])
    raise errors[0]


def _methods_of_parameters(optimizer: Any) -> list[str]:
    """Return the names of methods that take only parameters, such as `register(params)`."""
    names = [name for name in dir(type(optimizer)) if not name.startswith("_") and name not in INITS]
    methods = {name: getattr(optimizer, name) for name in names if callable(getattr(optimizer, name, None))}
    roles = {name: [a.role for a in arguments_of(method) or () if a.required] for name, method in methods.items()}
    return [name for name in roles if roles[name] == ["params"]]


def _unregistered_error(name: str, method: str) -> NotAnOptimizerError:
    return NotAnOptimizerError(
        f"optcheck: {name} does not take its parameters in the step; pass a function that makes it from parameters:\n"
        "  def make(params):  # a list of objects with .data and .grad, or of arrays\n"
        f"      optimizer = {name}(…); optimizer.{method}(params)\n"
        "      return optimizer"
    )


def _own_init(optimizer: Any) -> Any:
    """Return the method that creates the initial state, or None if there is none."""
    return next((getattr(optimizer, name) for name in INITS if callable(getattr(optimizer, name, None))), None)


def _method_of_copy(optimizer: Any, method: str) -> Any:
    return getattr(copy.deepcopy(optimizer), method)


def _two(result: Any, expected: str) -> tuple[Any, Any]:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise StructureError(describe(result), expected)
    return result
