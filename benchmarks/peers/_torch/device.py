"""Choose PyTorch's device and number of threads, and check what it supports on this machine."""

import shutil

import torch

from benchmarks.jobs.definitions import Training

ALL_THREADS = torch.get_num_threads()
FEW_OPERATIONS = 2e7  # with fewer operations per step, a second thread costs more time than it saves
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cudnn.allow_tf32 = False  # all peers multiply in float32


def useful_threads(job: Training, members: int = 1) -> int:
    """Return the number of threads: all of them for LeNet or a large step of `members` networks, else 1."""
    if job.images:
        return ALL_THREADS
    weights = sum(a * b for a, b in zip(job.widths[:-1], job.widths[1:], strict=True))
    return 1 if 6 * weights * (job.batch or job.rows) * members < FEW_OPERATIONS else ALL_THREADS


def synchronize() -> None:
    """Wait until the device has finished all operations."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def require_cuda_graphs() -> None:
    """Check that the device supports CUDA graphs.

    Raises:
      ValueError: on a CPU.
    """
    if DEVICE == "cpu":
        raise ValueError("CUDA graphs need a GPU")


def require_compiler() -> None:
    """Check that PyTorch can compile on this machine.

    Raises:
      ValueError: on a CPU without a C++ compiler.
    """
    if DEVICE == "cpu" and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise ValueError("torch.compile needs a C++ compiler")
