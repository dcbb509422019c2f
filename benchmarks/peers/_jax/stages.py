"""Compile a JAX program and time each stage."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Compiled(NamedTuple):
    """A compiled program, with the time of each compilation stage and its memory requirements."""

    call: Callable[..., Any]
    stages: dict[str, float]  # seconds per stage
    memory: dict[str, int]  # bytes


def compile_in_stages(jitted: Any, *args: Any) -> Compiled:
    """Trace, lower and compile a jitted function for these arguments, and time each stage.

    Functions jitted by other libraries have these stages, too. If they have no `trace`, they trace while lowering.
    """
    stages, clock = {}, time.perf_counter()
    program, stage_args = jitted, args
    for stage in ("trace", "lower", "compile"):
        if not hasattr(program, stage):
            continue
        program, stage_args = getattr(program, stage)(*stage_args), ()
        now = time.perf_counter()
        stages[stage], clock = now - clock, now
    return Compiled(program, stages, _memory(program))


def _memory(program: Any) -> dict[str, int]:
    """Return the memory needs of a compiled program in bytes, if the backend reports them."""
    analysis = getattr(program, "compiled", program).memory_analysis()  # some libraries wrap the compiled program
    names = {
        "arguments": "argument_size_in_bytes", "outputs": "output_size_in_bytes", "temporaries": "temp_size_in_bytes",
        "aliased": "alias_size_in_bytes", "peak": "peak_memory_in_bytes",
    }  # fmt: skip
    return {name: int(size) for name, field in names.items() if (size := getattr(analysis, field, None)) is not None}
