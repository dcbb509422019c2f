"""Define the `nnjax` command: train, predict, plot, sweep, search, verify, replay, lecture and optcheck."""

import warnings
from collections.abc import Callable

try:
    import typer

    from nnjax.cli import optcheck
    from nnjax.cli.console import ERROR, complain, show_warning
    from nnjax.cli.lecture import lecture_command
    from nnjax.cli.output import tolerant_output
    from nnjax.cli.plot import plot_command
    from nnjax.cli.predict import predict_command
    from nnjax.cli.replay import replay_command
    from nnjax.cli.search import search_command
    from nnjax.cli.sweep import sweep_command
    from nnjax.cli.train import train_command
    from nnjax.cli.usage import EXIT_CODES, Command, exit_codes, version_option
    from nnjax.cli.verify import verify_command
except ModuleNotFoundError as missing:
    if missing.name not in ("typer", "rich"):
        raise
    raise SystemExit(f"the nnjax command needs {missing.name}: pip install 'nnjax[cli]'") from missing
except KeyboardInterrupt:
    raise SystemExit(130) from None

__all__ = ["app", "main"]

app = typer.Typer(
    help="Train neural networks reproducibly from a random seed and the data.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.callback()(version_option)
COMMANDS: dict[str, Callable[..., None]] = {
    "train": train_command,
    "predict": predict_command,
    "plot": plot_command,
    "sweep": sweep_command,
    "search": search_command,
    "verify": verify_command,
    "replay": replay_command,
    "lecture": lecture_command,
}
for name, function in COMMANDS.items():
    app.command(name, cls=Command, epilog=exit_codes(name))(function)
app.command("optcheck", cls=optcheck.Command)(optcheck.optcheck_command)


def main() -> None:
    """Run the `nnjax` command. After a user error, print a message instead of a traceback, and exit with code 2.

    The run continues even if its output cannot be written; see `tolerant_output`.
    """
    warnings.showwarning = show_warning  # type: ignore[assignment]
    with tolerant_output():
        try:
            app(prog_name="nnjax")
        except (ValueError, OSError, ModuleNotFoundError) as error:
            notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
            complain(f"{error}{notes}", ERROR)
            raise SystemExit(2) from None
