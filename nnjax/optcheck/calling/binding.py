"""Bind the arguments of functions and methods by their names, then by trial calls."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from nnjax.optcheck.calling.adapter import Adapter
from nnjax.optcheck.calling.calls import Binding, Mode, Outcome, Target, adapter_of
from nnjax.optcheck.calling.hidden_state import hidden_state_error, keeps_state, lost_state_error, uses_id
from nnjax.optcheck.calling.kinds import NotAnOptimizerError, OrderError, missing_numbers_error
from nnjax.optcheck.calling.layouts import HOLDING, LAYOUTS, ONE_HOLDING, TREE, Layout
from nnjax.optcheck.calling.names import Argument, arguments_of, signature_text
from nnjax.optcheck.calling.starts import first_start
from nnjax.optcheck.calling.verdicts import depends_on_gradients, is_finite, trial_verdict

STRUCTURAL = (TypeError, AttributeError, KeyError, ValueError, IndexError, AssertionError, NotAnOptimizerError)
MODES = (Mode(False, 0), Mode(True, 0), Mode(False, 1), Mode(True, 2))


def bind(target: Target, init: Callable[..., Any] | str | None = None, order: tuple[str, ...] | None = None) -> Adapter:
    """Find out how to call a function or method, and return its adapter.

    Args:
      target: the function or method.
      init: function of the parameters that returns the initial state, or a tuple of initial values if there are several
        state arguments; "zeros" to try only zeros and counters; None to try usual initial states.
      order: the role of each argument, such as ("grads", "params", "state"); None to infer it.

    Raises:
      NotAnOptimizerError: if it cannot be called on gradients alone, if it keeps state outside its arguments, or if
        several orders of arguments are possible.
      Exception: the target's own exception, such as RuntimeError, if all attempts raise this type.
    """
    arguments = arguments_of(target.fresh())
    if arguments is None:
        arguments = [Argument(name, name, True, False) for name in ("params", "grads", "state")]
    _refuse_unbound(target.name, arguments)
    if not target.owns_state and keeps_state(target.fresh()):
        raise hidden_state_error(target.name)
    errors: list[Exception] = []
    fallback: Adapter | None = None
    for array in (np.array, jnp.array):
        for mode in MODES if array is np.array else MODES[:2]:
            for layout in _layouts(arguments, mode):
                attempts = _bindings(target, arguments, layout, init, order, array, mode, errors)
                good = [binding for binding, sure in attempts if sure]
                if len(good) > 1:
                    _ask_for_order(target.name, good)
                if good:
                    if target.owns_state and not good[0].outcome.keeps and uses_id(target.fresh()):
                        raise lost_state_error(target.name)
                    return adapter_of(target, good[0], array, mode)
                still = layout in ONE_HOLDING and not any(binding.outcome.moves for binding, _ in attempts)
                if attempts and fallback is None and not still:  # still: a part of an optimizer, without its statistics
                    fallback = adapter_of(target, attempts[0][0], array, mode)
    if fallback is not None:
        return fallback
    raise _refusal(target, arguments, errors)


def _layouts(arguments: list[Argument], mode: Mode) -> tuple[Layout, ...]:
    """Return the layouts to try. If no argument can be the gradients, the parameters must hold them."""
    if _spread(arguments):
        return (TREE,) if mode.per_leaf else ()
    separate, holding = ((TREE,), ONE_HOLDING) if mode.per_leaf else (LAYOUTS, HOLDING)
    roles = [argument.role for argument in arguments]
    could_be_grads = roles.count("grads") + 2 * roles.count("pairs") + roles.count("") + 2 * _has_objective(roles)
    if could_be_grads > ("params" not in roles):
        return separate if {"grads", "pairs"} & set(roles) else (*separate, *holding)
    return (*holding, *separate) if "grads" in roles else holding  # functions that return updates need no parameters


def _bindings(
    target: Target,
    arguments: list[Argument],
    layout: Layout,
    init: Callable[..., Any] | str | None,
    order: tuple[str, ...] | None,
    array: Callable[..., Any],
    mode: Mode,
    errors: list[Exception],
) -> list[tuple[Binding, bool]]:
    """Return the bindings that can take a step, each with True if its updates clearly depend on the gradients."""
    attempts: list[tuple[Binding, bool]] = []
    if mode.per_leaf and _spread(arguments):
        orders = [_spread_roles(arguments)]
    else:
        orders = [order] if order else list(_orders(arguments, attached=layout.attach is not None))
    for roles in orders:
        for first in (0, 1):
            blank = Binding(tuple(arguments), roles, layout, lambda params: (), "", first, Outcome(""))
            binding = first_start(target, blank, init, array, mode, errors)
            if binding is None:
                continue
            adapter = adapter_of(target, binding, array, mode, check=False)
            verdict = trial_verdict(adapter)
            if first == 0 and "count" in roles and verdict != "impossible" and not is_finite(adapter):
                continue  # 1 - β⁰ = 0, so the counter must start at 1
            if verdict != "impossible":
                attempts.append((binding, verdict == "sure"))
            break
        if attempts and attempts[0][1] and {"params", "grads"} <= {a.role for a in arguments}:
            break  # the names determine the order
    if sum(sure for _, sure in attempts) > 1:
        adapters = [(pair, adapter_of(target, pair[0], array, mode, check=False)) for pair in attempts if pair[1]]
        strong = [pair for pair, adapter in adapters if depends_on_gradients(adapter)]
        attempts = strong or attempts
    return attempts


def _refuse_unbound(name: str, arguments: list[Argument]) -> None:
    """Raise NotAnOptimizerError if a required argument is the loss, data or a hyper-parameter."""
    roles = [argument.role for argument in arguments]
    # without gradients and state, the function may run the whole training loop
    alone = _has_objective(roles) and not {"grads", "pairs", "state", ""} & set(roles)
    for argument in arguments:
        if argument.required and (argument.role == "loss" or (alone and argument.role in ("objective", "gradient"))):
            raise NotAnOptimizerError(
                f"optcheck: {signature_text(name, arguments)} needs the loss function or data ({argument.name}), but "
                "optcheck has only gradients; pass its update alone:\n"
                "  def step(params, grads, state):\n"
                "      new_params, state = ...  # the update with these gradients\n"
                "      return new_params, state"
            )
    if any(argument.role == "number" and argument.required for argument in arguments):
        raise missing_numbers_error(name, [argument for argument in arguments if argument.required])


def _has_objective(roles: list[str]) -> bool:
    """Return True if an argument is the objective or its gradient function, which can replace the gradients."""
    return "objective" in roles or "gradient" in roles


def _spread(arguments: list[Argument]) -> list[str]:
    """Return the names of parameters that are separate arguments, such as ["w", "b"] for (w, b, dw, db).

    Return [] if there are fewer than two.
    """
    names = [argument.name for argument in arguments]
    bases = [name for name in names if "d" + name in names or name + "_grad" in names]
    return bases if len(bases) > 1 else []


def _spread_roles(arguments: list[Argument]) -> tuple[str, ...]:
    bases = _spread(arguments)
    roles = []
    for argument in arguments:
        name, base = argument.name, argument.name.removeprefix("d").removesuffix("_grad")
        if name in bases:
            roles.append(f"params {bases.index(name)}")
        elif base in bases:
            roles.append(f"grads {bases.index(base)}")
        else:
            roles.append(argument.role or "state")
    return tuple(roles)


def _orders(arguments: list[Argument], *, attached: bool) -> Iterator[tuple[str, ...]]:
    """Yield possible roles of all arguments. Known names keep their role, and the others are permuted."""
    known = [argument.role for argument in arguments]
    roles = ["" if known.index(role) != i and role in ("params", "grads") else role for i, role in enumerate(known)]
    missing = [role for role in ("params", "grads") if role not in roles and "pairs" not in roles]
    missing = [role for role in missing if role != "grads" or not (attached or _has_objective(known))]
    if missing == ["params"] and "" not in roles and not attached:
        missing = []  # a function that returns updates may need no parameters
    free = [i for i, role in enumerate(roles) if not role]
    seen = set()
    positions = [*itertools.permutations(free, len(missing))]
    if not missing or len(free) >= len(missing):
        for chosen in positions:
            new = list(roles)
            for role, i in zip(missing, chosen, strict=True):
                new[i] = role
            filled = tuple(role or "state" for role in new)
            if filled not in seen:
                seen.add(filled)
                yield filled
    usual = tuple(role or "state" for role in roles)
    if "params" in usual and "grads" in usual:  # the names may be misleading
        swap = {"params": "grads", "grads": "params"}
        yield tuple(swap.get(role, role) for role in usual)


def _ask_for_order(name: str, bindings: list[Binding]) -> None:
    """Raise OrderError, because several orders of arguments are possible."""
    orders = [", ".join(role.partition(" ")[0] for role in binding.roles) for binding in bindings]
    raise OrderError(
        f"optcheck: {name} can be called as {' or as '.join(f'{name}({order})' for order in orders)}; choose one: "
        f"order=({', '.join(repr(role) for role in bindings[0].roles)})"
    )


def _refusal(target: Target, arguments: list[Argument], errors: list[Exception]) -> Exception:
    """Return the candidate's own exception, or an error with code that adapts the candidate."""
    name = target.name
    own = next((error for error in errors if not isinstance(error, STRUCTURAL)), None)
    if own is not None and len({type(error) for error in errors}) == 1:
        return own
    reason = f" ({type(errors[0]).__name__}: {(str(errors[0]).splitlines() or [''])[0]})" if errors else ""
    has_state = any(argument.role == "state" for argument in arguments)
    start = "; pass init=, a function from parameters to the first state, or adapt it" if has_state else "; adapt it"
    lines = (
        "  def step(params, grads, state):  # params and grads are pytrees; state is None at the first step\n"
        f"      new_params = ...             # call {name} here\n"
        "      return new_params, state"
    )
    if reads_grad(target.fresh()):
        start = "; adapt it to one parameter at a time"
        lines = (
            "  def step(p, state):  # p has .data and .grad; state is a dict for each p, empty at the first step\n"
            f"      state.update({name}(p, …, **state))  # if it returns statistics\n"
            "      p.data -= ...    # the update of p"
        )
    error = NotAnOptimizerError(
        f"optcheck: found no way to call {signature_text(name, arguments)} on gradients alone{reason}{start}:\n{lines}"
    )
    error.__cause__ = errors[0] if errors else None
    return error


def reads_grad(function: Callable[..., Any]) -> bool:
    """Return True if a function reads the attribute `grad` of its parameters, and has no argument for gradients."""
    function = function.func if isinstance(function, functools.partial) else function
    roles = [argument.role for argument in arguments_of(function) or ()]
    return "grad" in getattr(getattr(function, "__code__", None), "co_names", ()) and "grads" not in roles
