"""`nnjax optcheck`: compare an optimizer with a reference, or find and identify all optimizers in a file."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from nnjax.cli import options as o
from nnjax.cli import usage
from nnjax.cli.console import complain, say
from nnjax.cli.optcheck_process import CANNOT_RUN, run
from nnjax.storage.atomic_write import write_file


def optcheck_command(
    candidate: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:NAME",
            help="The optimizer: package.module:my_adam or path/file.py:my_adam. Without :my_adam, all optimizers "
            "in the module, package, file or folder are identified.",
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The reference: optax.NAME, nnjax.NAME, torch.optim.NAME, or a formula such as keras.rmsprop, "
            "momentum or bert.adam.",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            "--lr",
            help="Learning rate, passed to each optimizer that takes one (lr, alpha, eta, step_size …).",
        ),
    ] = None,
    b1: Annotated[float | None, typer.Option(help="Decay rate of the first moment.")] = None,
    b2: Annotated[float | None, typer.Option(help="Decay rate of the second moment.")] = None,
    eps: Annotated[float | None, typer.Option(help="Constant ε in the denominator.")] = None,
    decay: Annotated[float | None, typer.Option(help="Decay rate of RMSProp's moving average.")] = None,
    momentum: Annotated[float | None, typer.Option(help="Decay rate of the velocity.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Kind of optimizer: optax, pair, triple, step, object, torch, holder (takes the parameters, returns "
            "an optimizer) or loop; see the documentation of optcheck.compare. Default: detected."
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="zeros|NAME", help="Initial state of a step function: zeros, or a function of the parameters."
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(metavar="ROLES", help="Order of a step function's arguments, such as grads,params,state."),
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Cause to accept, such as lr-in-velocity. May be repeated.")
    ] = None,
    output: Annotated[
        Literal["text", "json", "github"], typer.Option("--format", help="Format of the output.")
    ] = "text",
    json: Annotated[Path | None, typer.Option(metavar="FILE", parser=o.path, help="Write the report as JSON.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=o.path, help="Plot the updates of both optimizers and their difference."),
    ] = None,
    max_fits: Annotated[
        int,
        typer.Option(help="Maximum number of update rules to fit in the search for the cause; in audits, 300 at most."),
    ] = 1200,
    seconds: Annotated[float, typer.Option(help="Time limit of the command in seconds, including its imports.")] = 900,
    memory: Annotated[float, typer.Option(help="Memory limit of the process (address space) in GiB.")] = 16,
) -> None:
    """Compare the updates of an optimizer with those of a reference, and name the cause if they differ.

    The optimizer runs in a separate process, so a hang, a crash or an early exit is never reported as a match.
    The learning rate and the other hyper-parameters are passed to both optimizers, or only to the reference if the
    optimizer takes none of them.

    Exit codes:
    0 match, or only allowed causes
    1 difference with a cause
    2 difference without a cause
    3 no difference, but the optimizer breaks the contract
    4 the comparison could not run

    Without NAME, 0 means that each optimizer is a library rule, 1 that one differs from all library rules, and 2 that
    one is unknown or fails to run.

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
    if ":" in candidate and against is None:
        raise _usage("--against: name the reference, such as optax.adam")
    if ":" not in candidate and against is not None:
        raise _usage(f"{candidate!r}: name the optimizer, MODULE:NAME, or omit --against to identify all optimizers")
    if seconds <= 0:
        raise _usage(f"--seconds must be positive, got {seconds:g}")
    if memory <= 0:
        raise _usage(f"--memory must be positive, got {memory:g}")
    request = {
        "candidate": candidate,
        "against": against,
        "hparams": {name: value for name, value in options.items() if value is not None},
        "kind": kind,
        "init": init,
        "order": None if order is None else [role.strip() for role in order.split(",")],
        "allow": allow or [],
        "max_fits": max_fits,
        "plot": None if plot is None else str(plot),
        "memory": memory,
    }
    result = run(request, seconds)
    if "error" not in result and json is not None:
        try:
            write_file(json, (result["json"] + "\n").encode())
        except OSError as error:
            result = {"error": f"{json} cannot be written: {error.strerror}"}
    if "error" in result:
        complain(result["error"], "[bold red]error[/] ")
        raise typer.Exit(CANNOT_RUN)
    say(escape(result[output]))
    raise typer.Exit(result["exit_code"])


def _usage(message: str) -> Any:
    error = typer.BadParameter(message)
    error.exit_code = CANNOT_RUN
    return error


class Command(usage.Command):
    """A command whose usage errors exit with code 4, because code 2 is a result of the comparison."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and set the exit code of usage errors."""
        try:
            return super().parse_args(ctx, args)
        except usage.UsageError as error:
            error.exit_code = CANNOT_RUN
            raise
