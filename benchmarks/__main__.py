"""Measure nnjax and its peers on this machine, compare two runs, and write reports: `python -m benchmarks`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.cases import case_names, load_case
from benchmarks.harness.fingerprint import software_differences, worker_fingerprint
from benchmarks.harness.record import Record, Row, load_record, save_record
from benchmarks.harness.run import Choice, choose_variants, run_benchmarks
from benchmarks.peers import peer_names, read_head
from benchmarks.report.break_even import break_even_lines
from benchmarks.report.document import markdown_report, replace_section
from benchmarks.report.pictures import draw_pictures
from benchmarks.report.regression import find_changes
from benchmarks.report.stats import ENOUGH
from benchmarks.report.table import (
    bottleneck_lines,
    calibration_lines,
    figure_lines,
    terminal_table,
    unmeasured_lines,
)
from benchmarks.report.variants import form_label, lines_by_variant, title_of
from benchmarks.report.web_page import web_page

app = typer.Typer(add_completion=False, rich_markup_mode=None)
console = Console()
warnings = Console(stderr=True)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    only: Annotated[str, typer.Option(help="Comma-separated cases; default: all.")] = "",
    peers: Annotated[str, typer.Option(help="Comma-separated libraries besides nnjax; default: all installed.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for results.json, report.html and pictures.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure few variants in few rounds: a minute on two cores.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=0, help="Number of rounds per variant; 0: defaults of the cases.")] = 0,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Measure all variants and implementations, which takes hours.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List cases, variants and peers, and exit.")] = False,
) -> None:
    """Measure nnjax against the limits of this machine and against other libraries."""
    if context.invoked_subcommand:
        return
    chosen_cases = _chosen_names("--only", only, case_names()) or case_names()
    chosen_peers = _chosen_names("--peers", peers, peer_names())
    if list_:
        return _list_all(chosen_cases)
    _warn_about_missing(chosen_peers)
    folder = out or Path(f"benchmarks-{datetime.now():%Y%m%d-%H%M%S}")
    folder.mkdir(parents=True, exist_ok=True)
    choice = Choice(
        cases=chosen_cases,
        peers=["ours", *chosen_peers] if chosen_peers else None,
        quick=quick,
        rounds=rounds or None,
        thorough=thorough,
    )
    fingerprint, rows = worker_fingerprint(), list[Row]()
    columns = (
        TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=sum(len(choose_variants(name, choice)) for name in chosen_cases))
        for variant_rows in run_benchmarks(choice, lambda line: bar.update(task, description=line)):
            rows += variant_rows
            save_record(folder / "results.json", Record(fingerprint, tuple(rows)))  # after each variant
            bar.advance(task)
            for variant in lines_by_variant(variant_rows):
                console.print(terminal_table(variant), "")
    calibration = calibration_lines(rows, fingerprint["devices"][0])
    results = (*figure_lines(rows), *break_even_lines(rows))
    for line in (*calibration, *bottleneck_lines(rows), *results, *unmeasured_lines(rows)):
        console.print(line, highlight=False, markup=False)
    for path in (folder / "results.json", *_write_report(Record(fingerprint, tuple(rows)), folder)):
        console.print(f"{path}", highlight=False, markup=False)


@app.command("compare")
def compare_command(
    old: Annotated[Path, typer.Argument(help="results.json of the earlier run.")],
    new: Annotated[Path, typer.Argument(help="results.json of the later run.")],
    force: Annotated[bool, typer.Option("--force", help="Compare even if the machines differ.")] = False,
) -> None:
    """Compare two runs and mark results that became slower beyond the noise. Exit with code 1 if any did."""
    old_record, new_record = load_record(old), load_record(new)
    changes = find_changes(old_record, new_record, force=force)
    for change in changes:
        row = change.new
        console.print(
            f"{'SLOWER' if change.slower else '      '} {change.factor:5.2f} ×  "
            f"{title_of(row)}: {form_label(row)} "
            f"(machine {change.drift:.2f}, noise {change.noise:.2f})",
            highlight=False,
            soft_wrap=True,
        )
    if differences := software_differences(old_record.fingerprint, new_record.fingerprint):
        text = f"the software differs, which may affect peers too: {'; '.join(differences)}"
        warnings.print(text, style="yellow", soft_wrap=True)
    if few := [change for change in changes if min(len(change.old.samples), len(change.new.samples)) < ENOUGH]:
        text = f"{len(few)} rows have fewer than {ENOUGH} rounds, often too few for a significant difference"
        warnings.print(text, style="yellow", soft_wrap=True)
    raise typer.Exit(1 if any(change.slower for change in changes) else 0)


@app.command("report")
def report_command(
    results: Annotated[Path, typer.Argument(help="results.json of a run.")],
    into: Annotated[
        Path | None,
        typer.Option(help="Markdown file in which to replace the section named after the folder of results.json."),
    ] = None,
) -> None:
    """Write the pictures, and a page report.html with the main results, next to results.json."""
    record = load_record(results)
    paths = _write_report(record, results.parent)
    if into is not None:
        text = replace_section(into.read_text(encoding="utf-8"), results.parent.name, markdown_report(record))
        into.write_text(text, encoding="utf-8")
        paths.append(into)
    for path in paths:
        console.print(f"{path}", highlight=False, markup=False, soft_wrap=True)


def _write_report(record: Record, folder: Path) -> list[Path]:
    """Write the pictures and report.html, and return their paths, report first."""
    pictures = draw_pictures(record, folder)
    path = folder / "report.html"
    path.write_bytes(web_page(record, pictures))
    return [path, *pictures]


def _chosen_names(option: str, text: str, known: list[str]) -> list[str]:
    """Split a comma-separated option and check the names."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"got {name!r}, expected one of {', '.join(known)}", param_hint=option)
    return names


def _list_all(chosen_cases: list[str]) -> None:
    for name in chosen_cases:
        case = load_case(name)
        console.print(f"[bold]{name}[/]  {(case.__doc__ or '').strip()}", highlight=False)
        for variant in case.JOBS:
            sets = ["quick"] * (variant in case.QUICK) + ["--thorough"] * (variant in getattr(case, "EXTRA", ()))
            console.print(f"    {variant}{''.join(f'  ({name})' for name in sets)}", highlight=False)
    console.print("\n[bold]peers[/]")
    for peer in map(read_head, peer_names()):
        state = f"not installed: {', '.join(peer.missing)}" if peer.missing else ", ".join(peer.forms)
        console.print(f"    {peer.file}  {peer.name}: {state}", highlight=False)


def _warn_about_missing(chosen_peers: list[str]) -> None:
    for peer in map(read_head, chosen_peers or peer_names()):
        if peer.missing:
            warnings.print(f"{peer.name}: not installed ({', '.join(peer.missing)})", style="yellow")


if __name__ == "__main__":
    try:
        app()  # Ctrl-C exits with 130; the variants measured so far are saved
    except (ValueError, OSError) as error:
        warnings.print(f"error: {error}", style="red", markup=False)
        raise SystemExit(2) from None
