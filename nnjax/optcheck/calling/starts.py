"""Find initial values of the state arguments with which a function can take two steps."""

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax

from nnjax.optcheck.calling.calls import Binding, Mode, Target, try_binding
from nnjax.optcheck.calling.layouts import Layout
from nnjax.optcheck.calling.names import COUNT
from nnjax.optcheck.trace.deadline import TimeLimitError
from nnjax.types import PyTree

POWER = re.compile(r"b(eta)?_?[12](_?t|_?pow(er)?|_?prod(uct)?|\^t)", re.IGNORECASE)  # β₁ᵗ and β₂ᵗ, which start at 1
ZEROS = {  # z: zeros with the shapes of the parameters, 0: a counter
    **{"zeros": "z", "(zeros, zeros, 0)": "zz0", "(zeros, zeros)": "zz"},
    **{"(0, zeros, zeros)": "0zz", "(zeros, 0)": "z0", "0": "0"},
}


def first_start(
    target: Target,
    binding: Binding,
    init: Callable[..., Any] | str | None,
    array: Callable[..., Any],
    mode: Mode,
    errors: list[Exception],
) -> Binding | None:
    """Find the first initial state with which the function takes two steps, and return the binding or None.

    States with which all updates are zero, such as an empty list that a loop skips, are used only if there is no other.
    """
    still: Binding | None = None
    names = [argument.name for argument, role in zip(binding.arguments, binding.roles, strict=False) if role == "state"]
    for start, text in _starts(binding.layout, init, names):
        attempt = binding._replace(start=start, start_text=text)
        for _ in range(9):  # if the state is a dict, add missing keys, one per attempt
            try:
                outcome = try_binding(target, attempt, array, mode)
            except TimeLimitError:
                raise
            except KeyError as error:
                errors.append(error)
                if text != "an empty dict" or not error.args or not isinstance(error.args[0], str):
                    break
                attempt = attempt._replace(start=_with_key(attempt.start, error.args[0], binding.layout))
                continue
            except Exception as error:  # after any error, try the next start
                errors.append(error)
                break
            if outcome.moves:
                return attempt._replace(outcome=outcome)
            still = still or attempt._replace(outcome=outcome)
            break
    return still


def _starts(
    layout: Layout, init: Callable[..., Any] | str | None, names: list[str]
) -> Iterator[tuple[Callable[[PyTree], tuple[Any, ...]], str]]:
    """Yield functions from parameters to initial values of the state arguments, each with its description."""
    count = len(names)
    if count == 0:
        yield lambda params: (), ""
        return
    if callable(init):
        yield (lambda params: (init(layout.pack(params)),) if count == 1 else tuple(init(layout.pack(params)))), "init="
        return
    packers = [layout.pack] if layout.pack is layout.pack_grads or layout.attach else [layout.pack_grads, layout.pack]
    for pack in packers:
        zeros = functools.partial(_zeros, pack)
        if count > 1:
            powers = [POWER.fullmatch(name) is not None for name in names]
            text = "zeros" + (f", and {' and '.join(itertools.compress(names, powers))} as 1" if any(powers) else "")
            yield functools.partial(_repeat, zeros, powers), text
            continue
        if init != "zeros":
            yield (lambda params: (None,)), "None"
            yield (lambda params: ({},)), "an empty dict"
        for text, parts in ZEROS.items():
            yield functools.partial(_arrange, zeros, parts), text


def _zeros(pack: Callable[[PyTree], Any], params: PyTree) -> Any:
    return pack(jax.tree.map(lambda leaf: leaf * 0, params))


def _repeat(zeros: Callable[[PyTree], Any], powers: list[bool], params: PyTree) -> tuple[Any, ...]:
    """Return one value per state argument: 1 for powers of decay rates, zeros for all others."""
    return tuple(1.0 if is_power else zeros(params) for is_power in powers)


def _arrange(zeros: Callable[[PyTree], Any], parts: str, params: PyTree) -> tuple[Any, ...]:
    """Return one state that consists of zeros for each "z" and a counter for each "0"."""
    values = tuple(zeros(params) if part == "z" else 0 for part in parts)
    return (values if len(values) > 1 else values[0],)


def _with_key(
    start: Callable[[PyTree], tuple[Any, ...]], key: str, layout: Layout
) -> Callable[[PyTree], tuple[Any, ...]]:
    def new(params: PyTree) -> tuple[Any, ...]:
        zeros = 0 if key in COUNT else layout.pack(jax.tree.map(lambda leaf: leaf * 0, params))
        return ({**start(params)[0], key: zeros},)

    return new
