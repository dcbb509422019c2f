"""`nnjax optcheck`: compare an optimizer with a reference."""

import importlib
import importlib.util
import os
import sys
import sysconfig
import threading
import traceback
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand

from nnjax.cli import options as o
from nnjax.cli.console import complain, say
from nnjax.storage.atomic_write import write_file

UsageError: Any = typer.BadParameter.__mro__[1]  # click's class, which newer versions of typer do not export
GRACE = 10.0  # seconds that an interrupt may take
BROKEN, CANNOT_RUN = 3, 4  # exit codes


def optcheck_command(
    candidate: Annotated[
        str,
        typer.Argument(metavar="MODULE:NAME", help="The optimizer: package.module:my_adam or path/file.py:my_adam."),
    ],
    against: Annotated[
        str, typer.Option(help="The reference: optax.NAME, nnjax.NAME, torch.optim.NAME, or a formula: keras.rmsprop.")
    ],
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate, passed to both if they are functions that make optimizers.")
    ] = None,
    b1: Annotated[float | None, typer.Option(help="Decay rate of the first moment, passed to both.")] = None,
    b2: Annotated[float | None, typer.Option(help="Decay rate of the second moment, passed to both.")] = None,
    eps: Annotated[float | None, typer.Option(help="Constant ε of the denominator, passed to both.")] = None,
    decay: Annotated[float | None, typer.Option(help="Decay rate of RMSProp's moving average, passed to both.")] = None,
    momentum: Annotated[float | None, typer.Option(help="Decay rate of the velocity, passed to both.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay, passed to both.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Kind of the optimizer, if it is not recognised: optax, pair, triple, step, object, torch."),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Cause to accept, such as lr-in-velocity. May be repeated.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", parser=o.path, help="Write the report as JSON.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=o.path, help="Draw both updates and their difference.")
    ] = None,
    max_fits: Annotated[
        int, typer.Option(help="Number of update rules to fit before the cause is reported as unknown.")
    ] = 2000,
    seconds: Annotated[float | None, typer.Option(help="Time limit in seconds; by default there is none.")] = None,
) -> None:
    """Compare the updates of an optimizer with those of a reference, and name the cause if they differ.

    Exit codes:
    0 match, or only allowed causes
    1 difference with a cause
    2 difference without a cause
    3 the optimizer breaks the contract
    4 the comparison could not run

    Example: nnjax optcheck my_package.optimizers:my_adam --against optax.adam --learning-rate 1e-3
    """
    options = {
        "learning_rate": learning_rate,
        "b1": b1,
        "b2": b2,
        "eps": eps,
        "decay": decay,
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    hparams = {name: value for name, value in options.items() if value is not None}
    watchdog = threading.Timer((seconds or 0.0) + GRACE, _exit, [seconds])
    watchdog.daemon = True
    if seconds is not None:
        watchdog.start()
    try:
        limits = {"max_fits": max_fits, "seconds": seconds}
        report = _compare(_load(candidate), against, hparams, kind, limits)
        say(escape(str(report)))
        if json is not None:
            write_file(json, (report.to_json() + "\n").encode())
        if plot is not None:
            report.plot().savefig(plot)
    except (Exception, SystemExit) as error:  # the candidate's code may raise anything
        complain(_describe_error(error), "[bold red]error[/] ")
        raise typer.Exit(CANNOT_RUN) from None
    finally:
        watchdog.cancel()
    if report.exit_code == 1 and report.allowed(allow or ()):
        raise typer.Exit(BROKEN if report.broken else 0)
    raise typer.Exit(report.exit_code)


class Command(TyperCommand):
    """A command that exits with code 4 if its options are wrong, because code 2 is a result of the comparison."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, as any command does."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            error.exit_code = CANNOT_RUN
            raise


def _exit(seconds: float) -> None:
    """End the process: a loop in compiled code cannot be interrupted."""
    complain(f"the optimizer did not return from compiled code within {seconds:g} s", "[bold red]error[/] ")
    os._exit(CANNOT_RUN)


def _describe_error(error: BaseException) -> str:
    """Return the message of an error, and its place in the candidate's code."""
    notes = "".join(
        f"\n  {note}" for note in getattr(error, "__notes__", []) if not note.startswith("-----")
    )  # a separator of JAX
    libraries = (str(Path(__file__).parents[1]), *sysconfig.get_paths().values(), "<frozen")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    place = f"\n  in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{notes}{place}"


def _compare(candidate: Any, against: str, hparams: dict[str, Any], kind: str | None, limits: dict[str, Any]) -> Any:
    """Compare two optimizers; only the reference gets the hyper-parameters if the candidate is already built."""
    from nnjax.optcheck import NotAnOptimizerError, compare
    from nnjax.optcheck.calling.factories import build
    from nnjax.optcheck.calling.kinds import kind_of

    try:
        kind_of(candidate)
    except NotAnOptimizerError:
        if not callable(candidate):
            raise
        return compare(candidate, against, hparams=hparams or {"learning_rate": 1e-3}, kind=kind, **limits)
    return compare(candidate, build(against, hparams or None), kind=kind, **limits)


def _load(name: str) -> Any:
    """Load the object that is specified as MODULE:NAME or FILE.py:NAME.

    Raises:
      ValueError: if the name is neither MODULE:NAME nor FILE.py:NAME.
      ImportError, FileNotFoundError, AttributeError: if the module, file or object does not exist.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ValueError(
            f"{name!r} must be MODULE:NAME, such as my_package.optimizers:my_adam or optimizers.py:my_adam"
        )
    if place.endswith(".py"):
        source = o.path(place)
        if not source.is_file():
            raise FileNotFoundError(f"there is no file {place}")
        module_name = f"optcheck_{source.stem}"  # so that a file jax.py does not replace jax
        sys.path.insert(0, str(source.resolve().parent))  # so that it can import modules from its folder
        spec = importlib.util.spec_from_file_location(module_name, source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses look for the module of their class
        spec.loader.exec_module(module)
    else:
        sys.path.insert(0, "")  # as `python -m` does
        module = importlib.import_module(place)
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            attributes = {name: member for name, member in vars(module).items() if not isinstance(member, ModuleType)}
            names = ", ".join(name for name in attributes if not name.startswith("_"))
            raise AttributeError(f"{place} has no {attribute}; it has {names}")
        value = getattr(value, part)
    return value
