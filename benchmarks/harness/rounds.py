"""Peers measured in turns: A B C, B C A, C A B, …, each in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

PAUSE = 0.02  # seconds between turns: threads of the one before spin on for a while
ROOT = Path(__file__).parents[2]
OTHER_WORK = "computes something else"
VARIABLES = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the processes share a device
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # what is compiled is measured
    "JAX_DEFAULT_MATMUL_PRECISION": "float32",  # as PyTorch's; on GPUs JAX's own is tf32, other work than theirs
    # Memory that is freed is kept; else it is a process's luck whether the kernel makes it anew in each step, and one
    # of torch's at `tiny` takes 1.4 ms or 2.8
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


class Contender(NamedTuple):
    """A peer in one of its forms; the A/A pair is ours with another label."""

    label: str
    peer: str  # its file
    form: str


class Measured(NamedTuple):
    """What came of one contender at one variant."""

    contender: Contender
    about: dict[str, Any]  # the worker's answer to `set up`
    samples: tuple[float, ...]  # seconds of a unit of work, a round each
    problem: str | None  # why there are none


class Plan(NamedTuple):
    """How long to measure."""

    rounds: int
    seconds: float  # of each turn, at the least one call
    own: Mapping[str, int] = {}  # rounds of variants with a number of their own, by name
    together: int = 1  # set up at once; above 1 the times to compile are those of a busy machine


class Worker(NamedTuple):
    """A process and its two ends."""

    contender: Contender
    process: subprocess.Popen[str]
    complaints: Any  # the file that its stderr goes to

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Its answer; an error where the process ended."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # its end is seen when it is listened to
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self.listen()

    def listen(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.complaints.seek(0)
        return {"error": f"the process ended with {self.process.wait()}: {self.complaints.read()[-2000:]}"}


def measure(
    case: str, contenders: Mapping[str, Sequence[Contender]], plan: Plan, tell: Callable[[str], None]
) -> Iterator[tuple[str, list[Measured]]]:
    """Each variant with what every contender needed for it.

    Args:
      case: its name.
      contenders: of each of its variants.
      plan: how long.
      tell: is told what is going on.
    """
    with _workers(case, dict.fromkeys(who for each in contenders.values() for who in each)) as workers:
        for variant, chosen in contenders.items():
            for i, worker in enumerate(workers):
                if worker.process.poll() is not None:  # it died at the variant before
                    _end(worker)
                    workers[i] = _start(case, worker.contender)
                    workers[i].listen()
            these = [worker for worker in workers if worker.contender in chosen]
            yield variant, _variant(case, variant, these, plan, tell)


def _variant(case: str, variant: str, workers: list[Worker], plan: Plan, tell: Callable[[str], None]) -> list[Measured]:
    def set_up(worker: Worker) -> dict[str, Any]:
        tell(f"{case}, {variant}: {worker.contender.label}, {worker.contender.form}")
        answer = worker.ask({"set up": variant})
        if answer.get("check", 0) <= 1:
            return answer
        return {"check": answer["check"], "error": f"{OTHER_WORK}: {answer['check']:.2g} times what rounding may make"}

    with ThreadPoolExecutor(plan.together) as pool:
        about = dict(zip((worker.contender for worker in workers), pool.map(set_up, workers), strict=True))
    able = [worker for worker in workers if "error" not in about[worker.contender]]
    samples: dict[Contender, list[float]] = {worker.contender: [] for worker in able}
    rounds = plan.own.get(variant, plan.rounds)
    for i in range(rounds):
        tell(f"{case}, {variant}: round {i + 1} of {rounds}")
        first = i % max(len(able), 1)
        for worker in able[first:] + able[:first]:
            if "error" in about[worker.contender]:
                continue
            time.sleep(PAUSE)
            calls = max(1, round(plan.seconds / about[worker.contender]["call"]))
            answer = worker.ask({"calls": calls})
            if "error" in answer:
                about[worker.contender], samples[worker.contender] = answer, []
            else:
                samples[worker.contender].append(answer["seconds"])
                about[worker.contender]["figures"] = answer["figures"]
    return [
        Measured(who, about[who], tuple(samples.get(who, ())), about[who].get("error"))
        for who in (worker.contender for worker in workers)
    ]


@contextmanager
def _workers(case: str, contenders: Iterable[Contender]) -> Iterator[list[Worker]]:
    workers = [_start(case, contender) for contender in contenders]
    for worker in workers:  # all load at once, and nothing is measured meanwhile
        worker.listen()
    try:
        yield workers
    finally:
        for worker in workers:
            _end(worker)


def _end(worker: Worker) -> None:
    worker.process.kill()
    worker.process.communicate()
    worker.complaints.close()


def _start(case: str, contender: Contender) -> Worker:
    complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  as long as the worker
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.harness.worker", case, contender.peer, contender.form],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
        cwd=ROOT,
        env={**os.environ, **VARIABLES},
    )
    return Worker(contender, process, complaints)
