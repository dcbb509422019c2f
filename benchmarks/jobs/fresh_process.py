"""Time a Python process from its start until it exits."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.jobs.program import Program

ENOUGH_ACCURACY = 0.9  # a higher test accuracy shows that the network has learnt the digits


def python_process(*arguments: str, out: bool = False) -> Program:
    """Return a program that runs `python` with these arguments in each call.

    Args:
      arguments: command-line arguments for `python`.
      out: if True, append the path of a new run folder, and check the test accuracy in its result.json.
    """
    # The first call, which is not timed, caches the bytecode, as in an installed package.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["JAX_ENABLE_COMPILATION_CACHE"] = "false"

    def call(errors: Sequence[float]) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            run_folder = Path(folder, "run")
            command = [sys.executable, *arguments, *([str(run_folder)] if out else [])]
            process = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
            if process.returncode:
                what = f"python {' '.join(arguments)}"
                raise RuntimeError(f"{what} exited with {process.returncode}: {process.stderr[-2000:]}")
            return [*errors, _accuracy_error(run_folder) if out else 0.0]

    return Program(state=[], call=call, block=lambda _: None, error=max, units=1)


def _accuracy_error(run_folder: Path) -> float:
    """Return 0 if the network has learnt the digits, else infinity."""
    accuracy = json.loads((run_folder / "result.json").read_text(encoding="utf-8"))["test"]["accuracy"]
    return 0.0 if accuracy > ENOUGH_ACCURACY else np.inf
