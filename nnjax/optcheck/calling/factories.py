"""Create optimizers from the arguments of `compare`: optimizers, factories with hyper-parameters, or names."""

import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from nnjax.optcheck.calling.adapter import Adapter, example_tree
from nnjax.optcheck.calling.adapters import adapt
from nnjax.optcheck.calling.kinds import NotAnOptimizerError, is_torch
from nnjax.optcheck.calling.names import SYNONYMS, arguments_of, rename
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.update_rule import Formula
from nnjax.optcheck.trace.gradient_script import GradientScript

FORMULA_NAMES = {"decay": "b2"}


def resolve(name: str) -> Any:
    """Return the object with a name such as "optax.adam", "nnjax.adam", "torch.optim.Adam" or a key of `LIBRARY_RULES`.

    Raises:
      NotAnOptimizerError: if no object has this name.
    """
    if name in LIBRARY_RULES and not name.startswith("optax."):
        return LIBRARY_RULES[name]
    module, _, attribute = name.rpartition(".")
    module = {"nnjax": "nnjax.optim"}.get(module, module)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        public = [member for member in dir(sys.modules.get(module)) if not member.startswith("_")]
        members = [f"{module}.{member}" for member in public]
        similar = difflib.get_close_matches(name, {*LIBRARY_RULES, *members}, 4)
        raise NotAnOptimizerError(
            f"optcheck: unknown reference {name!r}; use optax.NAME, nnjax.NAME, torch.optim.NAME, or a library's "
            f"formula such as keras.rmsprop; similar names: {', '.join(similar) or 'none'}"
        ) from error


def build(
    optimizer: Any,
    hparams: Mapping[str, Any] | None = None,
    kind: str | None = None,
    init: Callable[[Any], Any] | str | None = None,
    order: tuple[str, ...] | None = None,
) -> Adapter | Formula:
    """Return the adapter of an optimizer, or the formula of a named rule; look up names and call factories first.

    Args:
      optimizer: an optimizer, a factory, or a name; see `nnjax.optcheck.compare`.
      hparams: hyper-parameters with which a factory is called.
      kind: the kind of the optimizer; see `adapt`.
      init: function that returns the initial state of a step function; see `adapt`.
      order: the roles of its arguments; see `adapt`.

    Raises:
      NotAnOptimizerError: if it is not an optimizer, or if the factory does not accept a hyper-parameter.
      ValueError: if `kind` is unknown.
    """
    if isinstance(optimizer, (Adapter, Formula)):
        return optimizer
    if hparams is not None and not (isinstance(hparams, Mapping) and hparams):
        raise NotAnOptimizerError(f"optcheck: hparams must be a dict such as dict(learning_rate=0.5), got {hparams!r}")
    name = optimizer if isinstance(optimizer, str) else None
    optimizer = optimizer_of(optimizer, hparams)
    if isinstance(optimizer, Formula):
        return optimizer
    adapter = adapt(optimizer, kind, init, order)
    return adapter._replace(name=name) if name else adapter


def optimizer_of(optimizer: Any, hparams: Mapping[str, Any] | None = None) -> Any:
    """Look up a name and call a factory; see `build`."""
    name = optimizer if isinstance(optimizer, str) else None
    optimizer = resolve(name) if name else optimizer
    if isinstance(optimizer, Formula):
        return _with_hparams(optimizer, hparams or {})
    if hparams is not None:
        return _call(optimizer, hparams)
    return _call(optimizer, {"learning_rate": 1e-3}) if name and not name.startswith("torch.") else optimizer


def build_with_schedule(
    optimizer: Any,
    hparams: Mapping[str, Any],
    script: GradientScript,
    kind: str | None = None,
    init: Callable[[Any], Any] | str | None = None,
    order: tuple[str, ...] | None = None,
) -> Adapter | Formula | None:
    """Call a factory with the script's schedule and return the optimizer.

    Return None if `hparams` contains no learning rate, or if the factory does not accept a schedule.
    """
    rate, rates = hparams.get("learning_rate"), script.rates
    if rate is None:
        return None

    def schedule(count: Any) -> Any:
        return rate * jnp.take(jnp.asarray(rates), count, mode="clip")

    factory = resolve(optimizer) if isinstance(optimizer, str) else optimizer
    if isinstance(factory, Formula):
        return build(optimizer, hparams, kind, init, order)  # formulas take the schedule from the script
    if is_torch(factory):
        adapter = build(optimizer, hparams, kind, init, order)
        assert isinstance(adapter, Adapter)
        return _with_torch_schedule(adapter, float(rate) * rates)
    try:
        return build(optimizer, {**hparams, "learning_rate": schedule}, kind, init, order)
    except (TypeError, ValueError):
        return None


