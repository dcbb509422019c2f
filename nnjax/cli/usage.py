"""Define the option --version, the exit codes in the help texts, and suggestions for unknown options."""

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from nnjax._version import __version__

UsageError: Any = typer.BadParameter.__mro__[1]  # typer's own copy of click's UsageError, which it does not export

MEANING_OF_1 = {  # command -> meaning of its exit code 1
    "train": "the training diverged",
    "search": "all trials diverged",
    "verify": "the repeated run differs",
    "replay": "a number is not finite, or the scores of a trial differ",
}
EXIT_CODES = (
    "Exit codes: 0 success; 1 the training diverged, or verify or replay found a problem; 2 a mistake in options or "
    "files; 3 another process was lost; 130 stopped by Ctrl-C. Each command lists its exit codes with --help."
)
SHOWN = ("nnjax", "jax", "optax", "typer")  # packages whose versions are shown
MEANINGS = {  # options of other programs -> option with the same meaning
    "--batch": "--batch-size",
    "--bs": "--batch-size",
    "--minibatch": "--batch-size",
    "--hidden": "--width",
    "--hidden-size": "--width",
    "--units": "--width",
    "--neurons": "--width",
    "--layers": "--depth",
    "--num-layers": "--depth",
    "--epochs": "--rungs",  # for a search, which has no --epochs
    "--members": "--seeds",  # for a sweep or a search, which have no --members
    "--iterations": "--epochs",
    "--iters": "--epochs",
    "--steps": "--epochs",
    "--num-epochs": "--epochs",
    "--max-iter": "--epochs",
    "--output": "--out",
    "--dir": "--out",
    "--folder": "--out",
    "--label": "--target",
    "--y": "--target",
    "--response": "--target",
    "--ensemble": "--members",
    "--networks": "--members",
    "--early-stopping": "--patience",
    "--rate": "--learning-rate",
    "--beta": "--b1",
    "--beta1": "--b1",
    "--beta2": "--b2",
    "--epsilon": "--eps",
    "--rho": "--decay",
    "--mu": "--momentum",
    "--wd": "--weight-decay",
    "--reference": "--against",
    "--ref": "--against",
    "--to": "--against",
    "--timeout": "--seconds",
    "--step-size": "--learning-rate",
    "--alpha": "--learning-rate",
    "--eta": "--learning-rate",
    "--l2": "--weight-decay",
    "--decay": "--weight-decay",
    "--regularization": "--weight-decay",
    "--smoothing": "--label-smoothing",
    "--delimiter": "--sep",
    "--separator": "--sep",
    "--test-size": "--test-share",
    "--test": "--test-share",
    "--val": "--validation",
    "--validation-split": "--validation",
    "--random-state": "--seed",
    "--impute": "--missing",
    "--na-values": "--na",
    "--exclude": "--drop",
    "--ignore": "--drop",
    "--clip-norm": "--clip",
    "--grad-clip": "--clip",
    "--nonlinearity": "--activation",
    "--normalization": "--norm",
    "--residual": "--skip",
    "--optim": "--optimizer",
    "--optimiser": "--optimizer",
    "--continue": "--resume",
    "--id": "--keep",
}


def exit_codes(command: str) -> str:
    """Return the exit codes of a command for the end of its help text.

    >>> from nnjax.cli.usage import exit_codes
    >>> exit_codes("plot")
    'Exit codes: 0 success; 2 a mistake in options or files; 130 stopped by Ctrl-C.'
    """
    failed = f" 1 {MEANING_OF_1[command]};" if command in MEANING_OF_1 else ""
    lost = " 3 another process was lost;" if command == "train" else ""
    return f"Exit codes: 0 success;{failed} 2 a mistake in options or files;{lost} 130 stopped by Ctrl-C."


class Command(TyperCommand):
    """A command that suggests an option with the same meaning for an unknown option, such as --width for --hidden."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and suggest a replacement for an unknown option."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            unknown = str(getattr(error, "option_name", "")).replace("_", "-")
            known = {name for parameter in self.params for name in parameter.opts}
            if (meant := MEANINGS.get(unknown)) in known:
                error.possibilities = [meant]
            raise


def _print_versions(requested: bool) -> None:
    if not requested:
        return
    for package in SHOWN:
        typer.echo(f"{package} {__version__ if package == 'nnjax' else version(package)}")
    raise typer.Exit


def version_option(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_versions, is_eager=True, help="Print the versions and exit.")
    ] = False,
) -> None:
    """Train neural networks reproducibly from a random seed and the data."""
