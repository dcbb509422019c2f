"""Optimizers from what a user gives: objects, factories with hyper-parameters, names."""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from nnjax.optcheck.rules.library_rules import NAMED, Named
from nnjax.optcheck.trace.adapters import Candidate, NotAnOptimizerError, adapt, is_torch
from nnjax.optcheck.trace.gradient_script import Script
from nnjax.optcheck.trace.layouts import fitted

TORCH = {"learning_rate": "lr", "b2": "alpha", "decay": "alpha"}  # names of PyTorch's; betas apart


def resolve(name: str) -> Any:
    """What a name stands for: "optax.adam", "nnjax.adam", "torch.optim.Adam", or a key of `NAMED`, "keras.rmsprop".

    Raises:
      NotAnOptimizerError: for a name that is none of these.
    """
    if name in NAMED and not name.startswith("optax."):
        return NAMED[name]
    module, _, last = name.rpartition(".")
    module = {"nnjax": "nnjax.optim"}.get(module, module)
    try:
        return getattr(importlib.import_module(module), last)
    except (ImportError, AttributeError, ValueError) as error:
        near = difflib.get_close_matches(name, NAMED, 4, 0.4)
        raise NotAnOptimizerError(
            f"optcheck: there is no reference {name!r}; give optax.NAME, nnjax.NAME, torch.optim.NAME, or how a "
            f"library defines it, as keras.rmsprop; near are {', '.join(near) or 'none'}"
        ) from error


def made(optimizer: Any, hparams: Mapping[str, Any] | None, kind: str | None, init: Any) -> Candidate | Named:
    """One optimizer: a factory is called with the hyper-parameters, a name looked up.

    Raises:
      NotAnOptimizerError: for what is no optimizer, and for a factory that does not take a hyper-parameter.
    """
    if isinstance(optimizer, (Candidate, Named)):
        return optimizer
    if hparams is not None and not (isinstance(hparams, Mapping) and hparams):
        raise NotAnOptimizerError(f"optcheck: hparams must be a dict as dict(learning_rate=0.5), got {hparams!r}")
    name = optimizer if isinstance(optimizer, str) else None
    optimizer = resolve(name) if name else optimizer
    if isinstance(optimizer, Named):
        return optimizer._replace(hyper=_hyper(optimizer, hparams or {}))
    if hparams is not None:
        optimizer = _called(optimizer, hparams)
    elif name and not name.startswith("torch."):
        optimizer = _called(optimizer, {"learning_rate": 1e-3})
    candidate = fitted(adapt(optimizer, kind, init), optimizer)
    return candidate._replace(name=name) if name else candidate


def scheduled(optimizer: Any, hparams: Mapping[str, Any], given: Script, kind: str | None, init: Any) -> Any:
    """The optimizer of a factory with the script's schedule; None where it takes none."""
    rate, rates = hparams.get("learning_rate"), given.rates
    if rate is None:
        return None

    def schedule(count: Any) -> Any:
        return rate * jnp.take(jnp.asarray(rates), count, mode="clip")

    resolved = resolve(optimizer) if isinstance(optimizer, str) else optimizer
    if isinstance(resolved, Named):
        return made(optimizer, hparams, kind, init)  # forms read the script's own rates
    if is_torch(resolved):
        found = made(optimizer, hparams, kind, init)
        assert isinstance(found, Candidate)
        return _with_groups(found, float(rate), rates)
    try:
        return made(optimizer, {**hparams, "learning_rate": schedule}, kind, init)
    except (TypeError, ValueError):
        return None


def _with_groups(candidate: Candidate, rate: float, rates: np.ndarray) -> Candidate:
    """PyTorch's schedules set the rate of the groups before each step."""

    def step(carry: Any, params: Any, grads: Any) -> Any:
        (optimizer, tensors), k = carry
        for group in optimizer.param_groups:
            group["lr"] = rate * float(rates[k])
        updates, inner = candidate.step((optimizer, tensors), params, grads)
        return updates, (inner, k + 1)

    return candidate._replace(init=lambda params: (candidate.init(params), 0), step=step)


def _called(factory: Any, hparams: Mapping[str, Any]) -> Any:
    if not callable(factory):
        raise NotAnOptimizerError(
            f"optcheck: hparams= are for functions that make optimizers, got {type(factory).__name__}; leave them out"
        )
    if is_torch(factory):
        return functools.partial(factory, **_torch_names(factory, hparams))
    try:
        return factory(**hparams)
    except TypeError as error:
        raise NotAnOptimizerError(
            f"optcheck: {getattr(factory, '__name__', factory)} cannot be called with {', '.join(hparams)}: {error}; "
            f"it takes {inspect.signature(factory)}"
        ) from error


def _torch_names(factory: Callable[..., Any], hparams: Mapping[str, Any]) -> dict[str, Any]:
    names = inspect.signature(factory).parameters
    given = dict(hparams)
    if "betas" in names and {"b1", "b2"} & given.keys():
        given["betas"] = (given.pop("b1", 0.9), given.pop("b2", 0.999))
    return {(TORCH[name] if name not in names and name in TORCH else name): value for name, value in given.items()}


def _hyper(named: Named, hparams: Mapping[str, Any]) -> Any:
    names = {"decay": "b2"}
    given = {names.get(name, name): value for name, value in hparams.items()}
    if unknown := given.keys() - set(named.hyper._fields):
        raise NotAnOptimizerError(
            f"optcheck: a named reference does not take {', '.join(unknown)}; it takes {', '.join(named.hyper._fields)}"
        )
    return named.hyper._replace(**given)