def _with_torch_schedule(adapter: Adapter, rates: np.ndarray) -> Adapter | None:
    """Return an adapter that sets the learning rate of all groups before each step, as PyTorch's schedulers do.

    Return None if the groups have no learning rate, or have it under an unusual name.
    """
    groups = adapter.init(example_tree(np.array, 0, ndim=adapter.ndim))[0].param_groups
    name = next((name for name in SYNONYMS[0] if name in groups[0]), None)
    if name is None:
        return None

    def step(carry: Any, params: Any, grads: Any) -> Any:
        state, k = carry
        for group in state[0].param_groups:
            group[name] = float(rates[k])
        updates, state = adapter.step(state, params, grads)
        return updates, (state, k + 1)

    return adapter._replace(init=lambda params: (adapter.init(params), 0), step=step)


def taken_hparams(candidate: Any, hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters for which a class or function has arguments."""
    function = candidate.func if isinstance(candidate, functools.partial) else candidate
    if not (inspect.isfunction(function) or inspect.isclass(function)):
        return {}
    names = _names_of(candidate)
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(candidate).parameters.values()):
        takes_rate = rename({"learning_rate": 0}, names).keys() <= set(names)
        return dict(hparams) if takes_rate else {}  # such as f(lr, **options)
    betas = {"b1", "b2"} if "betas" in names else set()
    return {name: value for name, value in hparams.items() if name in betas or _renamed(name, names) in names}


def with_hparams(reference: Any, hparams: Mapping[str, Any], rest: Mapping[str, Any]) -> Any:
    """Return a reference with some hyper-parameters bound, so that it needs only the others.

    Args:
      reference: an optimizer, a factory or a name; see `nnjax.optcheck.compare`.
      hparams: all hyper-parameters.
      rest: those to bind.
    """
    factory = resolve(reference) if isinstance(reference, str) else reference
    if isinstance(factory, Formula):
        return _with_hparams(factory, hparams)
    return functools.partial(factory, **_arguments(factory, rest))


def needs_rate(candidate: Any) -> bool:
    """Return True if the only required hyper-parameter of an optimizer or class is its learning rate."""
    required = [argument for argument in arguments_of(candidate) or () if argument.required]
    numbers = [argument.name for argument in required if argument.role == "number"]
    return len(numbers) == 1 and numbers[0] in SYNONYMS[0]


def _call(factory: Any, hparams: Mapping[str, Any]) -> Any:
    if not callable(factory):
        raise NotAnOptimizerError(
            f"optcheck: hparams= needs a function that makes an optimizer, got {type(factory).__name__}; omit hparams="
        )
    arguments = _arguments(factory, hparams)
    roles = {argument.role for argument in arguments_of(factory) or () if argument.required}
    makes_partial = is_torch(factory) or roles & {"grads", "pairs", "params", "layers"}
    try:
        if makes_partial:
            _check_names(factory, arguments)
            return functools.partial(factory, **arguments)
        first = [arguments.pop(name) for name in _positional_only(factory) if name in arguments]
        return factory(*first, **arguments)
    except TypeError as error:
        raise NotAnOptimizerError(
            f"optcheck: {getattr(factory, '__name__', factory)} cannot be called with {', '.join(arguments)}: {error}; "
            f"its arguments are {inspect.signature(factory)}"
        ) from error


def _check_names(factory: Any, arguments: Mapping[str, Any]) -> None:
    """Raise TypeError if a function or class does not take these arguments."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # it has no signature
        return
    signature.bind_partial(**arguments)


def _positional_only(factory: Any) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # it has no signature
        return []
    return [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]


def _arguments(factory: Any, hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyper-parameters under the names of a factory's arguments."""
    names = _names_of(factory)
    arguments = dict(hparams)
    if "betas" in names and {"b1", "b2"} & arguments.keys():
        arguments["betas"] = (arguments.pop("b1", 0.9), arguments.pop("b2", 0.999))
    return rename(arguments, names)


def _renamed(name: str, names: list[str]) -> str:
    return next(iter(rename({name: 0}, names)))


def _names_of(factory: Callable[..., Any]) -> list[str]:
    """Return the names of all arguments, or [] if there is no signature."""
    try:
        return list(inspect.signature(factory).parameters)
    except (TypeError, ValueError):
        return []


def _with_hparams(formula: Formula, hparams: Mapping[str, Any]) -> Formula:
    values = {FORMULA_NAMES.get(name, name): value for name, value in hparams.items()}
    if unknown := values.keys() - set(formula.hyper._fields):
        raise NotAnOptimizerError(
            f"optcheck: a reference by name has no hyper-parameter {', '.join(unknown)}; "
            f"pass only {', '.join(formula.hyper._fields)}"
        )
    return formula._replace(hyper=formula.hyper._replace(**values))
