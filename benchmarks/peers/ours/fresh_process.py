"""Fresh processes."""

from benchmarks.jobs.definitions import Program, Starting
from benchmarks.jobs.fresh_process import python

IMPORTS = "from nnjax import data, losses, nn, optim, train"


def start(job: Starting, form: str) -> Program:
    """All parts that a training script imports; or `nnjax train digits`, to its last picture."""
    if job.what == "import":
        return python("-c", IMPORTS)
    return python("-m", "nnjax.cli", "train", "digits", "--out", out=True)
