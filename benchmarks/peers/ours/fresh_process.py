"""Time a fresh process that imports nnjax or trains with its command."""

from benchmarks.jobs.definitions import FreshProcess
from benchmarks.jobs.fresh_process import python_process
from benchmarks.jobs.program import Program

IMPORTS = "from nnjax import data, losses, nn, optim, train"


def fresh_process(job: FreshProcess, form: str) -> Program:
    """Import the modules of a typical training script, or run `nnjax train digits`, including its pictures."""
    if job.what == "import":
        return python_process("-c", IMPORTS)
    return python_process("-m", "nnjax.cli", "train", "digits", "--out", out=True)
