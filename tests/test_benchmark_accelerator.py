"""The settings that are measured on accelerators: each gives its lines, and the defaults are restored."""

import jax

from benchmarks import accelerator
from nnjax.train.engine import ensemble


def test_each_setting_gives_a_line(monkeypatch):
    monkeypatch.setattr(accelerator, "seconds", lambda function, repeats=1: (function(), 1.0)[1])
    before = ensemble.ACCELERATOR_BLOCK
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # JAX's defaults
        lines = [*accelerator.fit_against_scan(1), *accelerator.attention(1)]
    assert [line.partition(":")[0] for line in lines] == [
        "64-32-10, batch 32, scan",
        "64-32-10, batch 32, fit in blocks of 4",
        f"64-32-10, batch 32, fit in blocks of {before}",
        "64-32-10, batch 32, fit in blocks of 64",
        "multi_head_attention, 128 positions, with projections",
        "dot_product_attention, xla, without projections",
        "dot_product_attention, cudnn",
    ]
    assert before == ensemble.ACCELERATOR_BLOCK
