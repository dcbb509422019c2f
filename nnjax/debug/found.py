"""What a search for NaN found, in fields and in words."""

import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Loop(NamedTuple):
    """A loop around a primitive."""

    kind: str  # "block" of a repeat, "micro-batch" of a batch, or "iteration"
    at: int  # from 0; in a backward pass too it is the block's own
    length: int | None  # None where it ends by a condition
    depth: int  # how many of the scopes stand around it


class Found(NamedTuple):
    """The origin of a value that is not finite. All indices count from 0; `str` is for people."""

    kind: str  # "primitive", "argument", or "constant": an infinity or NaN written into the program
    scope: tuple[str, ...]  # names around it, as profiles have them: "3_dense(10)" is layer 3; "loss"; "update"
    phase: str  # "forward", "backward", "loss", "update", or "" outside all names
    primitive: str  # that made or first took the value; of an argument its path, as in batch.x
    loops: tuple[Loop, ...]  # outermost first
    rows: tuple[int, ...]  # of the batch, () where they cannot be told; of an argument those of its leading axis
    nan: int
    inf: int
    shape: tuple[int, ...]
    inputs: tuple[tuple[float, float], ...]  # smallest and largest value of each floating input, NaN left out

    @property
    def iteration(self) -> tuple[int, ...]:
        """The indices of the loops, outermost first."""
        return tuple(loop.at for loop in self.loops)

    def __str__(self) -> str:
        amount = ", ".join(f"{n} {name}" for n, name in ((self.nan, "nan"), (self.inf, "inf")) if n)
        size = f"{amount} in shape {self.shape}"
        rows = ", ".join(map(str, self.rows[:8])) + (f", … ({len(self.rows)} in all)" if len(self.rows) > 8 else "")
        if self.kind == "argument":
            return f"argument {self.primitive}" + (f", rows {rows}" if rows else "") + f": {size}"
        where = _describe(self.scope, self.loops)
        where += f" ({self.phase})" if self.phase in ("forward", "backward") else ""
        what = f"primitive {self.primitive}" if self.kind == "primitive" else f"a constant in {self.primitive}"
        where += f", {what}" + (f", rows {rows} of the batch" if rows else "") + f": {size}"
        ranges = ", ".join(f"[{low:.3g}, {high:.3g}]" for low, high in self.inputs)
        return where + (f", of inputs in {ranges}" if ranges and self.kind == "primitive" else "")


def _describe(scope: tuple[str, ...], loops: tuple[Loop, ...]) -> str:
    """layer 1 repeat(3, residual), block 2 of 3, residual, layer 0 dense(4)"""
    parts = []
    for depth in range(len(scope) + 1):
        parts += [
            f"{loop.kind} {loop.at}" + (f" of {loop.length}" if loop.length else "")
            for loop in loops
            if loop.depth == depth
        ]
        if depth < len(scope):
            name = re.sub(r"^(\d+)_", r"layer \1 ", scope[depth]).replace("|", "/")
            parts.append(f"the {name}" if name in ("loss", "update") else name)
    return ", ".join(parts) if scope else ", ".join([*parts, "outside all layers"])


def floating(array: Any) -> bool:
    """Whether an array holds floating numbers, not integers or random keys."""
    return bool(jnp.issubdtype(array.dtype, jnp.inexact))


def bad(array: Any) -> np.ndarray | None:
    """Where an array is not finite; None where it is finite everywhere, or holds no floating numbers."""
    if not floating(array):
        return None
    mask = ~np.isfinite(np.asarray(array))
    return np.asarray(mask) if mask.any() else None


def counts(array: Any) -> tuple[int, int, tuple[int, ...]]:
    """Number of NaN, number of infinities, shape."""
    if not floating(array):
        return 0, 0, tuple(array.shape)
    values = np.asarray(array)
    return int(np.isnan(values).sum()), int(np.isinf(values).sum()), tuple(array.shape)


def value_range(array: Any) -> tuple[float, float]:
    """The smallest and the largest value, NaN left out."""
    values = np.asarray(array)
    values = np.abs(values) if np.iscomplexobj(values) else values.astype(np.float64)
    values = values[~np.isnan(values)]
    return (float(values.min()), float(values.max())) if values.size else (float("nan"), float("nan"))
