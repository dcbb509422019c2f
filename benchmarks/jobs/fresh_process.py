"""Processes that are waited for."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.jobs.definitions import Program

RIGHT = 0.9  # test accuracy from which on the digits are learnt


def python(*arguments: str, out: bool = False) -> Program:
    """A call is a process, python with these arguments, from its start to its end.

    Args:
      arguments: of python.
      out: an empty folder follows them, in which the run leaves a result.json with a test accuracy.
    """

    # an installed package has its bytecode, and so has this one after the first call, which is not counted
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["JAX_ENABLE_COMPILATION_CACHE"] = "false"

    def call(errors: Sequence[float]) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            more = [str(Path(folder, "run"))] if out else []
            done = subprocess.run(
                [sys.executable, *arguments, *more],
                capture_output=True,
                text=True,
                check=False,
                env=env,
            )
            if done.returncode:
                raise RuntimeError(f"python {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
            return [*errors, _untrained(Path(more[0])) if out else 0.0]

    return Program(state=[], call=call, block=lambda _: None, error=max, units=1)


def _untrained(run: Path) -> float:
    """0 for a run that has learnt, infinite for others."""
    accuracy = json.loads((run / "result.json").read_text(encoding="utf-8"))["test"]["accuracy"]
    return 0.0 if accuracy > RIGHT else np.inf
