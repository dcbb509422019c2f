"""`nnjax optcheck`: an optimizer of one's own against a reference."""

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

from nnjax.cli.shared import complain, say
from nnjax.train.folder import write

UsageError: Any = typer.BadParameter.__mro__[1]  # click's; newer typers have it inside, and no name for it
GRACE = 10.0  # seconds, for an interrupt to come through
BROKEN, CANNOT = 3, 4  # exit codes: the contract is broken; nothing could be compared


def optcheck_command(
    candidate: Annotated[
        str, typer.Argument(metavar="MODULE:NAME", help="Where it is: package.module:my_adam, or path/file.py:my_adam.")
    ],
    against: Annotated[
        str, typer.Option(help="optax.NAME, nnjax.NAME, torch.optim.NAME, or as a library defines it: keras.rmsprop.")
    ],
    learning_rate: Annotated[
        float | None, typer.Option(help="Both are made with it, where they are functions.")
    ] = None,
    b1: Annotated[float | None, typer.Option(help="The same.")] = None,
    b2: Annotated[float | None, typer.Option(help="The same.")] = None,
    eps: Annotated[float | None, typer.Option(help="The same.")] = None,
    decay: Annotated[float | None, typer.Option(help="The same.")] = None,
    momentum: Annotated[float | None, typer.Option(help="The same.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="The same.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="optax, pair, triple, step, object or torch; by default found out.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="A cause that may be, as lr-in-velocity; several times.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw both updates and their difference.")] = None,
    seconds: Annotated[float, typer.Option(help="When to give up.")] = 60.0,
) -> None:
    """Hold an optimizer against a reference: do they make the same updates, and if not, why not?

    Exit code 0 for a match, 1 for a difference with a cause, 2 for one without, 3 where the contract of optimizers is
    broken, 4 where it could not run.

    For example: nnjax optcheck my_package.optimizers:my_adam --against optax.adam --learning-rate 1e-3
    """
    given = {
        "learning_rate": learning_rate,
        "b1": b1,
        "b2": b2,
        "eps": eps,
        "decay": decay,
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    hparams = {name: value for name, value in given.items() if value is not None}
    watchdog = threading.Timer(seconds + GRACE, _never, [seconds])
    watchdog.daemon = True
    watchdog.start()
    try:
        report = _compared(_load(candidate), against, hparams, kind, seconds)
        say(escape(str(report)))
        if json is not None:
            write(json, (report.to_json() + "\n").encode())
        if plot is not None:
            report.plot().savefig(plot)
    except (Exception, SystemExit) as error:  # the candidate's code may raise anything
        complain(_told(error), "[bold red]error[/] ")
        raise typer.Exit(CANNOT) from None
    finally:
        watchdog.cancel()
    if report.exit_code == 1 and report.allowed(allow or ()):
        raise typer.Exit(BROKEN if report.broken else 0)
    raise typer.Exit(report.exit_code)


class Command(TyperCommand):
    """One whose wrong options end with 4, as all that cannot run: 2 is an answer here."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As any command."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            error.exit_code = CANNOT
            raise


def _never(seconds: float) -> None:
    """Ends the process: nothing interrupts a loop in compiled code."""
    complain(f"the optimizer did not come back within {seconds:g} s, from compiled code", "[bold red]error[/] ")
    os._exit(CANNOT)


def _told(error: BaseException) -> str:
    """What happened, and where in the candidate's code."""
    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []) if not note.startswith("-----"))  # JAX's
    libraries = (str(Path(__file__).parents[1]), *sysconfig.get_paths().values(), "<frozen")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    place = f"\n  in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{notes}{place}"


def _compared(candidate: Any, against: str, hparams: dict[str, Any], kind: str | None, seconds: float) -> Any:
    """Both made with the hyper-parameters, or the reference alone where the candidate is made already."""
    from nnjax.optcheck import NotAnOptimizerError, compare
    from nnjax.optcheck.trace.adapters import kind_of
    from nnjax.optcheck.trace.factories import made

    try:
        kind_of(candidate)
    except NotAnOptimizerError:
        if not callable(candidate):
            raise
        return compare(candidate, against, hparams=hparams or {"learning_rate": 1e-3}, kind=kind, seconds=seconds)
    return compare(candidate, made(against, hparams or None, None, None), kind=kind, seconds=seconds)


def _load(name: str) -> Any:
    """An object by the module or file it is in.

    Raises:
      ValueError, ImportError, AttributeError: with what was looked for.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ValueError(f"{name!r} must be MODULE:NAME, as my_package.optimizers:my_adam or optimizers.py:my_adam")
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {place}")
        name_ = f"optcheck_{path.stem}"  # a file jax.py is not to take jax's place
        sys.path.insert(0, str(path.resolve().parent))  # what lies beside it can be imported
        spec = importlib.util.spec_from_file_location(name_, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name_] = module  # dataclasses look for the module of a class
        spec.loader.exec_module(module)
    else:
        sys.path.insert(0, "")  # as `python -m` does
        module = importlib.import_module(place)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            there = {name: thing for name, thing in vars(module).items() if not isinstance(thing, ModuleType)}
            names = ", ".join(name for name in there if not name.startswith("_"))
            raise AttributeError(f"{place} has no {attribute}; it has {names}")
        found = getattr(found, part)
    return found
