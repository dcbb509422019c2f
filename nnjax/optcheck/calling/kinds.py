"""Detect the kind of an optimizer from its type, attributes and argument names."""

import functools
import inspect
from typing import Any

from nnjax.optcheck.calling.names import Argument, arguments_of, signature_text

KINDS = ("optax", "pair", "triple", "step", "object", "torch", "holder", "loop")
METHODS = (
    *("step", "update", "apply_gradients", "apply_grads", "apply_grad", "update_params", "update_parameters"),
    *("get_update", "get_updates", "compute_update", "compute_step", "optimize", "apply", "__call__"),
)


class NotAnOptimizerError(TypeError):
    """Raised if an object is not an optimizer of a supported kind, or cannot run on gradients alone."""


class OrderError(NotAnOptimizerError):
    """Raised if several orders of arguments are possible."""


class StructureError(NotAnOptimizerError):
    """Raised if the return value of a step does not have the expected structure."""

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(f"optcheck: a step returned {got}, expected {expected}")
        self.got, self.expected = got, expected


def kind_of(optimizer: Any) -> str:
    """Return the kind of an optimizer, one of `KINDS`, or "factory" for a function without required arguments.

    Raises:
      NotAnOptimizerError: if its kind is not supported.
    """
    name = name_of(optimizer)
    if inspect.isgenerator(optimizer):
        raise NotAnOptimizerError(
            f"optcheck: {optimizer.__name__} is a running generator, which cannot start again for each run; pass the "
            "generator function:\n"
            "  def optimizer(params):  # yields new parameters, and receives gradients\n"
            f"      yield from {optimizer.__name__}(params, …)"
        )
    if is_torch(optimizer) or is_torch(type(optimizer)):
        return "torch"
    if hasattr(optimizer, "init") and hasattr(optimizer, "update") and not isinstance(optimizer, type):
        if hasattr(optimizer, "get_params"):
            return "triple"
        roles = [argument.role for argument in arguments_of(optimizer.update) or ()]
        is_object = "count" in roles or hasattr(optimizer, "apply_gradients")  # as in MLX
        return "object" if is_object else "optax"
    if isinstance(optimizer, tuple) and optimizer and all(map(callable, optimizer)):
        if len(optimizer) in (2, 3):
            return {2: "pair", 3: "triple"}[len(optimizer)]
        raise NotAnOptimizerError(f"optcheck: got {len(optimizer)} functions, expected 2 or 3, such as (init, update)")
    if isinstance(optimizer, type) or callable(optimizer):
        return _kind_of_callable(optimizer, name)
    if methods_of(optimizer):
        return "object"
    raise NotAnOptimizerError(
        f"optcheck: {type(optimizer).__name__} is not an optimizer; expected an optax.GradientTransformation, "
        "(init, update), (init, update, get_params), step(params, grads, state), an object with step(params, grads), "
        "or a function that makes one from parameters, such as lambda params: torch.optim.Adam(params)"
    )


def _kind_of_callable(function: Any, name: str) -> str:
    if not isinstance(function, type) and (methods_of(function)[:-1] or is_instance(function)):
        return "object"
    arguments = arguments_of(function)
    if arguments is None:
        return "step"
    required = [argument for argument in arguments if argument.required]
    roles = [argument.role for argument in required]
    if not arguments or (isinstance(function, type) and not required):
        return "factory"
    if roles in (["params"], ["layers"]):
        return "loop" if inspect.isgeneratorfunction(function) else "holder"
    if inspect.isgeneratorfunction(function) and "number" not in roles:
        return "loop"
    if isinstance(function, type) and "number" in roles and set(roles) - {"number"} in ({"params"}, {"layers"}):
        raise missing_numbers_error(name, required)
    if isinstance(function, type):
        instance = f"lambda params: {name}(params, …)" if "params" in roles else f"{name}(…)"
        raise NotAnOptimizerError(
            f"optcheck: {signature_text(name, required)} is a class; pass an instance, {instance}, or pass hparams="
        )
    if len(arguments) == 1 or roles[0] == "number":
        raise NotAnOptimizerError(
            f"optcheck: {signature_text(name, arguments)} is not step(params, grads, state); if it makes an optimizer, "
            "call it, or pass hparams="
        )
    return "step"


def missing_numbers_error(name: str, required: list[Argument]) -> NotAnOptimizerError:
    """Return the error for a class or function that needs values for hyper-parameters, with code that binds them."""
    missing = [argument.name for argument in required if argument.role == "number"]
    return NotAnOptimizerError(
        f"optcheck: {signature_text(name, required)} needs values for {', '.join(missing)}; bind them, or pass "
        f"hparams=dict({missing[0]}=…):\n"
        f"  functools.partial({name}, {', '.join(f'{number}=…' for number in missing)})"
    )


def is_torch(optimizer: Any) -> bool:
    """Return True for a PyTorch optimizer class, with or without bound arguments."""
    cls = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
    return isinstance(cls, type) and any(base.__module__.startswith("torch.optim") for base in cls.__mro__)


def is_instance(function: Any) -> bool:
    """Return True for a bound method, or for a callable object that may keep state."""
    if inspect.ismethod(function):
        return True
    is_function = inspect.isroutine(function) or isinstance(function, functools.partial)
    return not (is_function or isinstance(function, type) or hasattr(function, "__wrapped__"))


def methods_of(optimizer: Any) -> list[str]:
    """Return the names of the methods that could take a step."""
    return [name for name in METHODS if callable(getattr(optimizer, name, None))]


def name_of(optimizer: Any) -> str:
    """Return the name of a function, class or instance for messages."""
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
