"""Measure the contenders in rounds, each peer in its own process, in rotating order: A B C, B C A, C A B, …"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmarks.harness.worker_process import Contender, Worker, end_worker, start_worker

PAUSE = 0.02  # seconds between turns, because threads of the previous process spin for a while
WRONG_RESULT = "wrong result"

Workers = dict[tuple[str, ...], Worker]  # workers, keyed by `Contender.process`


class Measurement(NamedTuple):
    """The measurement of one contender for one variant."""

    contender: Contender
    setup: dict[str, Any]  # the worker's answer to the request "set up", or the answer with "error"
    samples: tuple[float, ...]  # seconds per unit of work, one sample per round
    problem: str | None  # reason why there are no samples, or None


class Plan(NamedTuple):
    """The number of rounds and the length of each turn."""

    rounds: int
    seconds: float  # duration of a turn without warm-up; a turn has at least one call
    variant_rounds: Mapping[str, int] = {}  # number of rounds for variants that do not use the default, by name
    parallel_setups: int = 1  # number of processes to set up at once; above 1, this lengthens compile times


@contextmanager
def worker_pool() -> Iterator[Workers]:
    """Yield an empty dict for the processes of a run, and end these processes when the context exits."""
    workers: Workers = {}
    try:
        yield workers
    finally:
        keep_workers(workers, ())


def start_workers(workers: Workers, contenders: Sequence[Contender]) -> None:
    """Start processes for contenders that have none or whose process died."""
    started = {}
    for contender in contenders:
        key = contender.process
        if key in workers and workers[key].process.poll() is not None:
            end_worker(workers.pop(key))
        if key not in workers:
            workers[key] = started[key] = start_worker(contender.peer)
    for worker in started.values():  # the processes load in parallel, because nothing is measured yet
        worker.read_answer()


def keep_workers(workers: Workers, needed: Collection[tuple[str, ...]]) -> None:
    """End all processes whose keys are not in `needed`."""
    for key in [key for key in workers if key not in needed]:
        end_worker(workers.pop(key))


def measure_in_turn(
    case: str,
    variant: str,
    contenders: Sequence[Contender],
    workers: Mapping[tuple[str, ...], Worker],
    plan: Plan,
    show: Callable[[str], None],
) -> list[Measurement]:
    """Set up all contenders for a variant and measure them in rounds. Contenders that fail take no further part."""
    title = f"{case}, {variant}"

    def set_up(contender: Contender) -> dict[str, Any]:
        show(f"{title}: {contender.label}, {contender.form}")
        request = {"set up": contender.form, "case": case, "variant": variant}
        answer = workers[contender.process].ask(request)
        if (error := answer.get("check", 0)) <= 1:
            return answer
        return {"check": error, "error": f"{WRONG_RESULT}: the error is {error:.2g} times what rounding may cause"}

    def set_up_all(process: tuple[str, ...]) -> dict[Contender, dict[str, Any]]:
        return {contender: set_up(contender) for contender in contenders if contender.process == process}

    setups: dict[Contender, dict[str, Any]] = {}
    processes = list(dict.fromkeys(contender.process for contender in contenders))
    with ThreadPoolExecutor(plan.parallel_setups) as pool:
        for part in pool.map(set_up_all, processes):
            setups |= part
    able = [contender for contender in contenders if "error" not in setups[contender]]
    samples: dict[Contender, list[float]] = {contender: [] for contender in able}
    rounds = plan.variant_rounds.get(variant, plan.rounds)
    for i in range(rounds):
        show(f"{title}: round {i + 1} of {rounds}")
        first = i % max(len(able), 1)
        for contender in able[first:] + able[:first]:
            if "error" in setups[contender]:
                continue
            time.sleep(PAUSE)
            calls = max(1, round(plan.seconds / setups[contender]["call"]))
            answer = workers[contender.process].ask({"time": contender.form, "calls": calls})
            if "error" in answer:
                setups[contender], samples[contender] = answer, []
            else:
                samples[contender].append(answer["seconds"])
                setups[contender]["figures"] = answer["figures"]
    for process in processes:
        workers[process].ask({"forget": True})
    return [
        Measurement(contender, setups[contender], tuple(samples.get(contender, ())), setups[contender].get("error"))
        for contender in contenders
    ]
