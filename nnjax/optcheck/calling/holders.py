"""Adapt optimizers that store their parameters: PyTorch's, flax's TrainState, and classes that take parameters."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nnjax.optcheck.calling.adapter import Adapter, difference, example_tree
from nnjax.optcheck.calling.kinds import NotAnOptimizerError, is_torch, methods_of, name_of
from nnjax.optcheck.calling.layouts import DICT, LIST, MODULE, TENSORS, TREE, VARIABLES, Layout, no_gradients
from nnjax.optcheck.calling.models import MODELS
from nnjax.optcheck.calling.names import arguments_of, signature_text
from nnjax.optcheck.calling.objective import closure
from nnjax.optcheck.trace.deadline import TimeLimitError
from nnjax.types import PyTree

CONTAINERS = (TENSORS, TREE, DICT, LIST, VARIABLES, *MODELS, MODULE)
STEPS = 8  # most trial steps until an update is nonzero; RAdam without steps below its threshold needs 6
DEPTH = 3  # depth to which attributes are searched for parameters


class Place(NamedTuple):
    """The location of the parameters in an object."""

    path: tuple[str, ...]  # attribute path; () if the parameters are in the container that was passed
    layout: Layout  # layout of the parameters at this path
    copies: bool = False  # True if a step returns a new object


def hold(factory: Callable[[Any], Any], name: str) -> Adapter:
    """Return the adapter of a function that creates an optimizer from parameters.

    Args:
      factory: `factory(parameters) -> optimizer`, such as `lambda params: torch.optim.Adam(params)`.
      name: its name for the report.

    Raises:
      NotAnOptimizerError: if the optimizer does not change its parameters in any of the layouts.
    """
    errors: list[Exception] = []
    factory = _of_model(factory)
    partial: Adapter | None = None
    containers = [TENSORS] if is_torch(factory) else [*CONTAINERS[1:], TENSORS]
    for ndim in (0, 1, 2):
        for layout in containers:
            for array in (np.array, jnp.array):
                adapter = _try(factory, name, layout, array, ndim, errors)
                if adapter is not None and _moves_all(adapter):
                    return adapter
                partial = partial or adapter
    if partial is not None:
        return partial
    raise _refusal(factory, name, errors)


def _of_model(factory: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return the factory. If it is a class that takes parameters and gradients, take both from a model."""
    required = [argument for argument in arguments_of(factory) or () if argument.required]
    if len(required) == 1 and required[0].keyword:  # such as partial(SGD, lr=…) of SGD(lr, params)
        return lambda params: factory(**{required[0].name: params})
    if {argument.role for argument in required} != {"params", "grads"}:
        return factory

    def make(model: Any) -> Any:
        values = {"params": model.params, "grads": model.grads}
        return factory(**{argument.name: values[argument.role] for argument in required})

    return make


def _moves_all(adapter: Adapter) -> bool:
    """Return True if the first update is nonzero in all leaves. Otherwise, another layout may fit better."""
    params, grads = (example_tree(adapter.array, seed, ndim=adapter.ndim) for seed in range(2))
    with np.errstate(all="ignore"):
        updates, _ = adapter.step(adapter.init(params), params, grads)
    return all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(updates))


def _try(
    factory: Callable[[Any], Any],
    name: str,
    layout: Layout,
    array: Callable[..., Any],
    ndim: int,
    errors: list[Exception],
) -> Adapter | None:
    """Return the adapter for parameters in this layout, or None if it cannot take two steps."""
    params, *grads = (example_tree(array, seed, ndim=ndim) for seed in range(1 + STEPS))
    try:
        instance = factory(layout.pack(_copies(params)))
    except TimeLimitError:
        raise
    except Exception as error:  # it takes parameters in a different layout
        errors.append(error)
        return None
    if is_torch(type(instance)) and layout is not TENSORS:
        return None
    for method in methods_of(instance):
        for pack_grads in (layout.pack_grads, _flat, *(() if layout is not TENSORS else (None,))):
            adapter = _adapter(factory, name, layout, method, pack_grads)
            adapter = adapter._replace(array=array, ndim=ndim)
            try:
                state = adapter.init(params)
                with np.errstate(all="ignore"):
                    for k, grad in enumerate(grads):
                        updates, state = adapter.step(state, params, grad)
                        changed = any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(updates))
                        if changed and k > 0:
                            break
            except TimeLimitError:
                raise
            except Exception as error:
                errors.append(error)
                continue
            shapes = [np.shape(leaf) for leaf in jax.tree.leaves(updates)]
            if changed and shapes == [leaf.shape for leaf in jax.tree.leaves(params)]:
                return adapter
    return None


def _adapter(
    factory: Callable[[Any], Any], name: str, layout: Layout, method: str, pack_grads: Callable[[PyTree], Any] | None
) -> Adapter:
    """Return the adapter of a method that takes the packed gradients, or a closure if `pack_grads` is None."""

    def init(params: PyTree) -> Any:
        container = layout.pack(_copies(params))
        instance = factory(container)
        return instance, container, _place(instance, layout, container, params)

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        instance, container, place = carry
        if place.path:
            instance = _write(instance, place, place.layout.pack(_copies(params)))
        else:
            _attach(layout, container, params, grads)
        if pack_grads is None:
            with no_gradients():
                getattr(instance, method)(closure(container, params, grads))
            result = None  # a step with a closure returns the loss
        else:
            result = _call(instance, method, container, layout, grads, pack_grads)
        if place.copies or (type(result) is type(instance) and not isinstance(result, (list, dict))):
            instance = result
        if place.path:
            new = place.layout.unpack(_read(instance, place.path), params)
        else:
            returned = result is not None and str(jax.tree.structure(result)) == str(jax.tree.structure(container))
            new = layout.unpack(result if returned else container, params)
        return difference(new, params), (instance, container, place)

    kind = "torch" if layout is TENSORS else "object"
    on = f" on {layout.name}" if layout.name else ""
    how = f"{method}(closure), whose loss is a small quadratic" if pack_grads is None else method
    return Adapter(name, kind, init, step, eager=True, called=f"{name}(params){on}, then .{how}")


