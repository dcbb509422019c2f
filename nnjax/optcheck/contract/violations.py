"""A promise that is not kept, and what to do; and what of a tree is another than before."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from nnjax import checks
from nnjax.optcheck.trace.deadline import OverdueError
from nnjax.types import PyTree

REMEDIES = {
    "updates": "return a leaf for every leaf of the gradients, of its shape, and cast: u.astype(g.dtype)",
    "nothing to compare": "give optimizers that move",
    "state": "make all of it in init, as jnp.zeros((), jnp.int32); keep containers, static fields, shapes and dtypes",
    "traces": "keep counters and rates in arrays of the state, not in static fields of pytrees",
    "not deterministic": "take random numbers from a key in the state, and keep nothing outside of the state",
    "mutation": "return new containers and arrays, as jax.tree.map does, instead of changing those that were given",
    "frozen under jit": "what is kept outside of the state is read once, when jit traces: pass the state in and out",
    "tracer kept": "keep nothing in globals, closures or caches: compute it in the step, or put it into the state",
    "NaN spreads": "look for norms, means and maxima over elements, and bound them by leaf, or skip such steps",
    "empty leaves": "leave leaves with no elements out of means and norms",
    "jit": "what an update is must depend on what the step is given alone, and on it through jnp.* alone",
}
ERRORS: tuple[tuple[type[Exception], str], ...] = (
    (jax.errors.TracerBoolConversionError, "a Python if or while asks a traced value: use jnp.where or lax.cond"),
    (jax.errors.TracerArrayConversionError, "np.* is given a traced value: use jnp.*"),
    (
        jax.errors.TracerIntegerConversionError,
        "range() or an index is given a traced value: use lax.fori_loop or jnp.take",
    ),
    (jax.errors.ConcretizationTypeError, "float(), int(), math.* or a shape is given a traced value: use jnp.*"),
    (jax.errors.NonConcreteBooleanIndexError, "a mask is the index of a traced array: use jnp.where"),
)
RELATIVE = 1e-5  # of the largest update: what another order of the same operations may make of one
T = TypeVar("T")


class Breach(NamedTuple):
    """One promise that is not kept."""

    what: str  # which promise: a short name, always the same
    where: str  # the path of the leaf, or paths with commas between; "" for none
    got: str
    expected: str
    remedy: str
    severity: Literal["breach", "note"] = "breach"  # a note: right as it is, but not to be used everywhere

    def __str__(self) -> str:
        """One sentence."""
        where = f" ({self.where})" if self.where else ""
        return f"{self.what}{where}: got {self.got}, expected {self.expected}; {self.remedy}"


def broken(what: str, where: str, got: str, expected: str) -> Breach:
    """A breach with its remedy."""
    return Breach(what, where, got, expected, REMEDIES.get(what, REMEDIES["jit"]))


def failed(what: str, error: Exception) -> Breach:
    """An error where there should be none."""
    known = next((remedy for kind, remedy in ERRORS if isinstance(error, kind)), "run the step by hand to see where")
    return Breach(what, "", line(error), "no error", REMEDIES[what] if what == "tracer kept" else known)


def attempt(function: Callable[[], T]) -> T | Exception:
    """The result, or the error; a deadline is none."""
    try:
        return function()
    except OverdueError:
        raise
    except Exception as error:
        return error


def guarded(what: str, check: Callable[[], list[Breach]]) -> list[Breach]:
    """An error inside of a check is a breach."""
    found = attempt(check)
    return [failed(what, found)] if isinstance(found, Exception) else found


def line(error: Exception) -> str:
    """Its first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"


def types(tree: PyTree, weak: bool = True) -> dict[str, str]:
    """Of the leaves by path, and last of the tree itself. NumPy's float64 is none for jit, but among updates."""

    def of(leaf: Any) -> str:
        leaf = attempt(lambda: jax.typeof(leaf)) if weak else leaf
        if not hasattr(leaf, "dtype"):
            return type(leaf).__name__
        return f"{leaf.dtype}{list(leaf.shape)}" + (" weakly typed" if weak and leaf.weak_type else "")

    found = {checks.path_name(path): of(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    return found | {"": str(jax.tree.structure(tree))}


def content(tree: PyTree) -> dict[str, str]:
    """The bits of the leaves by path, and last the tree itself."""

    def of(leaf: Any) -> str:
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        return f"{array.dtype} {array.shape} {array.tobytes().hex()}"

    found = {checks.path_name(path): of(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    return found | {"": str(jax.tree.structure(tree))}


def changed_paths(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The paths at which two differ; "" where only the tree does."""
    changed = [path for path in dict.fromkeys([*before, *after]) if path and before.get(path) != after.get(path)]
    return changed or [""] * (before[""] != after[""])


def compared(mode: str, got: list[PyTree], expected: list[PyTree], steps: int) -> list[Breach]:
    """The first update that is not the eager one; later than the first step, something outside of the state is read."""
    theirs = [jax.tree.leaves(update) for update in expected]
    sizes = [np.abs(numbers(leaf)) for leaves in theirs for leaf in leaves]
    largest = max((float(np.max(size, initial=0, where=np.isfinite(size))) for size in sizes), default=0.0)
    limit = RELATIVE * largest + 8 * float(np.finfo(np.float32).eps)  # parameters are N(0, 1), and may cancel
    for k, (update, leaves) in enumerate(zip(got, theirs, strict=False)):
        for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(update), leaves, strict=True):
            a, b = np.atleast_1d(numbers(one), numbers(other))
            near = np.isclose(a, b, rtol=0, atol=limit, equal_nan=True)
            if not near.all():
                what = "frozen under jit" if k % steps else mode
                shown = f"{a[~near][0]:.6g} at step {k % steps + 1} under {mode}", f"{b[~near][0]:.6g} of eager steps"
                return [broken(what, checks.path_name(path), *shown)]
    return []


def numbers(leaf: Any) -> np.ndarray:
    """In float64."""
    return np.asarray(leaf, np.float64)
