"""What an optimizer is, whatever its shape: a start, and a step from gradients and parameters to updates."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nnjax import checks
from nnjax.types import PyTree

KINDS = ("optax", "pair", "triple", "step", "object", "torch")
PARAMS = ("params", "parameters", "param", "p", "theta", "w", "weights", "x")
GRADS = ("grads", "gradients", "grad", "g", "gradient", "dparams", "updates", "dw")
RATES = ("learning_rate", "lr", "step_size", "stepsize", "eta", "rate", "alpha")  # what a factory begins with


class NotAnOptimizerError(TypeError):
    """What was given is none of the kinds that are known."""


class StructureError(NotAnOptimizerError):
    """What an optimizer returned is not what it is to return."""

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(f"optcheck: a step returned {got}, expected {expected}")
        self.got, self.expected = got, expected


class Candidate(NamedTuple):
    """An optimizer in one form. `step` is pure for all kinds but "object" and "torch"."""

    name: str
    kind: str
    init: Callable[[PyTree], Any]  # parameters -> carry
    step: Callable[[Any, PyTree, PyTree], tuple[PyTree, Any]]  # (carry, parameters, gradients) -> (updates, carry)
    params_of: Callable[[Any], PyTree] | None = None  # where the carry holds the parameters, and is not given others
    by_difference: bool = False  # updates are new parameters less the old, with their rounding

    @property
    def pure(self) -> bool:
        """Whether it can be jitted and scanned."""
        return self.kind not in ("object", "torch")


def adapt(optimizer: Any, kind: str | None = None, init: Callable[[PyTree], Any] | None = None) -> Candidate:
    """An optimizer of any kind in one form.

    Args:
      optimizer: an `optax.GradientTransformation`; a pair `(init, update)`; a triple `(init, update, get_params)` as of
        jax.example_libraries; a function `step(params, grads, state) -> (params, state)`; an object with
        `step(params, grads)`, which returns parameters or changes them in place; or a `torch.optim.Optimizer` class
        with its arguments, as `functools.partial(torch.optim.Adam, lr=1e-3)`.
      kind: which of `KINDS`; None to find out.
      init: for a step function, its first state, `init(params)`; None for `step.init`, or the state None.

    Raises:
      NotAnOptimizerError: for anything else, with what was found.
    """
    if isinstance(optimizer, Candidate):
        return optimizer
    kind = kind or kind_of(optimizer)
    checks.one_of("optcheck", "kind", kind, KINDS)
    parts = {"pair": 2, "triple": 3}.get(kind)
    if parts and not (isinstance(optimizer, tuple) and len(optimizer) == parts):  # optax's is a tuple of two, too
        raise NotAnOptimizerError(f"optcheck: a {kind} is {parts} functions, got {_sketch(optimizer)}")
    make = {"optax": _optax, "pair": _optax, "triple": _triple, "object": _object, "torch": _torch}
    return _step(optimizer, init) if kind == "step" else make[kind](optimizer)


def kind_of(optimizer: Any) -> str:
    """The kind of an optimizer, by what it looks like.

    Raises:
      NotAnOptimizerError: where it looks like none.
    """
    if is_torch(optimizer):
        return "torch"
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return "optax"
    if isinstance(optimizer, tuple) and all(callable(part) for part in optimizer):
        if len(optimizer) in (2, 3):
            return {2: "pair", 3: "triple"}[len(optimizer)]
        raise NotAnOptimizerError(f"optcheck: {len(optimizer)} functions; expected (init, update) or a triple")
    if is_torch(type(optimizer)):
        raise NotAnOptimizerError(
            f"optcheck: this {_name(optimizer)} has its own parameters; give the class with its arguments, "
            f"functools.partial(torch.optim.{_name(optimizer)}, lr=1e-3)"
        )
    if isinstance(optimizer, type):
        raise NotAnOptimizerError(
            f"optcheck: {_name(optimizer)} is a class; give an object of it, {_name(optimizer)}(…), or hparams="
        )
    if any(callable(getattr(optimizer, method, None)) for method in ("step", "update")):
        return "object"
    if callable(optimizer):
        names = _positional(optimizer)
        grads = names is None or _find(names, GRADS) is not None
        stateless = names is not None and len(names) == 2 and _find(names, PARAMS) is not None and grads
        if stateless:
            raise NotAnOptimizerError(
                f"optcheck: {_name(optimizer)}({', '.join(names or [])}) has no state: give it one, "
                "step(params, grads, state) -> (params, state), as None"
            )
        if grads and len(required := _required(optimizer)) > 3:
            raise NotAnOptimizerError(
                f"optcheck: {_name(optimizer)}({', '.join(required)}) needs {len(required)} arguments; put moments and "
                "counters into one state, and bind numbers by functools.partial: step(params, grads, state)"
            )
        if names is None or (len(names) >= 3 and grads) or (len(names) == 3 and names[0].lower() not in RATES):
            return "step"
        raise NotAnOptimizerError(
            f"optcheck: {_name(optimizer)}({', '.join(names)}) is no step(params, grads, state); if it makes an "
            "optimizer, call it, or give hparams="
        )
    raise NotAnOptimizerError(
        f"optcheck: {type(optimizer).__name__} is no optimizer: expected an optax.GradientTransformation, "
        "(init, update), (init, update, get_params), step(params, grads, state), an object with step(params, grads), "
        "or functools.partial(torch.optim.X, …)"
    )


def _optax(optimizer: Any) -> Candidate:
    """Called with the parameters, and with a value where extra arguments are taken."""
    init, update = (optimizer.init, optimizer.update) if hasattr(optimizer, "init") else optimizer
    extra = isinstance(optimizer, optax.GradientTransformationExtraArgs)
    names = _positional(update)
    takes_params = names is None or len(names) >= 3

    def step(state: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        if extra:
            found = _with_value(update, grads, state, params)
        else:
            found = update(grads, state, params) if takes_params else update(grads, state)
        if not (isinstance(found, tuple) and len(found) == 2):
            raise StructureError(_sketch(found), "(updates, state)")
        return found

    kind = "optax" if hasattr(optimizer, "init") else "pair"
    return Candidate(_name(update), kind, init, step)


def _with_value(update: Any, grads: PyTree, state: Any, params: PyTree) -> Any:
    try:
        return update(grads, state, params, value=jnp.zeros(()))
    except TypeError as error:
        if "value_fn" not in str(error):
            raise
        raise NotAnOptimizerError(
            f"optcheck: {_name(update)} wants the loss itself (value_fn=), and only gradients are given; without a "
            "line search it runs, optax.lbfgs(linesearch=None)"
        ) from None


def _triple(triple: Any) -> Candidate:
    """Of jax.example_libraries: the state holds the parameters."""
    init, update, get_params = triple

    def start(params: PyTree) -> Any:
        return jnp.zeros((), jnp.int32), init(params)

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        count, state = carry
        before = get_params(state)
        state = update(count, grads, state)
        return _difference(get_params(state), before), (count + 1, state)

    return Candidate(_name(update), "triple", start, step, lambda carry: get_params(carry[1]), by_difference=True)


def _step(function: Any, init: Callable[[PyTree], Any] | None) -> Candidate:
    """A function of parameters, gradients and state, in the order that their names say."""
    names = _positional(function) or ["params", "grads", "state"]
    order = _order(names[:3])
    init = init or getattr(function, "init", None) or (lambda params: None)

    def step(state: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        given = {"params": params, "grads": grads, "state": state}
        found = function(*(given[role] for role in order))
        if not (isinstance(found, tuple) and len(found) == 2):
            raise StructureError(_sketch(found), "(params, state)")
        new, state = found
        return _difference(new, params), state

    return Candidate(_name(function), "step", init, step, by_difference=True)


def _object(optimizer: Any) -> Candidate:
    """An object that keeps its state to itself: a copy of it for every run."""
    method_of(optimizer)  # says what is wrong with it

    def start(params: PyTree) -> Any:
        try:
            copy.deepcopy(optimizer)
        except Exception as error:
            raise NotAnOptimizerError(
                f"optcheck: every run takes a copy of the {_name(optimizer)}, which cannot be copied ({error}); give a "
                "function that makes one, and hparams="
            ) from error
        return copy.deepcopy(optimizer), _returns_updates(copy.deepcopy(optimizer), params)

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        made, updates = carry
        before = jax.tree.map(np.array, params)
        given = jax.tree.map(_writable, params)
        found = method_of(made)(given, jax.tree.map(_writable, grads))
        return (found if updates else _difference(given if found is None else found, before)), carry

    return Candidate(_name(optimizer), "object", start, step, by_difference=True)


def method_of(optimizer: Any) -> Callable[[PyTree, PyTree], Any]:
    """An object's `step` or `update`, parameters first.

    Raises:
      NotAnOptimizerError: where it does not take two arguments.
    """
    method = optimizer.step if callable(getattr(optimizer, "step", None)) else optimizer.update
    names = _positional(method) or []
    if len(names) < 2:
        raise NotAnOptimizerError(
            f"optcheck: {_name(optimizer)}.{method.__name__}({', '.join(names)}) takes no parameters and gradients; "
            "wrap it in an object with step(params, grads) that returns the new parameters"
        )
    return (lambda params, grads: method(grads, params)) if _find(names, GRADS) == 0 else method


def _returns_updates(optimizer: Any, params: PyTree) -> bool:
    """Whether it returns updates, not parameters: without gradients, what it returns is small then."""
    found = method_of(optimizer)(jax.tree.map(_writable, params), jax.tree.map(np.zeros_like, params))
    if found is None:
        return False
    with np.errstate(all="ignore"):
        small, moved = (
            sum(float(np.nansum(np.abs(np.asarray(leaf, np.float64)))) for leaf in jax.tree.leaves(tree))
            for tree in (found, _difference(found, params))
        )
    return small < moved


def _torch(optimizer: Any) -> Candidate:
    """A class of PyTorch's with its arguments: parameters are set before each step, and read after it."""
    import torch

    def start(params: PyTree) -> Any:
        tensors = [torch.nn.Parameter(torch.tensor(np.asarray(leaf))) for leaf in jax.tree.leaves(params)]
        made = optimizer(tensors)
        return made, tensors

    def step(carry: Any, params: PyTree, grads: PyTree) -> tuple[PyTree, Any]:
        made, tensors = carry
        leaves, treedef = jax.tree.flatten(params)
        for tensor, leaf, grad in zip(tensors, leaves, jax.tree.leaves(grads), strict=True):
            tensor.data.copy_(torch.tensor(np.asarray(leaf)))
            tensor.grad = torch.tensor(np.asarray(grad))
        try:
            made.step()
        except TypeError as error:
            raise NotAnOptimizerError(
                f"optcheck: {type(made).__name__}.step() cannot run on gradients alone: {error}"
            ) from None
        new = [tensor.detach().numpy().copy() for tensor in tensors]
        return _difference(jax.tree.unflatten(treedef, new), params), carry

    return Candidate(_name(optimizer), "torch", start, step, by_difference=True)


