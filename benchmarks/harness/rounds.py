"""Measure the contenders in turn: A B C, B C A, C A B, …, each in its own process."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmarks.harness.worker_process import Contender, Worker, end_worker, start_worker

PAUSE = 0.02  # seconds between turns, because the threads of the last process spin for a while
WRONG_RESULT = "wrong result"


class Measurement(NamedTuple):
    """The measurement of one contender at one variant."""

    contender: Contender
    setup: dict[str, Any]  # the worker's answer to "set up"
    samples: tuple[float, ...]  # seconds for a unit of work, one for each round
    problem: str | None  # why there are no samples


class Plan(NamedTuple):
    """The number of rounds and the length of each turn."""

    rounds: int
    seconds: float  # length of a turn, which has at least one call
    variant_rounds: Mapping[str, int] = {}  # rounds of the variants that have their own number
    parallel_setups: int = 1  # above 1, compile times are measured on a busy machine


def measure_variants(
    case: str, contenders: Mapping[str, Sequence[Contender]], plan: Plan, show: Callable[[str], None]
) -> Iterator[tuple[str, list[Measurement]]]:
    """Measure all variants of a case.

    Args:
      case: the name of the case.
      contenders: the contenders of each variant.
      plan: how long to measure.
      show: called with a line of progress.

    Yields:
      Each variant with the measurement of every contender.
    """
    with _worker_pool(case, dict.fromkeys(itertools.chain(*contenders.values()))) as workers:
        for variant, variant_contenders in contenders.items():
            for i, worker in enumerate(workers):
                if worker.process.poll() is not None:  # it died at the last variant
                    end_worker(worker)
                    workers[i] = start_worker(case, worker.contender)
                    workers[i].read_answer()
            variant_workers = [worker for worker in workers if worker.contender in variant_contenders]
            yield variant, measure_in_turn(f"{case}, {variant}", variant, variant_workers, plan, show)


def measure_in_turn(
    title: str, variant: str, workers: list[Worker], plan: Plan, show: Callable[[str], None]
) -> list[Measurement]:
    """Set up all workers for a variant, then measure in rounds; contenders that fail drop out."""

    def set_up(worker: Worker) -> dict[str, Any]:
        show(f"{title}: {worker.contender.label}, {worker.contender.form}")
        answer = worker.ask({"set up": variant})
        if (error := answer.get("check", 0)) <= 1:
            return answer
        return {"check": error, "error": f"{WRONG_RESULT}: the error is {error:.2g} times what rounding may cause"}

    with ThreadPoolExecutor(plan.parallel_setups) as pool:
        setups = dict(zip((worker.contender for worker in workers), pool.map(set_up, workers), strict=True))
    able = [worker for worker in workers if "error" not in setups[worker.contender]]
    samples: dict[Contender, list[float]] = {worker.contender: [] for worker in able}
    rounds = plan.variant_rounds.get(variant, plan.rounds)
    for i in range(rounds):
        show(f"{title}: round {i + 1} of {rounds}")
        first = i % max(len(able), 1)
        for worker in able[first:] + able[:first]:
            if "error" in setups[worker.contender]:
                continue
            time.sleep(PAUSE)
            calls = max(1, round(plan.seconds / setups[worker.contender]["call"]))
            answer = worker.ask({"calls": calls})
            if "error" in answer:
                setups[worker.contender], samples[worker.contender] = answer, []
            else:
                samples[worker.contender].append(answer["seconds"])
                setups[worker.contender]["figures"] = answer["figures"]
    return [
        Measurement(contender, setups[contender], tuple(samples.get(contender, ())), setups[contender].get("error"))
        for contender in (worker.contender for worker in workers)
    ]


@contextmanager
def _worker_pool(case: str, contenders: Iterable[Contender]) -> Iterator[list[Worker]]:
    workers = [start_worker(case, contender) for contender in contenders]
    for worker in workers:  # all load at once; nothing is measured meanwhile
        worker.read_answer()
    try:
        yield workers
    finally:
        for worker in workers:
            end_worker(worker)
