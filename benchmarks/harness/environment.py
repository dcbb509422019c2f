"""The environment of every process that measures."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]  # root of the repository
VARIABLES = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the processes share a device
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # compilation is measured
    "JAX_DEFAULT_MATMUL_PRECISION": "float32",  # as in PyTorch; JAX's default on GPUs is tf32, which is less work
    # Keep freed memory in the process. Otherwise the kernel provides it again in each step, in some processes but not
    # in others: torch at `tiny` takes 1.4 ms in one process and 2.8 ms in the next.
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
