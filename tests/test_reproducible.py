"""A repeated run gets the very same programs. Each test starts a process in which JAX has not started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnjax import _reproducible
from nnjax.train.engine.fingerprint import machine_fingerprint

SCRIPT = """
import os, sys, jax, jax.numpy as jnp, nnjax
folder = nnjax.reproducible()
print(folder, os.environ["XLA_FLAGS"], sep="\\n")
sorts = lambda x: sum(jnp.sort(x * jnp.arange(10.0 + n)).sum() for n in range(20))  # compiles for more than 0.1 s
print(float(0 * jax.jit(sorts)(1.0) + 6))
"""


def run(script, tmp_path, **environment):
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "XDG_"))}
    ours |= {"HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"} | environment
    return subprocess.run([sys.executable, "-c", script], env=ours, capture_output=True, text=True, check=False)


def test_flags_are_set_and_programs_are_kept_for_the_user_alone(tmp_path):
    first = run(SCRIPT, tmp_path, XLA_FLAGS="--xla_cpu_multi_thread_eigen=false")
    assert first.returncode == 0, first.stderr
    folder, flags, value = first.stdout.splitlines()
    assert flags == "--xla_cpu_multi_thread_eigen=false --xla_gpu_deterministic_ops=true"
    assert value == "6.0"
    assert folder.startswith(str(tmp_path / ".cache" / "nnjax" / "compiled"))
    assert os.stat(folder).st_mode & 0o777 == 0o700
    kept = {name for name in os.listdir(folder) if name.endswith("-cache")}
    assert kept
    again = run(SCRIPT, tmp_path, XLA_FLAGS="--xla_cpu_multi_thread_eigen=false")
    assert again.stdout == first.stdout
    assert {name for name in os.listdir(folder) if name.endswith("-cache")} == kept  # nothing was compiled


def test_a_program_that_a_killed_process_left_truncated_is_replaced(tmp_path):
    first = run(SCRIPT, tmp_path)
    (entry,) = Path(first.stdout.splitlines()[0]).glob("jit__lambda*-cache")
    content = entry.read_bytes()
    entry.write_bytes(content[: len(content) // 2])
    again = run(SCRIPT, tmp_path)
    assert again.stdout == first.stdout
    assert "Error reading persistent compilation cache entry" not in again.stderr
    assert len(entry.read_bytes()) == pytest.approx(len(content), rel=0.01)  # with the seconds it took to compile


def test_the_user_chooses_the_folder(tmp_path):
    chosen = run(SCRIPT, tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"), XLA_FLAGS=_reproducible.FLAG)
    assert chosen.stdout.splitlines()[:2] == [str(tmp_path / "mine"), _reproducible.FLAG]


def test_a_folder_that_others_may_write_to_is_refused(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    refused = run(SCRIPT, tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "shared"))
    assert "who could plant code" in refused.stderr
    trained = run("from nnjax.cli import main; main()", tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "shared"))
    assert "Traceback" not in trained.stderr


@pytest.mark.parametrize(
    ("platform", "flags", "expected"),
    [
        ("cpu", "--xla_gpu_deterministic_ops=true --xla_dump_to=/x", "none"),
        ("gpu", "--xla_gpu_deterministic_ops=true", "--xla_gpu_deterministic_ops=true"),
        ("cpu", "--xla_b=2 --xla_a=1", "--xla_a=1 --xla_b=2"),
    ],
)
def test_only_flags_that_matter_are_part_of_the_fingerprint(monkeypatch, platform, flags, expected):
    monkeypatch.setenv("XLA_FLAGS", flags)
    settings = _reproducible.program_settings(platform)
    assert settings["XLA flags"] == expected
    assert ("compiled programs" in settings) == (platform != "cpu")
    assert "XLA flags" in machine_fingerprint()
