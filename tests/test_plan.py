"""What a plan says, against counts by hand and against the compiler."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import data, losses, nn, optim, train
from nnjax.train.engine.ensemble import Ensemble
from nnjax.train.plan import _program_bytes, _size
from nnjax.types import Data

B = 4
DATA = Data(jnp.zeros((20, 3)), jnp.arange(20) % 2)
RUN = train.Run(nn.mlp([5], 2), losses.cross_entropy, optim.adam(1e-3), batch_size=B)
STATE = 4 + 32 * 4 + (4 + 2 * 32 * 4) + 8  # step, parameters, Adam's count and moments, key
CARRIED = STATE + 4 + 1 + (4 + 4 + 32 * 4 + 4)  # diverged, stopped; the best network: score, step, parameters, waited
MATMUL = 2 * B * (3 * 5 + 5 * 2) + 2 * B * (3 * 5 + 5 * 2) + 2 * B * 5 * 2  # forward, by weights, by hidden units
MB = 10**6


@pytest.fixture(scope="module")
def found():
    return train.plan(RUN, DATA, members=6, memory=MB, measure=False)


def test_counts_by_hand(found):
    assert found.params == 3 * 5 + 5 + 5 * 2 + 2 == 32
    assert found.state_bytes == STATE
    assert found.data_bytes == 20 * 3 * 4 + 20 * 4
    assert found.cost.matmul == MATMUL
    assert found.cost.unknown == 0
    assert found.epoch_steps == 5
    assert (found.members, found.memory, found.group, found.seconds) == (6, MB, None, {})


@pytest.mark.parametrize("strategy", ["map", "vmap"])
def test_bytes_of_members_are_those_of_the_compiler(found, strategy):
    """For numbers of members that the law was not fitted to. A plan also counts a copy for saving."""
    for members in (16, 24, 100):
        compiler = _program_bytes(Ensemble(RUN, members, strategy), jax.random.key(0), DATA)
        law = found.fixed_bytes[strategy] + members * (found.member_bytes[strategy] - CARRIED)
        assert law == pytest.approx(compiler, rel=0.1)
    assert found.fixed_bytes[strategy] >= found.data_bytes
    assert found.member_bytes[strategy] >= 2 * CARRIED


def test_only_strategies_that_were_measured_have_a_speed(found):
    """As if only one of them fitted into memory."""
    text = str(found._replace(seconds={"map": 2e-6}))
    assert "map         " in text
    assert text.count("2.0 µs for a member's step") == 1
    assert "faster" not in text


def test_groups_fit_into_memory(found):
    for strategy, each in found.member_bytes.items():
        fixed = found.fixed_bytes[strategy]
        memory = fixed + 7 * each // 2
        p = train.plan(RUN, DATA, members=10_000, memory=memory, measure=False)
        assert p.fit[strategy] == 3
        assert p.group == max(p.fit.values()) == p.fit[p.strategy]
        assert f"members     10,000 in groups of {p.group}" in str(p)
    assert train.plan(RUN, DATA, members=p.group, memory=memory, measure=False).group is None


def test_one_member_too_big_is_an_error(found):
    least = min(found.fixed_bytes.values()) + min(found.member_bytes.values())
    with pytest.raises(ValueError, match=rf"not one member fits: it needs {_size(least)}, but only 900 B are free"):
        train.plan(RUN, DATA, memory=900, measure=False)


def test_wrong_members_are_named():
    with pytest.raises(ValueError, match="plan: members must be ≥ 1, got 0"):
        train.plan(RUN, DATA, members=0)


def test_members_spread_over_devices_fit_on_each(found):
    mesh = jax.make_mesh((4, 2), ("members", "batch"))
    p = train.plan(RUN, DATA, members=10**6, mesh=mesh, memory=MB, measure=False)
    assert p.fit == {strategy: 4 * n for strategy, n in found.fit.items()}
    assert p.devices == "8 × cpu, members over 4, batch over 2"
    assert "devices     8 × cpu, members over 4, batch over 2, 1 MB free on each" in str(p)


def test_text(found):
    cost = found.cost.total
    lines = {line[:12].strip(): line[12:] for line in str(found).splitlines()}
    assert lines["parameters"] == "32 each"
    assert lines["state"] == f"{STATE} B each"
    assert lines["data"] == "320 B"
    assert lines["operations"] == f"{cost:,} floating-point per step, {MATMUL} of them in matrix products"
    assert lines["epoch"] == "5.0 steps"
    assert lines["devices"] == "1 × cpu, 1 MB free on each"
    assert lines["vmap"] == f"{_size(found.member_bytes['vmap'])} each, {found.fit['vmap']} members fit"
    assert lines["members"] == "6 all at the same time"
    assert list(lines) == ["parameters", "state", "data", "operations", "epoch", "devices", "map", "vmap", "members"]


def test_strategies_are_measured():
    p = train.plan(RUN, DATA, members=3)
    assert p.seconds.keys() == {"map", "vmap"}
    assert all(1e-8 < seconds < 1 for seconds in p.seconds.values())
    assert p.strategy == min(p.seconds, key=p.seconds.__getitem__)
    assert f"strategy {p.strategy} (the faster one)" in str(p)
    assert p.memory > 10 * MB
    assert p.group is None


def test_a_source_takes_no_memory():
    x = np.zeros((1000, 3), np.float32)
    p = train.plan(RUN, data.source(x, np.arange(1000) % 2), memory=MB, measure=False)
    assert p.data_bytes == 1000 * (12 + 4)
    assert p.epoch_steps == 250


def test_full_batch():
    p = train.plan(replace(RUN, batch_size=None), DATA, memory=MB, measure=False)
    assert p.cost.matmul == 5 * MATMUL
    assert p.epoch_steps == 1


def test_data_are_converted_as_in_fit():
    x, y = np.zeros((20, 3), np.uint8), np.arange(20) % 2
    assert train.plan(RUN, (x, y), measure=False).data_bytes == 20 * (3 * 4 + 4)


def test_a_wrong_mesh_is_named():
    mesh = jax.make_mesh((2,), ("foo",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match="foo"):
        train.plan(RUN, (np.zeros((20, 3), np.float32), np.arange(20) % 2), mesh=mesh, measure=False)


def test_sizes():
    assert [_size(n) for n in (999, 1000, 12_345, 10**9, 1.5e12)] == ["999 B", "1 KB", "12.3 KB", "1 GB", "1,500 GB"]
