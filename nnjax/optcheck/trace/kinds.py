"""Recognise what kind of optimizer an object is, by its attributes and argument names."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from nnjax.types import PyTree

KINDS = ("optax", "pair", "triple", "step", "object", "torch")
PARAMS_NAMES = ("params", "parameters", "param", "p", "theta", "w", "weights", "x")
GRADS_NAMES = ("grads", "gradients", "grad", "g", "gradient", "dparams", "updates", "dw")
RATE_NAMES = ("learning_rate", "lr", "step_size", "stepsize", "eta", "rate", "alpha")  # first argument of factories


class NotAnOptimizerError(TypeError):
    """The object is not an optimizer of a supported kind."""


class StructureError(NotAnOptimizerError):
    """The return value of a step does not have the expected structure."""

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(f"optcheck: a step returned {got}, expected {expected}")
        self.got, self.expected = got, expected


def kind_of(optimizer: Any) -> str:
    """Return the kind of an optimizer, one of `KINDS`.

    Raises:
      NotAnOptimizerError: if its kind is not supported.
    """
    name = name_of(optimizer)
    if is_torch(optimizer):
        return "torch"
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return "optax"
    if isinstance(optimizer, tuple) and all(callable(function) for function in optimizer):
        if len(optimizer) in (2, 3):
            return {2: "pair", 3: "triple"}[len(optimizer)]
        raise NotAnOptimizerError(f"optcheck: got {len(optimizer)} functions, expected (init, update) or a triple")
    if is_torch(type(optimizer)):
        raise NotAnOptimizerError(
            f"optcheck: this {name} holds its own parameters; pass the class with its arguments, "
            f"functools.partial(torch.optim.{name}, lr=1e-3)"
        )
    if isinstance(optimizer, type):
        raise NotAnOptimizerError(f"optcheck: {name} is a class; pass an instance, {name}(…), or pass hparams=")
    if any(callable(getattr(optimizer, method, None)) for method in ("step", "update")):
        return "object"
    if callable(optimizer):
        _check_step_function(optimizer, name)
        return "step"
    raise NotAnOptimizerError(
        f"optcheck: {type(optimizer).__name__} is not an optimizer; expected an optax.GradientTransformation, "
        "(init, update), (init, update, get_params), step(params, grads, state), an object with step(params, grads), "
        "or functools.partial(torch.optim.X, …)"
    )


def _check_step_function(function: Callable[..., Any], name: str) -> None:
    """Raise NotAnOptimizerError if a function is not `step(params, grads, state)`."""
    names = positional_names(function)
    if names is None:
        return
    signature = f"{name}({', '.join(names)})"
    has_grads = index_of(names, GRADS_NAMES) is not None
    if len(names) == 2 and has_grads and index_of(names, PARAMS_NAMES) is not None:
        raise NotAnOptimizerError(
            f"optcheck: {signature} has no state; add one, such as None: step(params, grads, state) -> (params, state)"
        )
    parameters = inspect.signature(function).parameters
    required = [name for name in names if parameters[name].default is inspect.Parameter.empty]
    if has_grads and len(required) > 3:
        raise NotAnOptimizerError(
            f"optcheck: {name}({', '.join(required)}) needs {len(required)} arguments; put moments and counters into "
            "one state, and bind numbers with functools.partial: step(params, grads, state)"
        )
    if not (len(names) >= 3 and has_grads) and not (len(names) == 3 and names[0].lower() not in RATE_NAMES):
        raise NotAnOptimizerError(
            f"optcheck: {signature} is not step(params, grads, state); if it makes an optimizer, call it, or pass "
            "hparams="
        )


def is_torch(optimizer: Any) -> bool:
    """Return True for an optimizer class of PyTorch, with or without bound arguments."""
    cls = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
    return isinstance(cls, type) and any(base.__module__.startswith("torch.optim") for base in cls.__mro__)


def method_of(optimizer: Any) -> Callable[[PyTree, PyTree], Any]:
    """Return an object's `step` or `update` method, as a function of parameters and gradients.

    Raises:
      NotAnOptimizerError: if the method does not take two arguments.
    """
    method = optimizer.step if callable(getattr(optimizer, "step", None)) else optimizer.update
    names = positional_names(method) or []
    if len(names) < 2:
        raise NotAnOptimizerError(
            f"optcheck: {name_of(optimizer)}.{method.__name__}({', '.join(names)}) does not take parameters and "
            "gradients; wrap it in an object with step(params, grads) that returns the new parameters"
        )
    return (lambda params, grads: method(grads, params)) if index_of(names, GRADS_NAMES) == 0 else method


def argument_order(function: Callable[..., Any]) -> list[str]:
    """Return the roles of a step function's arguments ("params", "grads" or "state"), inferred from their names."""
    names = (positional_names(function) or [])[:3]
    params, grads = index_of(names, PARAMS_NAMES), index_of(names, GRADS_NAMES)
    if params is None or grads is None:
        return ["params", "grads", "state"]
    roles = {params: "params", grads: "grads"}
    return [roles.get(i, "state") for i in range(3)]


def positional_names(function: Callable[..., Any]) -> list[str] | None:
    """Return the names of positional arguments, or None if the signature does not show them."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def index_of(names: list[str], known: tuple[str, ...]) -> int | None:
    """Return the index of the first name that is known, or None."""
    return next((i for i, name in enumerate(names) if name.lower() in known), None)


def name_of(optimizer: Any) -> str:
    """Return the name of a function or class for messages."""
    target = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
    name = getattr(target, "__qualname__", None) or type(target).__qualname__
    return str(name).removesuffix(".<locals>.update_fn").removesuffix(".<locals>.update").replace(".<locals>", "")


def describe(value: Any) -> str:
    """Return a short description of a value for messages."""
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value))}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return "None" if value is None else type(value).__name__
