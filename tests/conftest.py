"""Strict modes for the whole suite: no silent promotion of dtypes or ranks, shape annotations checked."""

import atexit
import os
import shutil
import signal
import tempfile
import typing

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # one for all workers and all processes that tests start
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax  # imported before TYPE_CHECKING is set, as are all that nnjax imports
import optax  # noqa: F401
import pandas  # noqa: F401
import pytest
from jaxtyping import install_import_hook
from shape_checker import check_shapes  # noqa: F401  (imported here, so that beartype sees TYPE_CHECKING unset)

# nnjax imports jaxtyping for type checkers only, so that its users need not; here the annotations are to be real.
typing.TYPE_CHECKING = True
CHECKED = ["types", "checks", "data", "losses", "metrics", "nn", "optim", "train", "uncertainty", "plot", "cli"]
# not optcheck: it is NumPy alone, and its search calls small functions by the million
with install_import_hook([f"nnjax.{part}" for part in CHECKED], "shape_checker.check_shapes"):
    import nnjax

    for part in nnjax.__all__:
        getattr(nnjax, part)
typing.TYPE_CHECKING = False

jax.config.update("jax_numpy_rank_promotion", "raise")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started without Ctrl-C
jax.config.update("jax_num_cpu_devices", 8)  # for test_mesh.py; programs on one of them are as they were, to the bit


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def quick_compiler():
    """XLA need not make programs fast, where they are many and bits are not compared."""
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
    """Thousands of compiled programs would otherwise fill some gigabytes."""
    yield
    jax.clear_caches()
