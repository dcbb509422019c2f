"""Time a fresh process that imports JAX and optax."""

from benchmarks.jobs.definitions import FreshProcess
from benchmarks.jobs.fresh_process import python_process
from benchmarks.jobs.program import Program


def fresh_process(job: FreshProcess, form: str) -> Program:
    """Import JAX and optax, on which nnjax is built.

    Raises:
      ValueError: if the job is not an import.
    """
    if job.what != "import":
        raise ValueError("plain JAX has no command to train with")
    return python_process("-c", "import jax, optax")
