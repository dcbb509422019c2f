"""Draw the pictures of a run, and write them as PNG files."""

from pathlib import Path

from benchmarks.harness.record import Record
from benchmarks.report.compile_plot import draw_compile_times
from benchmarks.report.document import machine_name
from benchmarks.report.drawing import DPI, STYLE
from benchmarks.report.line_plots import draw_depth, draw_ensemble
from benchmarks.report.ratio_plot import draw_ratios
from benchmarks.report.roofline_plot import draw_roofline
from benchmarks.report.variants import lines_by_variant


def draw_pictures(record: Record, folder: Path) -> list[Path]:
    """Write all pictures for which the run has results, and return their paths."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    rows, packages = record.rows, record.fingerprint["packages"]
    variants = lines_by_variant(rows)
    versions = [f"{name} {packages[name]}" for name in ("jax", "torch") if packages.get(name)]
    machine = ", ".join([machine_name(record.fingerprint), *versions])
    paths = []
    with plt.rc_context(STYLE):
        figures = {
            "roofline": draw_roofline(rows, machine),
            "ratios": draw_ratios(variants, machine),
            "ensemble": draw_ensemble(rows, machine),
            "depth": draw_depth(rows, machine),
            "compile": draw_compile_times(variants, machine),
        }
        for name, figure in figures.items():
            if figure is not None:
                paths.append(folder / f"{name}.png")
                figure.savefig(paths[-1], dpi=DPI)
                plt.close(figure)
    return paths
