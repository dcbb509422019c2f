"""Describe violations of the contract, and how to fix them."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import jax

from nnjax.optcheck.trace.deadline import TimeLimitError

REMEDIES = {
    "updates": "return one array for each gradient, with the same shape and dtype: u.astype(g.dtype)",
    "nothing to compare": "pass optimizers whose updates are finite and not zero",
    "state": "create the whole state in init, with jnp.zeros((), jnp.int32) for counters, and keep its structure, "
    "static fields, shapes and dtypes",
    "recompilation": "store counters and rates in arrays of the state, not in static fields of pytrees",
    "not deterministic": "draw random numbers from a key in the state, and store nothing outside the state",
    "mutation": "return new containers and arrays, as jax.tree.map does, instead of changing the inputs",
    "frozen under jit": "jit reads values outside the state once, when it traces; put them into the state",
    "leaked tracer": "do not keep values in globals, closures or caches; compute them in the step, or use the state",
    "runs eagerly only": "to run the step under jit, pass the state as an argument and use jnp.*",
    "NaN spreads": "norms, means and maxima spread NaN; compute them leaf by leaf, or skip steps with NaN",
    "empty leaves": "exclude leaves without elements from means and norms",
    "float32 rounding": "compute scalars such as 1 - b2**t, and differences of large numbers, with Python's floats",
    "jit": "updates must depend only on the inputs of the step, and only through jnp functions",
}
ERROR_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (jax.errors.TracerBoolConversionError, "a Python if or while uses a traced value; use jnp.where or lax.cond"),
    (jax.errors.TracerArrayConversionError, "a NumPy function receives a traced value; use jnp.*"),
    (
        jax.errors.TracerIntegerConversionError,
        "range() or an index receives a traced value; use lax.fori_loop or jnp.take",
    ),
    (jax.errors.ConcretizationTypeError, "float(), int(), math.* or a shape receives a traced value; use jnp.*"),
    (jax.errors.NonConcreteBooleanIndexError, "a boolean mask indexes a traced array; use jnp.where"),
)
T = TypeVar("T")


class Violation(NamedTuple):
    """A violation of one rule of the contract."""

    rule: str  # name of the rule: a key of `REMEDIES`, "eager", a transform, or a special tree such as "None leaves"
    where: str  # path of the leaf, or several paths separated by commas; "" if it concerns no leaf
    got: str
    expected: str
    remedy: str
    severity: Literal["violation", "note"] = "violation"  # note: correct, but of limited use

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        return f"{self.rule}{where}: got {self.got}, expected {self.expected}; {self.remedy}"


def make_violation(rule: str, where: str, got: str, expected: str) -> Violation:
    """Return a violation with the remedy of its rule."""
    return Violation(rule, where, got, expected, REMEDIES.get(rule, REMEDIES["jit"]))


def error_violation(rule: str, error: Exception) -> Violation:
    """Turn an exception into a violation."""
    remedies = (remedy for kind, remedy in ERROR_REMEDIES if isinstance(error, kind))
    remedy = REMEDIES[rule] if rule == "leaked tracer" else next(remedies, "call the step to see the traceback")
    return Violation(rule, "", first_line(error), "no error", remedy)


def attempt(function: Callable[[], T]) -> T | Exception:
    """Return the result of a call, or the exception that it raises. TimeLimitError is raised again."""
    try:
        return function()
    except TimeLimitError:
        raise
    except Exception as error:
        return error


def run_check(rule: str, check: Callable[[], list[Violation]]) -> list[Violation]:
    """Return the violations that a check finds, or the exception that it raises as a violation."""
    result = attempt(check)
    return [error_violation(rule, result)] if isinstance(result, Exception) else result


def first_line(error: Exception) -> str:
    """Return the type and the first line of an exception."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
