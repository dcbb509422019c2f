"""Record the machine and the software of a run; results from different machines are not comparable."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.harness.environment import ROOT, VARIABLES, usable_cores

PACKAGES = (
    "jax", "jaxlib", "optax", "numpy", "scipy", "flax", "dm-haiku", "equinox", "torch", "scikit-learn",
)  # fmt: skip
FLAGS = (
    "XLA_", "JAX_", "OMP_", "MKL_", "OPENBLAS_", "CUDA_", "TORCH", "PYTORCH_", "MALLOC_", "LD_PRELOAD",
)  # fmt: skip
MACHINE = ("processor", "cores", "affinity", "devices", "driver")  # must be equal in two runs that are compared
SETTINGS = ("python", "x64", "matmul_precision")


def take_fingerprint() -> dict[str, Any]:
    """Describe the machine, the software, the relevant environment variables, and the state of the repository."""
    import jax

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "affinity": usable_cores(),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "driver": _output_of("nvidia-smi", "--query-gpu=driver_version,clocks.max.sm", "--format=csv,noheader"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(FLAGS)},
        "x64": bool(jax.config.values["jax_enable_x64"]),
        "matmul_precision": str(jax.config.values["jax_default_matmul_precision"]),
        "load": list(os.getloadavg()),
        "commit": _output_of("git", "rev-parse", "HEAD"),
        "changed": bool(_output_of("git", "status", "--porcelain", "--untracked-files=no")),
    }


def worker_fingerprint() -> dict[str, Any]:
    """Return the fingerprint, taken in a child process because this process must not open the devices."""
    code = "import json; from benchmarks.harness import fingerprint as f; print(json.dumps(f.take_fingerprint()))"
    env = {**os.environ, **VARIABLES}
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=env
    )
    return json.loads(process.stdout.splitlines()[-1])


def machine_differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Describe how the machines of two runs differ, ignoring load and all software except the driver."""
    return [f"{name}: {a.get(name)} and {b.get(name)}" for name in MACHINE if a.get(name) != b.get(name)]


def software_differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Describe the versions, settings and environment variables that differ."""
    x, y = _software(a), _software(b)
    return [f"{name}: {x.get(name)} and {y.get(name)}" for name in sorted({*x, *y}) if x.get(name) != y.get(name)]


def _software(fingerprint: dict[str, Any]) -> dict[str, Any]:
    settings = {name: fingerprint.get(name) for name in SETTINGS}
    return settings | fingerprint.get("packages", {}) | fingerprint.get("variables", {})


def _processor() -> str:
    names = [line for line in _text("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _first_line(path: str) -> str | None:
    return next(iter(_text(path).splitlines()), None)


def _output_of(*command: str) -> str | None:
    """Return the output of a command, or None if it fails or does not exist."""
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
