"""Make repeated runs use exactly the same program: deterministic operations and a compilation cache on disk."""

import hashlib
import os
import platform
import stat
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import jax
from jax._src import compilation_cache, xla_bridge  # JAX has no public replacement for these two modules

SHORTEST = 0.1  # minimum compile time of cached programs, in seconds
FLAG = "--xla_gpu_deterministic_ops=true"
IRRELEVANT = ("--xla_dump", "--xla_force_host_platform_device_count")  # flags that do not change results


def reproducible(cache: str | Path | None = None) -> Path:
    """Make GPU results bitwise reproducible, also across processes. Call this before JAX starts.

    XLA uses only deterministic operations. Compiled programs are cached on disk, because recompiling may choose
    different kernels, so a resumed or repeated run uses exactly the same program. On CPUs, where results are
    reproducible anyway, the cache only saves compile time. The command line calls this function.

    Compiled programs are executable code, so only the user may write to the folder (a new one gets mode 0700). By
    default, each type of machine, identified by its processor features, and each version of jaxlib has its own folder.
    The folder may be deleted at any time. Programs that compile in less than 0.1 s (single operations) are not cached.
    Truncated files, left behind by killed processes, are removed, because JAX would warn about them at every start and
    not replace them. Settings of the user in `XLA_FLAGS` and in JAX's environment variables take precedence.

    Args:
      cache: folder for the compiled programs. None means `$JAX_COMPILATION_CACHE_DIR` or, if that is unset,
        `nnjax/compiled` in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`).

    Returns:
      The cache folder.

    Raises:
      RuntimeError: if JAX has already started and XLA has therefore read its flags.
      PermissionError: if the folder belongs to another user, or if other users may write to it.

    >>> x = jnp.zeros(3)
    >>> nnjax.reproducible()
    Traceback (most recent call last):
    RuntimeError: reproducible: JAX has already started ...; call nnjax.reproducible() before creating arrays ...
    """
    if has_started():
        raise RuntimeError(
            "reproducible: JAX has already started and has read its flags; call nnjax.reproducible() before creating "
            "arrays or listing devices"
        )
    choice = cache or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = Path(choice).expanduser() if choice else _user_folder()
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
    """Return True if JAX has read its flags and initialised its devices."""
    return bool(xla_bridge.backends_are_initialized())


def program_settings(platform: str) -> dict[str, str]:
    """Return the XLA flags that affect results and, except on CPUs, whether compiled programs are cached."""
    ignored = (*IRRELEVANT, "--xla_gpu") if platform == "cpu" else IRRELEVANT
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(ignored)]
    settings = {"XLA flags": " ".join(sorted(flags)) or "none"}
    if platform == "cpu":  # on CPUs, recompiling gives the same program
        return settings
    cache_enabled = jax.config.values["jax_compilation_cache_dir"] and jax.config.values["jax_enable_compilation_cache"]
    return settings | {"compiled programs": "kept" if cache_enabled else "not kept"}


def _user_folder() -> Path:
    """Return the default cache folder for this type of machine and version of jaxlib.

    JAX's cache keys include the device type, so different devices can share the folder.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    info = Path("/proc/cpuinfo")
    features = [platform.machine(), platform.processor(), sys.platform]
    if info.exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        features += sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    machine = hashlib.sha256("\n".join(features).encode()).hexdigest()[:12]
    return caches / "nnjax" / "compiled" / f"{machine}-jaxlib-{version('jaxlib')}"


def _make_private(folder: Path) -> None:
    """Create the folder if necessary; raise PermissionError if another user owns it or may write to it."""
    created = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for parent in created:
        parent.chmod(0o700)
    status = folder.stat()
    foreign = hasattr(os, "getuid") and status.st_uid != os.getuid()
    if foreign or (os.name == "posix" and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise PermissionError(
            f"reproducible: {folder} belongs to another user or is writable by others, who could plant code in the "
            "compiled programs; pass a different cache=, or chmod 700 it if it is yours"
        )


def _remove_truncated(folder: Path) -> None:
    """Delete truncated program files that were written since the last check."""
    checked = folder / "checked"  # its modification time is the time of the last check
    since = checked.stat().st_mtime if checked.exists() else 0.0
    with suppress(OSError):  # the folder may be read-only
        checked.touch()
    for path in folder.glob("*-cache"):
        with suppress(OSError):  # another process may remove the file at the same time
            if path.stat().st_mtime < since:
                continue
            try:
                compilation_cache.decompress_executable(path.read_bytes())
            except OSError:
                raise
            except Exception:  # the error's type depends on JAX's compression library
                path.unlink()
