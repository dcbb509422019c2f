"""Strict modes for the whole suite: no silent promotion of dtypes or ranks, shape annotations checked."""

import atexit
import contextlib
import functools
import gc
import os
import shutil
import signal
import tempfile
import typing
from importlib.util import find_spec
from pathlib import Path

# One cache of compiled programs for all workers and all processes that tests start
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the workers share a GPU, if there is one

import jax  # imported before TYPE_CHECKING is set, as are all that nnjax imports
import optax  # noqa: F401
import pandas  # noqa: F401
import pytest
from jax._src import compiler
from jax._src.interpreters import mlir
from jaxtyping import install_import_hook
from shape_checker import check_shapes  # noqa: F401  (imported here, so that beartype sees TYPE_CHECKING unset)

# nnjax imports jaxtyping only for type checkers, so its users do not need it; the tests check the annotations, in the
# modules that have any. The checker wraps every function of a module, which took a tenth of the time for all modules.
(SOURCES,) = map(Path, find_spec("nnjax").submodule_search_locations)
CHECKED = [
    ".".join(file.relative_to(SOURCES.parent).with_suffix("").parts)
    for file in SOURCES.rglob("*.py")
    if "jaxtyping" in file.read_text(encoding="utf-8")
]
typing.TYPE_CHECKING = True
with install_import_hook(CHECKED, "shape_checker.check_shapes"):
    import nnjax

    for part in nnjax.__all__:
        getattr(nnjax, part)
typing.TYPE_CHECKING = False
gc.freeze()  # tracing makes many objects; looking for cycles took a tenth of the time
gc.set_threshold(100_000, 20, 20)

jax.config.update("jax_numpy_rank_promotion", "raise")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
jax.config.update("jax_num_cpu_devices", 8)  # for meshes; a program on one of them has the same bits as on a single one


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


if jax.default_backend() != "cpu":  # whose products of float32 numbers have fewer digits by default
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "float32"  # for processes that tests start
    jax.config.update("jax_default_matmul_precision", "float32")


def has_option(name):
    """Return whether this version of XLA has a compile option."""
    try:
        jax.jit(lambda: 0, compiler_options={name: False}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


default_options, default_flags = compiler.get_compile_options, os.environ.get("XLA_FLAGS", "")
# Emitters that jax_disable_most_optimizations leaves on; a third of the time of compiling small programs is theirs
FEWER_EMITTERS = {name: False for name in ("xla_cpu_use_fusion_emitters", "xla_cpu_use_xnnpack") if has_option(name)}
MOST_PROGRAMS = 2000  # in memory; those of the whole suite would fill several gigabytes
quickly = jax.make_user_context(False)  # part of the key of JAX's caches, so that each program is compiled as asked
programs = []


def options(*arguments, env_options_overrides=None, **settings):
    programs.append(1)
    overrides = (FEWER_EMITTERS if quickly.value else {}) | (env_options_overrides or {})
    return default_options(*arguments, env_options_overrides=overrides, **settings)


compiler.get_compile_options = options
# One for many programs: making it takes a quarter of the time that a program of one operation takes to compile
mlir.make_ir_context = functools.cache(mlir.make_ir_context)


@contextlib.contextmanager
def compilation(quick):
    """Compile without optimizations or with all of them, in this process and in those that it starts."""
    before = quickly.value
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(quick)))
        patch.setenv("XLA_FLAGS", " ".join([default_flags, *(f"--{name}=false" for name in FEWER_EMITTERS if quick)]))
        jax.config.update("jax_disable_most_optimizations", quick)
        quickly._obj.set_global(quick)
        yield
        quickly._obj.set_global(before)
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True, scope="module")
def compilation_of_the_module(request):
    """Compile quickly, except in modules marked `optimized`.

    Those compare the bits of different programs, or count operations, bytes or seconds.
    """
    with compilation(quick=not request.node.get_closest_marker("optimized")):
        yield
    if len(programs) > MOST_PROGRAMS:
        programs.clear()
        mlir.make_ir_context.cache_clear()
        jax.clear_caches()


@pytest.fixture
def optimizing_compiler():
    """Compile with all optimizations in a module that is not marked `optimized`."""
    with compilation(quick=False):
        yield
