"""Reports of the benchmarks: statistics, tables, documents, pictures, and what became slower."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.harness.record import AGAIN, Record, Row, load_record, save_record
from benchmarks.jobs.definitions import Calibration
from benchmarks.peers import limit
from benchmarks.report.bottleneck import calibrated_rates, find_bottleneck
from benchmarks.report.break_even import break_even, break_even_lines
from benchmarks.report.compile_plot import compile_times
from benchmarks.report.datasheet import find_peaks
from benchmarks.report.document import markdown_report, markers, replace_section
from benchmarks.report.ensemble_size import doubling_sizes
from benchmarks.report.pictures import draw_pictures
from benchmarks.report.ratio_plot import peer_ratios
from benchmarks.report.regression import find_changes
from benchmarks.report.stats import geometric_mean, is_slower, median_ratio, summarise
from benchmarks.report.table import bottleneck_lines, calibration_lines, figure_lines, terminal_table, unmeasured_lines
from benchmarks.report.variants import first_run, format_seconds, lines_by_variant
from benchmarks.report.web_page import web_page

TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20)
FINGERPRINT = {
    "processor": "Some(R) CPU", "cores": 2, "devices": ["cpu cpu"], "python": "3.11", "packages": {"jax": "1"},
    "commit": "0123456789",
}  # fmt: skip


def times(median, seed=0, n=11, noise=0.02):
    return tuple(median * np.random.default_rng(seed).lognormal(0, noise, n))


def row(peer="ours", form="fast", samples=times(1e-3), case="small", variant="64-32-10", **changes):
    fields = {
        "unit": "step", "stages": {"compile": 0.5}, "error": 0.1, "flops": 10**6, "bytes": 10**5, "limit": 5e-4,
        "memory": {}, "figures": {}, "problem": None,
    } | changes  # fmt: skip
    return Row(case=case, variant=variant, peer=peer, form=form, samples=samples, **fields)


def report(*rows):
    return markdown_report(Record(FINGERPRINT, rows))


@given(TIMES)
def test_a_summary_is_in_order(samples):
    summary = summarise(samples)
    assert min(samples) == summary.minimum <= summary.low <= summary.median <= summary.high <= max(samples)
    assert summary.median == pytest.approx(np.median(samples))


@settings(deadline=None)  # the first call imports SciPy
@given(TIMES, st.floats(0.1, 10.0))
def test_a_ratio_of_scaled_samples_is_the_scale(samples, scale):
    ratio = median_ratio([scale * sample for sample in samples], samples)
    assert ratio.value == pytest.approx(scale)
    assert ratio.low == pytest.approx(scale)  # rounds are resampled in pairs
    assert ratio.high == pytest.approx(scale)


def test_the_interval_nearly_always_contains_the_ratio():
    hits = 0
    for seed in range(60):
        ratio = median_ratio(times(1.3, seed, 25, 0.1), times(1.0, 1000 + seed, 25, 0.1))
        hits += ratio.low <= 1.3 <= ratio.high
    assert hits >= 50  # 95 % of 60 is 57


@pytest.mark.parametrize("samples", [[], [1.0, 0.0], [1.0, float("nan")], [[1.0]]])
def test_samples_must_be_positive_times(samples):
    with pytest.raises(ValueError, match="samples must be one or more positive times"):
        summarise(samples)


def test_ratios_need_equal_rounds():
    with pytest.raises(ValueError, match="got 2 and 3 rounds"):
        median_ratio([1.0, 2.0], [1.0, 2.0, 3.0])


def test_the_geometric_mean_of_2_and_a_half_is_1():
    assert geometric_mean([2.0, 0.5]) == 1.0


@pytest.mark.parametrize(
    ("factor", "noise", "slower"),
    [(1.0, 1.0, False), (1.03, 1.0, False), (1.2, 1.0, True), (1.2, 1.3, False), (0.8, 1.0, False)],
)
def test_slower_is_significant_and_more_than_the_noise(factor, noise, slower):
    assert is_slower(times(1.0, n=15), times(factor, seed=1, n=15), noise) == slower


def test_a_few_outliers_are_not_slower():
    assert not is_slower(times(1.0, n=15), (*times(1.0, seed=1, n=12), 5.0, 6.0, 7.0), 1.0)


def test_three_samples_are_never_significant():
    assert not is_slower([1.0, 1.1, 0.9], [1.2, 1.0, 1.15], 1.0)


@pytest.mark.parametrize(("time", "text"), [(2.0, "2 s"), (0.0123, "12.3 ms"), (1.5e-5, "15 µs"), (3e-9, "3 ns")])
def test_times_have_units(time, text):
    assert format_seconds(time) == text


def test_the_calibration_is_compared_with_the_data_sheet():
    gemm = row("limit", "measured", case="calibrate", variant="GEMM float32, 2048", flops=67 * 10**9)
    (line,) = calibration_lines([gemm, row()], "gpu NVIDIA H200")
    assert re.fullmatch(r"GEMM float32, 2048: 6\d,\d00 GFLOP/s, (99|100|101)% of the data sheet's 67,000", line)
    (line,) = calibration_lines([gemm], "cpu cpu")
    assert "data sheet" not in line
    for dtype, peak in (("tf32", "494,000"), ("bfloat16", "989,000")):
        (line,) = calibration_lines([gemm._replace(variant=f"GEMM {dtype}, 2048")], "gpu NVIDIA H200")
        assert line.endswith(f"data sheet's {peak}")


def test_devices_with_similar_names_have_their_own_data_sheets():
    names = ["NVIDIA L4", "NVIDIA L40", "NVIDIA L40S", "NVIDIA H200", "NVIDIA GH200 480GB", "TPU v5 lite", "TPU v5"]
    names += [f"NVIDIA H100{suffix}" for suffix in (" 80GB HBM3", " PCIe", " NVL")]
    names += [f"NVIDIA A100{suffix}" for suffix in ("-SXM4-40GB", "-SXM4-80GB", " 80GB PCIe")]
    assert len({find_peaks(name) for name in names}) == len(names)
    assert find_peaks("cpu cpu") is None


def test_tf32_needs_a_gpu():
    with pytest.raises(ValueError, match="tf32 exists only on NVIDIA GPUs"):
        limit.calibration(Calibration("gemm", 8, "tf32"), "measured")


def test_the_table_has_the_fastest_first_and_ratios_to_our_fastest_form():
    slow, peer = row(form="naive", samples=times(3e-3)), row("torch eager", samples=times(2e-3, seed=1))
    missing = row("Haiku", samples=(), problem="ValueError: not here\nreally")
    (variant,) = lines_by_variant([missing, peer, slow, row()])
    assert variant.title == "small: 64-32-10"
    assert [line.row.peer for line in variant.lines] == ["ours", "torch eager", "ours", "Haiku"]
    assert variant.lines[1].ratio == median_ratio(peer.samples, row().samples)
    assert variant.lines[3].ratio is None
    assert terminal_table(variant).row_count == 3


def test_failures_are_named_and_refusals_are_counted():
    refused = row("Haiku", samples=(), problem="ValueError: only one device\nreally")
    failed = row("stax", samples=(), problem="the process exited with 1: lost\nreally")
    lines = ["failed: small: 64-32-10: stax, fast: the process exited with 1: lost"]
    lines.append("2 forms cannot run here and were not measured; results.json says why")
    assert list(unmeasured_lines([refused, failed, row(), refused])) == lines
    same = [failed._replace(variant=variant, problem="lost" + 9999 * ".") for variant in "abc"]
    (line,) = unmeasured_lines(same)  # the screen is not filled
    assert line.startswith("failed: small: a and 2 more: stax, fast: lost...")
    assert len(line) < 300
    assert not list(unmeasured_lines([row()]))


def test_the_table_fits_into_80_columns():
    wide = row("plain JAX", "vmap on all cores", times(0.123), memory={"peak": 10**10}, stages={"compile": 12.3})
    (variant,) = lines_by_variant([row(), wide])
    console = Console(width=80)
    with console.capture() as capture:
        console.print(terminal_table(variant))
    shown = capture.get()
    assert "…" not in shown
    assert {"plain", "cores", "12.3", "10", "GB"} <= set(shown.split())


def test_the_document_has_the_fastest_of_each_group_and_lists_faster_peers():
    peers = [row("torch eager", samples=times(2e-3, seed=1)), row("torch.func", "vmap", samples=times(3e-3))]
    missing = row("Haiku", samples=(), problem="no")
    shown = report(row(), missing, *peers, row("plain JAX", samples=times(5e-4)))
    machine, _, head, _, line, _, means, _, intro, _, faster = shown.splitlines()
    assert machine == "Measured on 2 cores of Some CPU: Python 3.11, jax 1; commit 0123456."
    assert head.startswith("|  | nnjax | limit / nnjax | bottleneck | JAX by hand | JAX libraries | PyTorch |")
    _, title, _, share, bottleneck, plain, libraries, torch, *_ = [cell.strip() for cell in line.split("|")]
    assert title == "small: 64-32-10"
    assert 0.48 < float(share) < 0.52
    assert (bottleneck, plain, libraries) == ("", "0.50 plain JAX, fast", "")
    assert re.fullmatch(r"(1\.9|2\.0)\d torch eager, fast", torch)
    assert re.search(r"the fastest peer takes 0\.(49|50|51) × nnjax's time", means)
    assert re.search(r"with a limit it takes 0\.(49|50|51) × nnjax's time and (0\.9\d|1\.0\d) × the limit", means)
    assert intro.startswith("Peers that take less than 0.95 of nnjax's time")
    assert re.fullmatch(r"- small: 64-32-10: plain JAX, fast, 0\.50 \[0\.\d\d, 0\.\d\d\]", faster)
    assert "Peers that take less" not in report(row(), row("stax", samples=times(1.1e-3)))


def test_the_document_says_how_far_two_processes_of_ours_differ():
    slow, peer = row(form="naive", samples=times(2e-3)), row("plain JAX", samples=times(5e-4))
    again = row(AGAIN, "naive", samples=times(1.5e-3, seed=1))  # compared with the same form, not with the fastest
    shown = report(row(), slow, again, peer)
    assert re.search(r"on 9 of 10 lines, two processes of nnjax differ by at most a factor of 1\.3\d", shown)
    assert re.search(r"plain JAX, fast, 0\.(49|50|51) \[.*\]; nnjax again 0\.7\d$", shown)


def test_further_results_are_shown_with_the_time_to_compile():
    accuracy = row(case="accuracy", variant="to 98 %", unit="run", figures={"runs": 11.0, "success": 10 / 11})
    expected = r"accuracy: to 98 %: nnjax, fast: runs 11, success 0\.9091; (1|0\.99\d|1\.0\d) ms for a run, 501 ms with"
    (line,) = figure_lines([accuracy, accuracy._replace(peer=AGAIN), row()])
    assert re.match(expected, line)
    assert f"- {line}\n" in report(accuracy, row("stax", case="accuracy", variant="to 98 %", samples=times(5e-4)))


def test_peers_that_are_faster_only_with_compilation_are_listed():
    accuracy = row(case="accuracy", variant="to 98 %", figures={"runs": 11.0})
    peers = [accuracy._replace(peer=name, samples=times(t), stages={}) for name, t in (("stax", 0.2), ("Haiku", 0.7))]
    shown = report(accuracy, accuracy._replace(peer=AGAIN, stages={}), *peers)
    assert "- accuracy: to 98 %, with compilation: stax, fast, 0.40" in shown
    assert "with compilation: Haiku" not in shown


def test_compilation_in_the_first_call_counts_against_ours_only():
    ours = row(case="search", variant="81 trials", stages={"first": 3.0}, figures={"loss": 0.1})
    peer = ours._replace(peer="stax", samples=times(1.0))
    assert [first_run(r) for r in (ours, peer)] == [3.0, pytest.approx(1.0, rel=0.02)]
    assert "81 trials, with compilation: stax, fast, 0.33" in report(ours, peer)


def test_from_how_many_trials_on_a_search_is_faster():
    """By hand: ours takes 3 s + 0.01 s per trial; a peer 0.03 s (equal at 150 trials), and another one 0.005 s."""
    assert [break_even(100, 1.0, 3.0, peer) for peer in (3.0, 4.0, 1.0, 0.5)] == [151, 101, None, None]
    assert break_even(100, 1.0, 0.0, 3.0) == 1
    ours = row(case="search", variant="100 trials, digits", samples=[1.0] * 9, stages={"first": 4.0})
    slow = ours._replace(form="slow", samples=[2.0] * 9, stages={"first": 2.5})  # compiles faster: 51 trials
    peers = [ours._replace(peer=name, samples=[t] * 9, stages={}) for name, t in (("stax", 3.0), ("Haiku", 0.5))]
    expected = "search: 100 trials, digits: with compilation, nnjax is faster from this number of trials on: "
    assert list(break_even_lines([ours, *peers])) == [f"{expected}151 (stax, fast), never (Haiku, fast)"]
    assert list(break_even_lines([ours, slow, *peers])) == [f"{expected}51 (stax, fast), never (Haiku, fast)"]
    assert f"- {expected}151" in report(ours, *peers)
    assert not list(break_even_lines([ours, row(), row("stax")]))


def test_a_section_is_replaced_between_its_markers():
    begin, end = markers("one")
    assert replace_section(f"a\n{begin}\nold\n{end}\nb", "one", "new") == f"a\n{begin}\n\nnew\n\n{end}\nb"
    with pytest.raises(ValueError, match="no section between"):
        replace_section(f"{begin}\n", "one", "new")


MACHINE = [
    row("limit", "measured", case="calibrate", variant="GEMM float32, 2048", flops=10**9, samples=times(1e-2)),
    row("limit", "measured", case="calibrate", variant="copy, 256 MB", bytes=10**8, samples=times(1e-2)),
]


@pytest.mark.parametrize(
    ("flops", "bytes_", "expected"),
    [(9 * 10**7, 10**4, "arithmetic"), (10**6, 9 * 10**6, "memory"), (10**6, 10**4, "small products")],
)
def test_the_bottleneck_explains_half_of_the_time(flops, bytes_, expected):
    measured = row(flops=flops, bytes=bytes_, limit=6e-4)
    rates = calibrated_rates(MACHINE)
    assert 0.95e11 < rates.flops < 1.05e11
    assert 0.95e10 < rates.bytes < 1.05e10
    assert find_bottleneck(measured, rates).name == expected
    assert [line.rpartition(": ")[2] for line in bottleneck_lines([*MACHINE, measured])] == [expected]
    assert f"| {expected} |" in report(*MACHINE, measured)
    assert not list(bottleneck_lines([measured]))  # unknown without calibration
    small = row(flops=10**6, bytes=10**4, limit=None)
    assert {find_bottleneck(r, rates).name for r in (small, small._replace(limit=4e-4))} == {"overhead"}


def test_pictures_are_drawn_of_what_was_measured(tmp_path):
    ensembles = [row(case="ensemble", variant=f"{n} × 64-64-64-10, shared data") for n in (1, 8)]
    depths = [row(case="depth", variant=f"{n} blocks") for n in (10, 100)]
    rows = (*MACHINE, *ensembles, *depths, row(), row("torch eager"))
    paths = draw_pictures(Record(FINGERPRINT, rows), tmp_path)
    assert {path.stem for path in paths} == {"compile", "depth", "ensemble", "ratios", "roofline"}
    assert all(path.stat().st_size > 10_000 for path in paths)
    page = web_page(Record(FINGERPRINT, rows), paths).decode()
    assert page.count("<img ") == page.count("data:image/png;base64,") == 5
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    for text in ("2 cores of Some CPU", " GFLOP/s", "64-32-10", "1.00 torch eager, fast", "1000 units"):
        assert text in page, text
    single = (row(samples=(), problem="no"), *(r._replace(stages={}) for r in (ensembles[0], depths[0])))
    assert draw_pictures(Record(FINGERPRINT, single), tmp_path) == []  # one point makes no line


def test_the_size_that_doubles_the_time_of_an_ensemble():
    def members(n, seconds, **fields):  # of a member's step
        variant = f"{n} × 64-64-64-10, shared data"
        return row(case="ensemble", variant=variant, samples=(seconds,) * 3, **fields)

    flat = [members(1, 1e-3), members(4, 2.5e-4), members(16, 1.25e-4), members(64, 1.25e-4)]  # 1, 1, 2, 8 ms
    free = [members(1, 1e-3, peer="plain JAX"), members(64, 1e-3 / 64, peer="plain JAX")]
    alone = [members(8, 1e-3, form="on all cores")]
    sizes = doubling_sizes([*flat, *free, *alone])
    assert [(size.label, size.single) for size in sizes] == [("plain JAX, fast", 1e-3), ("nnjax, fast", 1e-3)]
    assert sizes[0].members == float("inf")
    assert sizes[1].members == pytest.approx(16)


def test_compilation_is_compared_with_work():
    slow, quick = row(stages={"trace": 0.5, "compile": 1.5}), row(case="tiny", stages={"compile": 0.1})
    times = compile_times(lines_by_variant([slow, quick, row(case="calibrate"), row(case="depth", stages={})]))
    assert [time.title for time in times] == ["tiny: 64-32-10", "small: 64-32-10"]
    assert times[1].units == pytest.approx(2000, rel=0.02)


def test_the_ratio_plot_shows_the_fastest_form_of_each_peer():
    slow, fast = row("stax", "naive", times(3e-3)), row("stax", samples=times(2e-3))
    (variant,) = lines_by_variant([row(), row(AGAIN), slow, fast, row("limit", "rows")])
    assert peer_ratios(variant) == {"stax": median_ratio(fast.samples, row().samples)}


def test_compare_exits_with_1_only_if_something_is_slower(tmp_path):
    machine = {"processor": "one", "cores": 2}
    old, new, same, few = (tmp_path / f"{name}.json" for name in ("old", "new", "same", "few"))
    save_record(old, Record(machine, (row(), row(AGAIN))))
    save_record(new, Record(machine, (row(samples=times(2e-3)), row(AGAIN, samples=times(2e-3, seed=1)))))
    save_record(same, Record(machine, (row(samples=times(1e-3, seed=2)), row(AGAIN, samples=times(1e-3, seed=3)))))
    slower = CliRunner().invoke(app, ["compare", str(old), str(new)])
    assert slower.exit_code == 1
    assert re.search(r"SLOWER +2\.\d\d ×  small: 64-32-10: nnjax, fast", slower.output)
    assert CliRunner().invoke(app, ["compare", str(old), str(same)]).exit_code == 0
    software = {"packages": {"jax": "1"}, "variables": {"XLA_FLAGS": "--more"}}
    few_rows = (row(samples=times(1e-3, n=4)), row(AGAIN, samples=times(1e-3, n=4)))
    save_record(few, Record(machine | software, few_rows))
    output = CliRunner().invoke(app, ["compare", str(old), str(few)]).output
    assert "the software differs, which may affect peers too: XLA_FLAGS: None and --more; jax: None and 1" in output
    assert "1 rows have fewer than 5 rounds" in output
    assert load_record(old).rows[0].peer == "ours"


PEERS = ("stax", "Haiku", "Equinox")


def record_of(ours, machine=1.0, last_peer=1.0, peers=PEERS, seed=0):
    """Return a run in which all take 1 ms × `machine`, ours `ours` times that, and the last peer `last_peer` times."""
    factors = {"ours": ours, AGAIN: ours} | dict.fromkeys(peers, 1.0) | {peers[-1]: last_peer}
    samples = {peer: times(1e-3 * machine * factor, seed + i) for i, (peer, factor) in enumerate(factors.items())}
    return Record({"processor": "one"}, tuple(row(peer, samples=s) for peer, s in samples.items()))


@pytest.mark.parametrize(
    ("new", "slower"),
    [
        (record_of(1.0, machine=1.5, seed=9), []),  # the machine, and so all of them
        (record_of(1.3, machine=1.5, seed=9), ["ours"]),
        (record_of(1.3, machine=0.5, seed=9), ["ours"]),
        (record_of(1.3, last_peer=1.5, seed=9), ["Equinox"]),  # ours is within the noise of unchanged programs
        (record_of(1.5, machine=1.5, seed=9, peers=PEERS[:1]), ["ours", "stax"]),  # one peer gives no drift
    ],
)
def test_the_drift_of_the_peers_is_divided_out(new, slower):
    changes = find_changes(record_of(1.0), new)
    assert sorted(change.new.peer for change in changes if change.slower) == sorted(slower)
    assert all(change.drift == pytest.approx(1.5, rel=0.1) or len(slower) != 0 for change in changes)
    assert len(changes) == len(new.rows) - 1  # the second process of ours is not compared


def test_only_what_became_slower_is_reported():
    old = Record({}, (row(), row("torch"), row(AGAIN, samples=times(1e-3, seed=5))))
    new_rows = (
        row(samples=times(1.3e-3, 1)),
        row("torch", samples=times(1.01e-3, 2)),
        row(AGAIN, samples=times(1.3e-3, 3)),
    )
    changes = find_changes(old, Record({}, new_rows))
    assert [(change.new.peer, change.slower) for change in changes] == [("ours", True), ("torch", False)]
    assert changes[0].factor == pytest.approx(1.3, rel=0.05)


def test_a_noisy_pair_excuses_a_difference():
    noisy = Record({}, (row(), row(AGAIN, samples=times(1.5e-3, seed=5))))
    assert not find_changes(noisy, Record({}, (row(samples=times(1.3e-3, seed=1)),)))[0].slower


def test_different_machines_are_not_compared():
    a, b = Record({"processor": "A"}, (row(),)), Record({"processor": "B"}, (row(),))
    with pytest.raises(ValueError, match="processor: A and B"):
        find_changes(a, b)
    assert find_changes(a, b, force=True)


def test_runs_need_a_case_in_common():
    with pytest.raises(ValueError, match="no measured row in common"):
        find_changes(Record({}, (row(),)), Record({}, (row(case="other"),)))
