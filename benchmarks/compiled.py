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
    """Traces, lowers and compiles a jitted function for these arguments, one after the other."""
    stages, clock = {}, time.perf_counter()
    done = jitted
    for stage, name, given in (("trace", "trace", args), ("lower", "lower", ()), ("compile", "compile", ())):
        done = getattr(done, name)(*given)
        now = time.perf_counter()
        stages[stage], clock = now - clock, now
    return Compiled(done, stages, _memory(done))


def _memory(program: Any) -> dict[str, int]:
    """Bytes of a compiled program, where the device tells."""
    found = program.memory_analysis()
    names = {
        "arguments": "argument_size_in_bytes", "outputs": "output_size_in_bytes", "temporaries": "temp_size_in_bytes",
        "aliased": "alias_size_in_bytes", "peak": "peak_memory_in_bytes",
    }  # fmt: skip
    return {name: int(size) for name, field in names.items() if (size := getattr(found, field, None)) is not None}
