"""The command line: `nnjax train`, `predict`, `sweep`, `verify`, `replay` and `optcheck`."""

import warnings

try:
    from nnjax.cli import optcheck
    from nnjax.cli.predict import predict_command
    from nnjax.cli.replay import replay_command
    from nnjax.cli.shared import app, complain, show_warning
    from nnjax.cli.sweep import sweep_command
    from nnjax.cli.train import train_command
    from nnjax.cli.verify import verify_command
except ModuleNotFoundError as missing:
    if missing.name not in ("typer", "rich"):
        raise
    raise SystemExit(f"the nnjax command needs {missing.name}: pip install 'nnjax[cli]'") from missing
except KeyboardInterrupt:
    raise SystemExit(130) from None

from nnjax.train.engine import distributed  # after what says how to install the command's packages

__all__ = ["app", "main"]

app.command("train")(train_command)
app.command("predict")(predict_command)
app.command("sweep")(sweep_command)
app.command("verify")(verify_command)
app.command("replay")(replay_command)
app.command("optcheck", cls=optcheck.Command)(optcheck.optcheck_command)


def main() -> None:
    """The `nnjax` command: a user's mistake is a message and exit code 2, never a traceback."""
    warnings.showwarning = show_warning  # type: ignore[assignment]
    try:
        app()
    except distributed.ProcessLostError as error:
        complain(str(error), "[bold red]error[/] ")
        raise SystemExit(3) from None
    except (ValueError, OSError, ModuleNotFoundError) as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
        complain(f"{error}{notes}", "[bold red]error[/] ")
        raise SystemExit(2) from None
