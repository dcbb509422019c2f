"""Detect the kind of an optimizer from its type, attributes and argument names."""

import functools
import inspect
from typing import Any

from nnjax.optcheck.calling.names import Argument, arguments_of, signature_text

KINDS = ("optax", "pair", "triple", "step", "object", "torch", "holder", "loop")
METHODS = (
    *("step", "update", "apply_gradients", "apply_grads", "apply_grad", "update_params", "update_parameters"),
    *("get_update", "get_updates", "compute_update", "compute_step", "optimize", "apply", "apply_update"),
    *("apply_updates", "update_weights", "update_model", "optimizer_step", "gradient_step", "minimize_step"),
    *("perform_update", "calculate_update", "take_step", "make_step", "do_step", "train_step", "descend", "minimize"),
    "__call__",
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
    if takers := _methods_with_gradients(optimizer):
        raise NotAnOptimizerError(
            f"optcheck: {type(optimizer).__name__} has no method with a usual name; pass its method that takes a "
            f"step:\n  optimizer = {type(optimizer).__name__}(…)\n  optcheck.compare(optimizer.{takers[0]}, …)"
        )
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
    holds_both = isinstance(function, type) and set(roles) == {"params", "grads"}
    is_maker = name.endswith("<lambda>") and roles == [""] == [argument.role for argument in arguments]
    if roles in (["params"], ["layers"]) or holds_both or is_maker:  # is_maker: such as lambda q: torch.optim.Adam(q)
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


EXPECTED = {  # the optimizers of each kind, for messages
    "optax": "an optax.GradientTransformation, or an object with init and update",
    "pair": "2 functions, (init, update)",
    "triple": "3 functions, (init, update, get_params)",
    "step": "a function step(params, grads, state)",
    "object": "an object with a method such as step(params, grads)",
    "torch": "a class or an instance of torch.optim.Optimizer",
    "holder": "a class or a function that makes an optimizer from parameters",
    "loop": "a function loop(grad, x0, …) that runs all steps, or a generator function",
}


def check_kind(optimizer: Any, kind: str) -> None:
    """Raise NotAnOptimizerError if an optimizer cannot be of a kind, one of `KINDS`."""
    is_class = isinstance(optimizer, type)
    has_methods = hasattr(optimizer, "init") and hasattr(optimizer, "update") and not is_class
    is_tuple = isinstance(optimizer, tuple) and all(map(callable, optimizer))
    possible = {
        "optax": has_methods,
        "pair": is_tuple and len(optimizer) == 2,
        "triple": (is_tuple and len(optimizer) == 3) or (has_methods and hasattr(optimizer, "get_params")),
        "step": callable(optimizer) and not is_class,
        "object": not is_class and (inspect.ismethod(optimizer) or bool(methods_of(optimizer))),
        "torch": is_torch(optimizer) or is_torch(type(optimizer)),
        "holder": callable(optimizer),
        "loop": callable(optimizer) and not is_class,
    }
    if possible.get(kind, True):
        return
    got = describe(optimizer) if isinstance(optimizer, tuple) else f"{_article(optimizer)} {name_of(optimizer)}"
    raise NotAnOptimizerError(
        f"optcheck: kind={kind!r} needs {EXPECTED[kind]}, got {got}; omit the kind, so that it is detected"
    )


def _article(optimizer: Any) -> str:
    """Return the noun for an object in messages, such as "the class"."""
    if isinstance(optimizer, type):
        return "the class"
    return "the function" if inspect.isroutine(optimizer) else "an object of"


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


def _methods_with_gradients(optimizer: Any) -> list[str]:
    """Return the names of all methods that take gradients."""
    names = [name for name in dir(type(optimizer)) if not name.startswith("_")]
    methods = {name: getattr(optimizer, name, None) for name in names}
    callables = {name: method for name, method in methods.items() if callable(method)}
    return [
        name
        for name, method in callables.items()
        if {"grads", "pairs"} & {argument.role for argument in arguments_of(method) or ()}
    ]


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
