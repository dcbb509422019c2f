"""By what a machine and its software are known: figures of different machines are not compared."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.harness.rounds import VARIABLES

PACKAGES = (
    "jax", "jaxlib", "optax", "numpy", "scipy", "flax", "dm-haiku", "equinox", "torch", "scikit-learn",
)  # fmt: skip
FLAGS = (
    "XLA_", "JAX_", "OMP_", "MKL_", "OPENBLAS_", "CUDA_", "TORCH", "PYTORCH_", "MALLOC_", "LD_PRELOAD",
)  # fmt: skip
MACHINE = ("processor", "cores", "affinity", "devices", "driver")  # of which all must be the same to be compared
SETTINGS = ("python", "x64", "matmul_precision")


def fingerprint() -> dict[str, Any]:
    """The machine, its software, the variables that change either, and the state of the repository."""
    import jax

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "affinity": cores(),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "driver": _printed("nvidia-smi", "--query-gpu=driver_version,clocks.max.sm", "--format=csv,noheader"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(FLAGS)},
        "x64": bool(jax.config.values["jax_enable_x64"]),
        "matmul_precision": str(jax.config.values["jax_default_matmul_precision"]),
        "load": list(os.getloadavg()),
        "commit": _printed("git", "rev-parse", "HEAD"),
        "changed": bool(_printed("git", "status", "--porcelain", "--untracked-files=no")),
    }


def in_a_process() -> dict[str, Any]:
    """The fingerprint of a process that measures. This one never opens the devices that others measure."""
    code = "import json; from benchmarks.harness.fingerprint import fingerprint; print(json.dumps(fingerprint()))"
    here = Path(__file__).parents[2]
    env = {**os.environ, **VARIABLES}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """In what two machines differ; software and load may."""
    return [f"{name}: {one.get(name)} and {other.get(name)}" for name in MACHINE if one.get(name) != other.get(name)]


def changed_software(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Versions and variables that two runs had otherwise."""
    a, b = _software(one), _software(other)
    return [f"{name}: {a.get(name)} and {b.get(name)}" for name in sorted({*a, *b}) if a.get(name) != b.get(name)]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _software(one: dict[str, Any]) -> dict[str, Any]:
    return {name: one.get(name) for name in SETTINGS} | one.get("packages", {}) | one.get("variables", {})


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


def _printed(*command: str) -> str | None:
    """What a command prints; None where there is none, or it fails."""
    try:
        here = Path(__file__).parent
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=here, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
