"""Measure a peer in a worker process.

The process writes a line when the peer is loaded, and then answers requests. Requests and answers are lines of JSON:

{"set up": form, "case": case, "variant": variant}    builds the program, calls it and checks the result
{"time": form, "calls": n}                            times n calls, after n warm-up calls if calls are short
{"forget": true}                                      frees all programs
"""

import ctypes
import gc
import json
import os
import sys
import time
import traceback
from contextlib import suppress
from typing import Any, NamedTuple, TextIO

from benchmarks.cases import load_case
from benchmarks.jobs.program import Program
from benchmarks.peers import load_peer

LONG_CALL = 0.2  # seconds; calls this long need no warm-up
VERY_LONG_CALL = 10.0  # seconds; if the first call takes this long, no second call is timed


class ProgramState(NamedTuple):
    """A program and its state between two requests."""

    program: Program
    state: Any
    call_seconds: float  # average duration of the latest calls
    threads: int | None = None  # number of PyTorch threads that the form has set


def serve_requests(peer: str) -> None:
    """Answer requests until stdin is closed."""
    answers = _separate_answers()
    with suppress(Exception):  # the request "set up" reports the error
        load_peer(peer)
    print(json.dumps({"loaded": peer}), file=answers, flush=True)
    programs: dict[str, ProgramState] = {}  # programs, keyed by form
    peak: dict[str, int] = {}  # peak memory before the latest program; empty at first, as reading it starts devices
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer: dict[str, Any] = {}
            if "forget" in request:
                programs.clear()
                _free_memory()
            elif "set up" in request:
                form = request["set up"]
                programs[form], answer = set_up_program(request["case"], peer, form, request["variant"])
                answer["memory"] |= {name: size for name, size in _device_memory().items() if size != peak.get(name)}
                peak = _device_memory()
            else:
                form = request["time"]
                _set_threads(programs[form].threads)
                programs[form], answer = time_calls(programs[form], request["calls"])
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "where": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


def set_up_program(case_name: str, peer: str, form: str, variant: str) -> tuple[ProgramState, dict[str, Any]]:
    """Build a program, call it, and return it with its error, compile times and memory."""
    begin = time.perf_counter()
    case = load_case(case_name)
    program: Program = getattr(load_peer(peer), case.KIND)(case.JOBS[variant], form)
    build_end = time.perf_counter()
    state = program.call(program.state)
    program.block(state)
    first = time.perf_counter() - build_end
    error = program.error(state)
    current = ProgramState(program._replace(state=None), state, first, _threads())
    if first < VERY_LONG_CALL:  # time a second call, because the first may have compiled
        current, _ = time_calls(current, 1)
    answer = {
        "units": program.units, "call": current.call_seconds,
        "check": float(error) if error <= 1e300 else 1e300,  # also replaces NaN
        "memory": program.memory,
        "stages": {**program.stages, "first": first, "all": build_end - begin + first},
        "figures": program.figures(current.state), "flops": program.flops, "bytes": program.bytes,
    }  # fmt: skip
    return current, answer


def time_calls(current: ProgramState, calls: int) -> tuple[ProgramState, dict[str, Any]]:
    """Measure the seconds per unit of work, averaged over `calls` calls after as many warm-up calls.

    There are no warm-up calls if the latest call took at least `LONG_CALL` seconds. Without warm-up, caches are
    cold and threads need about 50 ms to reach full speed: the first step of LeNet takes 7 ms, the next ones 4.7,
    3.7 and 3.4 ms, and from the eighth on, steps take 3.0 ms.
    """
    program, state, call_seconds, _ = current
    if call_seconds < LONG_CALL:
        for _ in range(calls):
            state = program.call(state)
        program.block(state)
    begin = time.perf_counter()
    for _ in range(calls):
        state = program.call(state)
    program.block(state)
    seconds = time.perf_counter() - begin
    answer = {"seconds": seconds / calls / program.units, "figures": program.figures(state)}
    return current._replace(state=state, call_seconds=seconds / calls), answer


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    return None if torch is None else torch.get_num_threads()


def _set_threads(threads: int | None) -> None:
    torch = sys.modules.get("torch")
    if torch is not None and threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def _device_memory() -> dict[str, int]:
    """Return the peak memory on an accelerator, for PyTorch since the last reading, for JAX since the process started.

    JAX's peak is due to the latest program only if it rose while that program was set up.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return {"device peak": peak}
    jax = None if torch is not None else sys.modules.get("jax")
    stats = jax.devices()[0].memory_stats() if jax is not None else None
    return {"device peak": stats["peak_bytes_in_use"]} if stats and "peak_bytes_in_use" in stats else {}


def _free_memory() -> None:
    """Free unused memory. Otherwise a dozen processes would keep the compilers' memory of all earlier variants."""
    if (jax := sys.modules.get("jax")) is not None:
        jax.clear_caches()
    gc.collect()
    with suppress(AttributeError, OSError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _separate_answers() -> TextIO:
    """Return a stream for the answers, and redirect stdout to stderr because libraries print to it."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


if __name__ == "__main__":
    serve_requests(*sys.argv[1:])
