"""Describe where a NaN or infinity first appeared."""

import re
from typing import NamedTuple


class Loop(NamedTuple):
    """One iteration of a loop around a primitive."""

    kind: str  # "block" (of `nn.repeat`), "micro-batch", or "iteration" (of any other loop)
    iteration: int  # index from 0; in the backward pass, blocks have the same index as in the forward pass
    length: int | None  # number of iterations, or None for a while loop
    depth: int  # number of scopes around the loop


class NonfiniteOrigin(NamedTuple):
    """The operation or argument in which a NaN or infinity first appeared. All indices start at 0."""

    kind: str  # "primitive", "argument", or "constant" (a NaN or infinity written into the program)
    primitive: str  # primitive that computed the value or uses the constant, or path of the argument such as "batch.x"
    scope: tuple[str, ...] = ()  # enclosing name scopes, such as "3_dense(10)" for layer 3, "loss" or "update"
    phase: str = ""  # "forward", "backward", "loss", "update", or "" outside all scopes
    loops: tuple[Loop, ...] = ()  # outermost first
    rows: tuple[int, ...] = ()  # rows of the batch, () if unknown; for an argument, indices along its first axis
    nan: int = 0  # number of NaN values
    inf: int = 0  # number of infinities
    shape: tuple[int, ...] = ()
    inputs: tuple[tuple[float, float], ...] = ()  # minimum and maximum of each floating-point input, without NaN

    @property
    def iteration(self) -> tuple[int, ...]:
        """Return the iteration of each loop, outermost first."""
        return tuple(loop.iteration for loop in self.loops)

    def __str__(self) -> str:
        amount = ", ".join(f"{n} {name}" for n, name in ((self.nan, "nan"), (self.inf, "inf")) if n)
        size = f"{amount} in shape {self.shape}"
        rows = ", ".join(map(str, self.rows[:8])) + (f", … ({len(self.rows)} in all)" if len(self.rows) > 8 else "")
        if self.kind == "argument":
            return f"argument {self.primitive}" + (f", rows {rows}" if rows else "") + f": {size}"
        place = _describe_place(self.scope, self.loops)
        phase = f" ({self.phase})" if self.phase in ("forward", "backward") else ""
        operation = f"primitive {self.primitive}" if self.kind == "primitive" else f"a constant in {self.primitive}"
        rows = f", rows {rows} of the batch" if rows else ""
        ranges = ", ".join(f"[{low:.3g}, {high:.3g}]" for low, high in self.inputs)
        inputs = f", inputs in {ranges}" if ranges and self.kind == "primitive" else ""
        return f"{place}{phase}, {operation}{rows}: {size}{inputs}"


def _describe_place(scope: tuple[str, ...], loops: tuple[Loop, ...]) -> str:
    """Describe a place, as in "layer 1 repeat(3, residual), block 2 of 3, residual, layer 0 dense(4)"."""
    parts = []
    for depth in range(len(scope) + 1):
        parts += [
            f"{loop.kind} {loop.iteration}" + (f" of {loop.length}" if loop.length else "")
            for loop in loops
            if loop.depth == depth
        ]
        if depth < len(scope):
            named = re.sub(r"^\d+_([^\W\d]\w*)=", r"layer \1 ", scope[depth])
            name = re.sub(r"^(\d+)_", r"layer \1 ", named).replace("|", "/")
            parts.append(f"the {name}" if name in ("loss", "update") else name)
    return ", ".join(parts) if scope else ", ".join([*parts, "outside all layers"])
