"""What happens before a JAX program runs, stage by stage."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Compiled(NamedTuple):
    """A program, and what it took to get it."""

    call: Callable[..., Any]
    stages: dict[str, float]  # seconds
    memory: dict[str, int]  # bytes


def compiled(jitted: Any, *args: Any) -> Compiled:
    """Traces, lowers and compiles a jitted function for these arguments, one after the other.

    Libraries' own `jit` have these stages too; one that has no `trace` traces while it lowers.
    """
    stages, clock = {}, time.perf_counter()
    done, given = jitted, args
    for stage in ("trace", "lower", "compile"):
        if not hasattr(done, stage):
            continue
        done, given = getattr(done, stage)(*given), ()
        now = time.perf_counter()
        stages[stage], clock = now - clock, now
    return Compiled(done, stages, _memory(done))


def _memory(program: Any) -> dict[str, int]:
    """Bytes of a compiled program, where the device tells."""
    found = getattr(program, "compiled", program).memory_analysis()  # libraries wrap it
    names = {
        "arguments": "argument_size_in_bytes", "outputs": "output_size_in_bytes", "temporaries": "temp_size_in_bytes",
        "aliased": "alias_size_in_bytes", "peak": "peak_memory_in_bytes",
    }  # fmt: skip
    return {name: int(size) for name, field in names.items() if (size := getattr(found, field, None)) is not None}
