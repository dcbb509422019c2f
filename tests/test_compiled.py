"""The programs of an ensemble end with it."""

import gc
import weakref

import jax.numpy as jnp
import pytest

from nnjax.train.engine import device_loop
from nnjax.train.engine.compiled import ENSEMBLES, compiled


class Factor:
    """A static argument, which is compared by identity."""

    def __init__(self, value):
        self.value = value


@compiled(static=("power",), donated=("x",))
def scaled(factor, x, *, power=1):
    """Return x scaled by a factor."""
    return factor.value**power * x


def test_only_the_programs_that_were_used_last_are_kept():
    factors = []
    for i in range(ENSEMBLES + 3):
        factor = Factor(i)
        assert scaled(factor, jnp.float32(2.0)) == 2 * i
        factors.append(weakref.ref(factor))
    del factor
    gc.collect()
    assert [factor() is not None for factor in factors] == [False] * 3 + [True] * ENSEMBLES


def test_static_and_donated_arguments():
    x = jnp.ones(1000)
    assert scaled(Factor(3), x, power=2)[0] == 9
    assert x.is_deleted()
    assert scaled.__name__ == "scaled"


@pytest.mark.parametrize("name", ["initial_states", "train_chunk", "validate"])
def test_all_programs_of_fit_are_forgotten(name):
    program = getattr(device_loop, name)
    assert program.__wrapped__.__name__ == name  # a plain `jax.jit` keeps thousands
    assert not hasattr(program, "lower")
