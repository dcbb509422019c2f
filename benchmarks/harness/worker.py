"""A process of its own for one peer in one form at one case: it says when it has loaded the peer, then
reads requests, one JSON line each, and answers.

{"set up": variant}    makes the program, runs it once and checks what it computes
{"calls": n}           runs it n times more, after as many that are not counted
"""

import json
import os
import sys
import time
import traceback
from contextlib import suppress
from typing import Any, NamedTuple, TextIO

from benchmarks.cases import case
from benchmarks.jobs.definitions import Program
from benchmarks.peers import peer

LONG = 0.2  # seconds: a call that takes this long needs no other to warm up
VERY_LONG = 10.0  # seconds: a first call of which the second would be no other


class Running(NamedTuple):
    """A program under way."""

    program: Program
    state: Any
    call: float  # seconds, the last that was seen


def main(case_name: str, peer_name: str, form: str) -> None:
    """Answers until there are no more requests."""
    answers = _own_output()
    with suppress(Exception):  # what is wrong is said when it is needed
        peer(peer_name)
    print(json.dumps({"loaded": peer_name}), file=answers, flush=True)
    running: Running | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "set up" in request:
                running = None  # the memory of the one before is free before the next needs it
                running, answer = set_up(case_name, peer_name, form, request["set up"])
            else:
                assert running is not None
                running, answer = run(running, request["calls"])
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "where": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


def set_up(case_name: str, peer_name: str, form: str, variant: str) -> tuple[Running, dict[str, Any]]:
    """The program after its first calls, and what is known of it."""
    started = time.perf_counter()
    this = case(case_name)
    program: Program = getattr(peer(peer_name), this.KIND)(this.JOBS[variant], form)
    made = time.perf_counter()
    state = program.call(program.state)
    program.block(state)
    first = time.perf_counter() - made
    error = program.error(state)
    running = Running(program._replace(state=None), state, first)
    if first < VERY_LONG:  # the first call may have compiled
        running, _ = run(running, 1)
    answer = {
        "units": program.units, "call": running.call, "check": float(error) if error <= 1e300 else 1e300,  # NaN too
        "memory": program.memory | _device_memory(),
        "stages": {**program.stages, "first": first, "all": made - started + first},
        "figures": program.figures(running.state), "flops": program.flops, "bytes": program.bytes,
    }  # fmt: skip
    return running, answer


def run(running: Running, calls: int) -> tuple[Running, dict[str, Any]]:
    """Seconds of one unit of work, over so many calls.

    After a rest the caches are cold, and threads need some fifty milliseconds to wake up at once: a step of LeNet takes
    7 ms, then 4.7, 3.7, 3.4 and, from the eighth on, 3.0.
    """
    program, state, _ = running
    if running.call < LONG:
        for _ in range(calls):
            state = program.call(state)
        program.block(state)
    begun = time.perf_counter()
    for _ in range(calls):
        state = program.call(state)
    program.block(state)
    seconds = time.perf_counter() - begun
    answer = {"seconds": seconds / calls / program.units, "figures": program.figures(state)}
    return Running(program, state, seconds / calls), answer


def _device_memory() -> dict[str, int]:
    """The most that was in use on an accelerator, by the library that ran there: torch at this variant, JAX so far."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return {"device peak": peak}
    jax = None if torch is not None else sys.modules.get("jax")
    counted = jax.devices()[0].memory_stats() if jax is not None else None
    return {"device peak": counted["peak_bytes_in_use"]} if counted and "peak_bytes_in_use" in counted else {}


def _own_output() -> TextIO:
    """Where answers go; whatever libraries print goes to the other output."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


if __name__ == "__main__":
    main(*sys.argv[1:])