def _call(
    instance: Any, method: str, container: Any, layout: Layout, grads: PyTree, pack_grads: Callable[[PyTree], Any]
) -> Any:
    """Call the method with the gradients and, if it takes parameters, with the container."""
    function = instance if inspect.isfunction(instance) else getattr(instance, method)
    packed, values, keywords = None, [], {}
    for argument in arguments_of(function) or ():
        if argument.role == "loss" or (layout.attach is not None and argument.name == "closure"):
            if argument.required:
                raise TypeError(f"{method} needs {argument.name}")
            continue
        packed = pack_grads(grads) if packed is None else packed
        value = container if argument.role == "params" else packed
        if argument.role == "pairs":
            value = list(zip(packed, container, strict=True))
        if argument.keyword:
            keywords[argument.name] = value
        elif argument.required or argument.role == "grads":
            values.append(value)
    if not values and not keywords and layout.attach is None:
        raise TypeError(f"{method} takes no gradients")
    with no_gradients():
        return function(*values, **keywords)


def _place(instance: Any, layout: Layout, container: Any, params: PyTree) -> Place:
    """Find the parameters of the object: in the container itself, or in an attribute with equal values."""
    if layout.attach is not None:
        return Place((), layout)
    copies = hasattr(instance, "apply_gradients") and hasattr(instance, "replace")  # flax's TrainState
    flat = _flat(params)
    for path, value in _attributes(instance, DEPTH):
        try:
            leaves, expected = jax.tree.leaves(value), jax.tree.leaves(layout.pack(params))
            same = str(jax.tree.structure(value)) == str(jax.tree.structure(container)) and all(
                np.array_equal(a, b) for a, b in zip(leaves, expected, strict=True)
            )
            if same:
                return Place(path, layout, copies)
            if isinstance(value, (np.ndarray, jax.Array)) and value.shape == flat.shape and np.array_equal(value, flat):
                return Place(path, _flat_layout())
        except Exception:  # the value is not a tree of arrays
            continue
    return Place((), layout)


def _attributes(instance: Any, depth: int, path: tuple[str, ...] = ()) -> Any:
    """Yield the paths and values of an object's attributes, recursively up to a depth."""
    names = list(getattr(instance, "__dict__", {})) or list(getattr(instance, "__dataclass_fields__", {}))
    names = names or list(getattr(instance, "_fields", ()))  # of a named tuple
    for name in names:
        value = getattr(instance, name, None)
        yield (*path, name), value
        if depth > 1 and hasattr(value, "__dict__") and not callable(value):
            yield from _attributes(value, depth - 1, (*path, name))


def _read(instance: Any, path: tuple[str, ...]) -> Any:
    return functools.reduce(getattr, path, instance)


def _write(instance: Any, place: Place, value: Any) -> Any:
    """Set the parameters, in a new object if the object is immutable, and return the object."""
    if place.copies:
        return instance.replace(**{place.path[0]: value})
    if len(place.path) == 1 and _is_frozen(instance):
        return dataclasses.replace(instance, **{place.path[0]: value})
    if len(place.path) == 1 and hasattr(instance, "_replace"):  # a named tuple
        return instance._replace(**{place.path[0]: value})
    setattr(_read(instance, place.path[:-1]), place.path[-1], value)
    return instance


def _is_frozen(instance: Any) -> bool:
    return bool(getattr(getattr(instance, "__dataclass_params__", None), "frozen", False))


def _attach(layout: Layout, container: Any, params: PyTree, grads: PyTree) -> None:
    """Write new parameters into a container, and gradients if it holds them."""
    if layout.attach is not None:
        layout.attach(container, params, grads)
        return
    for old, new in zip(jax.tree.leaves(container), jax.tree.leaves(layout.pack(params)), strict=True):
        np.copyto(old, np.asarray(new))


def _copies(params: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.copy(), params)


def _flat(tree: PyTree) -> Any:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _flat_layout() -> Layout:
    from nnjax.optcheck.calling.layouts import ARRAY

    return ARRAY


def factory_of(instance: Any) -> Callable[[Any], Any]:
    """Return a function that creates a PyTorch optimizer like this instance, with different parameters."""
    cls = type(instance)
    names = inspect.signature(cls).parameters
    return lambda params: cls(params, **{key: value for key, value in instance.defaults.items() if key in names})


def _refusal(factory: Any, name: str, errors: list[Exception]) -> NotAnOptimizerError:
    reason = f" ({type(errors[-1]).__name__}: {(str(errors[-1]).splitlines() or [''])[0]})" if errors else ""
    loss = any(word in str(error).lower() for error in errors for word in ("closure", "loss"))
    needs = f"{name} needs the loss function, but optcheck has only gradients" if loss else (
        f"found no way to call {signature_text(name_of(factory), arguments_of(factory))}"
    )  # fmt: skip
    return NotAnOptimizerError(
        f"optcheck: {needs}{reason}; adapt it:\n"
        "  def step(params, grads, state):  # params and grads are pytrees; state is None at the first step\n"
        f"      new_params = ...             # the update of {name} with these gradients\n"
        "      return new_params, state"
    )
