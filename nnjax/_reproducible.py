"""Make repeated runs run the very same program: deterministic operations, and compiled programs kept on disk."""

import hashlib
import os
import platform
import stat
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import jax
from jax._src import compilation_cache, xla_bridge  # JAX has no public functions that replace these two modules

SHORTEST = 0.1  # programs that compile for at least this many seconds are kept
FLAG = "--xla_gpu_deterministic_ops=true"
IRRELEVANT = ("--xla_dump", "--xla_force_host_platform_device_count")  # flags that do not change results


def reproducible(cache: str | Path | None = None) -> Path:
    """Let a GPU repeat its results bitwise, also in another process. Call this before JAX starts.

    XLA is told to use only deterministic operations, and compiled programs are kept on disk, because compiling again
    may choose other kernels: a resumed or repeated run gets the very same program. On CPUs, where results are the same
    anyway, the second start of a program compiles nothing. The command line calls this function.

    A compiled program is code that runs. The folder therefore belongs to the user alone (mode 0700), and each kind of
    machine, by its processor's features, has its own folder. It may be deleted at any time. Programs that compile
    in less than 0.1 s, which are single operations, are not kept. Truncated files, which a killed process leaves, are
    removed, because JAX would warn of them at each start and not replace them.

    Args:
      cache: the folder of compiled programs; None for `$JAX_COMPILATION_CACHE_DIR`, or `nnjax/compiled` in the user's
        folder for caches (`$XDG_CACHE_HOME`, `~/.cache`).

    Returns:
      The folder that is used.

    Raises:
      RuntimeError: if JAX has already started, because XLA reads its flags then.
      PermissionError: if the folder belongs to another user, or if others may write to it.

    >>> x = jnp.zeros(3)
    >>> nnjax.reproducible()
    Traceback (most recent call last):
    RuntimeError: reproducible: JAX has already started, ...; call nnjax.reproducible() before the first array
    """
    if has_started():
        raise RuntimeError(
            "reproducible: JAX has already started, and has read its flags; call nnjax.reproducible() before the first "
            "array"
        )
    chosen = cache or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = Path(chosen).expanduser() if chosen else _user_folder()
    _make_private(folder)
    _remove_truncated(folder)
    flags = os.environ.get("XLA_FLAGS", "")
    if FLAG.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}".strip()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    for name, value in (
        ("jax_persistent_cache_min_compile_time_secs", SHORTEST),
        ("jax_persistent_cache_min_entry_size_bytes", -1),
    ):
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    return folder


def has_started() -> bool:
    """Return True if JAX has read its flags and found its devices."""
    return bool(xla_bridge.backends_are_initialized())


def program_settings(platform: str) -> dict[str, str]:
    """Return XLA's flags, as far as they affect results on a platform, and whether compiled programs are kept."""
    ignored = (*IRRELEVANT, "--xla_gpu") if platform == "cpu" else IRRELEVANT
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(ignored)]
    settings = {"XLA flags": " ".join(sorted(flags)) or "none"}
    if platform == "cpu":  # where compiling again gives the same program
        return settings
    cache_enabled = jax.config.values["jax_compilation_cache_dir"] and jax.config.values["jax_enable_compilation_cache"]
    return settings | {"compiled programs": "kept" if cache_enabled else "not kept"}


def _user_folder() -> Path:
    """Return the folder for this kind of machine; JAX itself tells devices and its own versions apart inside of it."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    info = Path("/proc/cpuinfo")
    features = [platform.machine(), platform.processor(), sys.platform]
    if info.exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        features += sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    machine = hashlib.sha256("\n".join(features).encode()).hexdigest()[:12]
    return caches / "nnjax" / "compiled" / f"{machine}-jaxlib-{version('jaxlib')}"


def _make_private(folder: Path) -> None:
    """Create the folder if it does not exist, and check that only this user can write to it."""
    created = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for parent in created:
        parent.chmod(0o700)
    status = folder.stat()
    foreign = hasattr(os, "getuid") and status.st_uid != os.getuid()
    if foreign or (os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise PermissionError(
            f"reproducible: others may write to {folder}, and compiled programs are code that runs; pass another "
            "cache=, or chmod 700 it"
        )


def _remove_truncated(folder: Path) -> None:
    """Remove the truncated programs among those written since the last check."""
    checked = folder / "checked"  # its modification time is the time of the last check
    since = checked.stat().st_mtime if checked.exists() else 0.0
    with suppress(OSError):  # a folder that cannot be written to
        checked.touch()
    for path in folder.glob("*-cache"):
        with suppress(OSError):  # another process may remove it, too
            if path.stat().st_mtime < since:
                continue
            try:
                compilation_cache.decompress_executable(path.read_bytes())
            except OSError:
                raise
            except Exception:  # the type depends on the compression library that JAX uses
                path.unlink()
