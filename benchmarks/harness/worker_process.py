"""Start the worker process of a peer and communicate with it."""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any, NamedTuple

from benchmarks.harness.environment import ROOT, VARIABLES


class Contender(NamedTuple):
    """A form of a peer. In the A/A test, one form of nnjax appears twice, with different labels."""

    label: str
    peer: str  # name of the peer's file
    form: str
    apart: bool = False  # True if the form needs a separate process

    @property
    def process(self) -> tuple[str, ...]:
        """Return the key of the contender's process, which is equal for forms that share a process."""
        return (self.label, self.form) if self.apart else (self.label,)


class Worker(NamedTuple):
    """A worker process and its stderr."""

    process: subprocess.Popen[str]
    stderr: Any  # a temporary file

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer, which contains "error" if the request failed or the process died."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # `read_answer` reports the error
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self.read_answer()

    def read_answer(self) -> dict[str, Any]:
        """Wait for the next answer and return it; it contains "error" if the request failed or the process died."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.stderr.seek(0)
        return {"error": f"the process exited with {self.process.wait()}: {self.stderr.read()[-2000:]}"}


def start_worker(peer: str) -> Worker:
    """Start the process of a peer. It writes its first line when the peer is loaded."""
    stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by end_worker
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.harness.worker", peer],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=ROOT,
        env={**os.environ, **VARIABLES},
    )
    return Worker(process, stderr)


def end_worker(worker: Worker) -> None:
    """Kill the process and close its pipes."""
    worker.process.kill()
    worker.process.communicate()
    worker.stderr.close()