def _difference(new: PyTree, old: PyTree) -> PyTree:
    if str(jax.tree.structure(new)) != str(jax.tree.structure(old)):
        raise StructureError(_sketch(new), "new parameters in the structure of the old ones")
    return jax.tree.map(lambda a, b: a - b, new, old)


def _writable(leaf: Any) -> Any:
    """NumPy's arrays are handed over as copies, which may be changed in place; JAX's as they are."""
    return np.array(leaf) if isinstance(leaf, np.ndarray) else leaf


def is_torch(optimizer: Any) -> bool:
    """Whether it is a class of PyTorch's optimizers, with its arguments or without."""
    made = optimizer.func if isinstance(optimizer, functools.partial) else optimizer
    if not isinstance(made, type):
        return False
    return any(base.__module__.startswith("torch.optim") for base in made.__mro__)


def _positional(function: Any) -> list[str] | None:
    """The names of positional arguments; None where they cannot be seen."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _required(function: Any) -> list[str]:
    """The names of positional arguments that must be given."""
    names = set(_positional(function) or [])
    parameters = inspect.signature(function).parameters.values() if names else ()
    return [p.name for p in parameters if p.name in names and p.default is p.empty]


def _find(names: list[str], known: tuple[str, ...]) -> int | None:
    return next((i for i, name in enumerate(names) if name.lower() in known), None)


def _order(names: list[str]) -> list[str]:
    """Which of params, grads and state each of three arguments is."""
    params, grads = _find(names, PARAMS), _find(names, GRADS)
    if params is None or grads is None or params == grads:
        return ["params", "grads", "state"]
    roles = {params: "params", grads: "grads"}
    return [roles.get(i, "state") for i in range(3)]


def _name(thing: Any) -> str:
    thing = thing.func if isinstance(thing, functools.partial) else thing
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    return str(name).removesuffix(".<locals>.update_fn").removesuffix(".<locals>.update").replace(".<locals>", "")


def _sketch(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value))}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return "None" if value is None else type(value).__name__
