"""Define the environment variables of all processes that run measurements."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]  # root folder of the repository
VARIABLES = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # because the processes share a device
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # because compilation is measured
    "JAX_DEFAULT_MATMUL_PRECISION": "float32",  # as in PyTorch; JAX's default on GPUs is the cheaper tf32
    # Keep freed memory in the process. Otherwise some processes, but not all, get it from the kernel again in each
    # step: PyTorch takes 1.4 ms for `tiny` in one process and 2.8 ms in the next.
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
