"""Strict modes for the whole suite: no silent promotion of dtypes or ranks, shape annotations checked."""

import atexit
import os
import shutil
import signal
import tempfile
import typing

# One cache of compiled programs for all workers and all processes that tests start
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # imported before TYPE_CHECKING is set, as are all that nnjax imports
import optax  # noqa: F401
import pandas  # noqa: F401
import pytest
from jaxtyping import install_import_hook
from shape_checker import check_shapes  # noqa: F401  (imported here, so that beartype sees TYPE_CHECKING unset)

# nnjax imports jaxtyping only for type checkers, so its users do not need it; the tests check the annotations.
typing.TYPE_CHECKING = True
CHECKED = ["types", "checks", "data", "losses", "metrics", "nn", "optim", "train", "uncertainty", "plot", "cli"]
# Without optcheck, whose search calls small NumPy functions millions of times
with install_import_hook([f"nnjax.{part}" for part in CHECKED], "shape_checker.check_shapes"):
    import nnjax

    for part in nnjax.__all__:
        getattr(nnjax, part)
typing.TYPE_CHECKING = False

jax.config.update("jax_numpy_rank_promotion", "raise")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
jax.config.update("jax_num_cpu_devices", 8)  # for meshes; a program on one of them has the same bits as on a single one


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def quick_compiler():
    """Compile without optimizations, for tests with many programs that do not compare bits."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def quick_compiler_everywhere():
    """Do the same for a whole module, its fixtures and the processes that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True, scope="module")
def cleared_caches():
    """Free the compiled programs of a module; those of all modules would fill several gigabytes."""
    yield
    jax.clear_caches()
