"""`python -m benchmarks`: measures this machine and the peers on it; `compare` says what became slower."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import cases, peers
from benchmarks.harness.fingerprint import changed_software, in_a_process
from benchmarks.harness.record import Record, Row, load, save
from benchmarks.harness.run import Choice, run, variants
from benchmarks.report import pictures, table
from benchmarks.report.regression import compare
from benchmarks.report.stats import ENOUGH

app = typer.Typer(add_completion=False, rich_markup_mode=None)
console = Console()
complaints = Console(stderr=True)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    only: Annotated[str, typer.Option(help="Cases, with commas between them; all by default.")] = "",
    others: Annotated[str, typer.Option("--peers", help="Peers by file; all by default. Ours is always there.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of results.json and the pictures; benchmarks-DATE.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="In two minutes: few variants, few rounds.")] = False,
    rounds: Annotated[int, typer.Option(min=0, help="Of every variant, long or not; 0 for as many as fit.")] = 0,
    thorough: Annotated[bool, typer.Option("--thorough", help="Hours: all variants, peers and forms.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Say what there is, and measure nothing.")] = False,
) -> None:
    """Measures what this machine does: against its limit, and against other libraries."""
    if context.invoked_subcommand:
        return
    chosen = _chosen("--only", only, cases.names()) or cases.names()
    wanted = _chosen("--peers", others, peers.names())
    if listed:
        return _list(chosen)
    _tell_missing(wanted)
    folder = out or Path(f"benchmarks-{datetime.now():%Y%m%d-%H%M%S}")
    folder.mkdir(parents=True, exist_ok=True)
    choice = Choice(chosen, ["ours", *wanted] if wanted else None, quick, rounds or None, thorough)
    machine, rows = in_a_process(), list[Row]()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        total = sum(len(variants(name, choice)) for name in chosen)
        task = bar.add_task("", total=total)
        for _, measured in run(choice, lambda what: bar.update(task, description=what)):
            rows += measured
            save(folder / "results.json", Record(machine, tuple(rows)))  # what is measured is kept, whatever comes
            bar.advance(task)
            for title, lines in table.variants(measured):
                console.print(table.terminal(title, lines))
    for line in (*table.calibrated(rows, machine["devices"][0]), *table.bound(rows), *table.besides(rows)):
        console.print(line, highlight=False)
    for path in (folder / "results.json", *pictures.draw(rows, folder)):
        console.print(f"{path}", highlight=False)


@app.command("compare")
def compare_command(
    old: Path, new: Path, force: Annotated[bool, typer.Option(help="Though the machines differ.")] = False
) -> None:
    """Says what became slower, beyond the noise; exit code 1 if anything did."""
    before, after = load(old), load(new)
    changes = compare(before, after, force=force)
    for change in changes:
        row = change.new
        word = "SLOWER" if change.slower else "      "
        console.print(
            f"{word} {change.by:5.2f} ×  {row.case}, {row.variant}: {row.peer}, {row.form} "
            f"(machine {change.drift:.2f}, noise {change.noise:.2f})",
            highlight=False,
            soft_wrap=True,
        )
    if apart := changed_software(before.fingerprint, after.fingerprint):
        complaints.print(f"other software, which peers share: {'; '.join(apart)}", style="yellow", soft_wrap=True)
    if few := [change for change in changes if min(len(change.old.samples), len(change.new.samples)) < ENOUGH]:
        complaints.print(f"{len(few)} have less than {ENOUGH} rounds, too few to tell", style="yellow")
    raise typer.Exit(1 if any(change.slower for change in changes) else 0)


@app.command("plot")
def plot_command(results: Path) -> None:
    """Draws the pictures again, beside the results."""
    for path in pictures.draw(load(results).rows, results.parent):
        console.print(f"{path}", highlight=False)


@app.command("table")
def table_command(results: Path) -> None:
    """Prints the results as Markdown."""
    machine, rows = load(results)
    print(f"{table.taken_on(machine)}\n\n{table.markdown(rows)}")


def _chosen(option: str, text: str, known: list[str]) -> list[str]:
    """The names that are asked for."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r}; there are {', '.join(known)}", param_hint=option)
    return names


def _list(chosen: list[str]) -> None:
    for name in chosen:
        this = cases.case(name)
        console.print(f"[bold]{name}[/]  {(this.__doc__ or '').strip()}", highlight=False)
        for variant in this.JOBS:
            sets = ["quick"] * (variant in this.QUICK) + ["--thorough"] * (variant in getattr(this, "EXTRA", ()))
            console.print(f"    {variant}{''.join(f'  ({name})' for name in sets)}", highlight=False)
    console.print("\n[bold]peers[/]")
    for peer in map(peers.about, peers.names()):
        state = f"not installed: {', '.join(peer.missing)}" if peer.missing else ", ".join(peer.forms)
        console.print(f"    {peer.file}  {peer.name}: {state}", highlight=False)


def _tell_missing(wanted: list[str]) -> None:
    for peer in map(peers.about, wanted or peers.names()):
        if peer.missing:
            complaints.print(f"{peer.name}: not installed ({', '.join(peer.missing)})", style="yellow")


if __name__ == "__main__":
    try:
        app()  # Ctrl-C ends it with 130; what was measured is in the file
    except (ValueError, OSError) as error:
        complaints.print(f"error {error}", style="red", markup=False)
        raise SystemExit(2) from None
