"""What every layer must satisfy: each property is one test over the table of layers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAYERS, block, over
from jax.test_util import check_grads

from nnjax import nn

key = jax.random.key(7)


def example(case, dtype=jnp.float32, batch=None):
    """An input of the case; equal numbers in every dtype."""
    rng = np.random.default_rng(1)
    shape = case.shape if batch is None else (batch, *case.shape[1:])
    return jnp.asarray(rng.integers(0, 5, shape), jnp.int32) if case.integers else jnp.asarray(rng.normal(size=shape), dtype)


def spec(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def moved(tree, salt=0):
    """Parameters or statistics that are not special: initial ones hold zeros and ones, which hide mistakes."""
    leaves, treedef = jax.tree.flatten(tree)
    rng = np.random.default_rng(salt)
    noise = [jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(treedef, [leaf + n for leaf, n in zip(leaves, noise, strict=True)])


def started(case, dtype=jnp.float32):
    """(params, state, x), with parameters and statistics moved off their start."""
    x = example(case, dtype)
    return *moved(case.layer.init(key, x)), x


def close(a, b, rtol=2e-5):
    chex.assert_trees_all_equal_shapes_and_dtypes(a, b)
    chex.assert_trees_all_close(a, b, rtol=rtol, atol=rtol)


def differ(a, b):
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@over(LAYERS)
def test_init_is_a_function_of_the_key_and_of_shape_and_dtype(case):
    x = example(case)
    one = case.layer.init(key, x)
    chex.assert_trees_all_equal(one, case.layer.init(key, x))
    chex.assert_trees_all_equal(one, case.layer.init(key, spec(x)))
    chex.assert_trees_all_equal(one, case.layer.init(key, jnp.zeros_like(x)))
    chex.assert_trees_all_equal(one, case.layer.init(jax.random.key_data(key), x))  # a legacy uint32 key
    assert len(one) == 2


@over(LAYERS)
def test_no_two_parameters_share_their_random_numbers(case):
    with jax.enable_x64(True):
        params, _ = case.layer.init(key, example(case, jnp.float64))
        other, _ = case.layer.init(jax.random.key(8), example(case, jnp.float64))
    drawn = [np.ravel(leaf) for leaf in jax.tree.leaves(params) if leaf.size > 1 and np.ptp(leaf) > 0]
    values = np.concatenate([np.zeros(1), *drawn])
    others = np.concatenate([np.zeros(0), *(np.ravel(leaf) for leaf in jax.tree.leaves(other))])
    assert len(np.unique(values)) == len(values)
    assert not np.intersect1d(values[1:], others).size


@over(LAYERS)
def test_jit_equals_eager(case):
    params, state, x = started(case)
    for train in (False, True):
        apply = lambda *args: case.layer.apply(*args, train=train, key=key)  # noqa: B023, E731
        close(jax.jit(apply)(params, state, x), apply(params, state, x))
    close(jax.jit(case.layer.init)(key, x), case.layer.init(key, x))


@over(LAYERS)
def test_vmap_over_keys_equals_loop(case):
    x = example(case)
    keys = jax.random.split(key, 3)

    def member(k):
        params, state = case.layer.init(k, x)
        return params, *case.layer.apply(params, state, x, train=True, key=k)

    many = jax.vmap(member)(keys)
    for i in range(3):
        close(jax.tree.map(lambda leaf: leaf[i], many), member(keys[i]))  # noqa: B023


@over([case for case in LAYERS if case.follows_dtype])
def test_gradients_equal_finite_differences(case):
    with jax.enable_x64(True):
        params, state, x = started(case, jnp.float64)
        for train in (False, True):

            def f(params, floating):
                return case.layer.apply(params, state, x if case.integers else floating, train=train, key=key)[0]  # noqa: B023

            check_grads(f, (params, () if case.integers else x), order=1, atol=1e-6, rtol=1e-6)


@over([case for case in LAYERS if case.follows_dtype])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_dtype_is_kept(case, dtype):
    with jax.enable_x64(dtype == "float64"):
        x = spec(example(case, dtype))
        params, state = jax.eval_shape(case.layer.init, key, x)
        want = jnp.dtype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.zeros(()).dtype
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} <= {want}
        assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= {jnp.promote_types(want, jnp.float32)}
        for train in (False, True):
            y, new = jax.eval_shape(lambda p, s, x: case.layer.apply(p, s, x, train=train, key=key), params, state, x)  # noqa: B023
            assert y.dtype == want
            assert jax.tree.map(spec, new) == jax.tree.map(spec, state)


@over([case for case in LAYERS if case.follows_dtype])
def test_bfloat16_computes_the_same_up_to_its_rounding(case):
    params, state, x = started(case)
    y, _ = case.layer.apply(params, state, x, train=False)
    halved = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    z, _ = case.layer.apply(halved, state, example(case, jnp.bfloat16), train=False)
    np.testing.assert_allclose(z.astype(jnp.float32), y, atol=0.05 * (1 + float(jnp.abs(y).max())))


@over(LAYERS)
def test_rows_of_the_batch_do_not_see_each_other_in_prediction(case):
    params, state, x = started(case)
    y, _ = case.layer.apply(params, state, x, train=False)
    assert y.shape[0] == x.shape[0]
    row, _ = case.layer.apply(params, state, x[1:2], train=False)
    assert row.shape == (1, *y.shape[1:])
    close(row, y[1:2], rtol=2e-5 if case.follows_dtype else 1e-2)


@over(LAYERS)
def test_prediction_draws_nothing_and_changes_no_state(case):
    params, state, x = started(case)
    y, new = case.layer.apply(params, state, x, train=False)
    chex.assert_trees_all_equal((y, new), case.layer.apply(params, state, x, train=False, key=key))
    chex.assert_trees_all_equal(new, state)


@over(LAYERS)
def test_training_draws_only_where_it_says(case):
    params, state, x = started(case)
    y, new = case.layer.apply(params, state, x, train=True, key=key)
    chex.assert_trees_all_equal((y, new), case.layer.apply(params, state, x, train=True, key=key))
    chex.assert_trees_all_equal(
        (y, new), case.layer.apply(params, state, x, train=True, key=jax.random.key_data(key))
    )
    again, _ = case.layer.apply(params, state, x, train=True, key=jax.random.key(1))
    assert differ(y, again) == case.random
    if case.random:
        with pytest.raises(ValueError, match=r"dropout\(0\.5\): train=True draws a mask and needs a key"):
            case.layer.apply(params, state, x, train=True)
    else:
        chex.assert_trees_all_equal((y, new), case.layer.apply(params, state, x, train=True))


@over(LAYERS)
def test_state_keeps_its_form_and_moves_only_in_training(case):
    params, state, x = started(case)
    y, new = case.layer.apply(params, state, x, train=True, key=key)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    types = [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(new)]
    assert types == [(leaf.shape, leaf.dtype, False) for leaf in jax.tree.leaves(state)]
    assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True))
    assert all(not leaf.weak_type for leaf in jax.tree.leaves(case.layer.init(key, x)))


@over(LAYERS)
def test_second_call_traces_nothing(case):
    x = example(case)
    params, state = case.layer.init(key, x)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state, x, key):
        loss = lambda p: (lambda y, s: (jnp.sum(y), s))(*case.layer.apply(p, state, x, train=True, key=key))  # noqa: E731
        grads, state_new = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), state_new

    for i in range(3):
        params, state = step(params, state, x, jax.random.key(i))


@over(LAYERS)
def test_appended_layer_leaves_earlier_parameters_as_they_were(case):
    x = example(case)
    alone = nn.serial(case.layer).init(key, x)
    longer = nn.serial(case.layer, nn.flatten(), nn.dense(2)).init(key, x) if x.ndim > 1 else None
    chex.assert_trees_all_equal(alone, jax.tree.map(lambda a: a, (longer[0][:1], longer[1][:1])))


@over(LAYERS)
def test_remat_changes_neither_values_nor_gradients(case):
    params, state, x = started(case)

    def loss(params, layer):
        y, new = layer.apply(params, state, x, train=True, key=key)
        return jnp.square(y.astype(jnp.float32)).sum(), (y, new)

    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    close(gradient(params, nn.remat(case.layer)), gradient(params, case.layer))
    program = str(jax.make_jaxpr(jax.grad(lambda p: loss(p, nn.remat(case.layer))[0]))(params))
    assert "remat" in program or "checkpoint" in program or not jax.tree.leaves(params)


@over(LAYERS)
def test_summary_counts_what_init_makes(case):
    x = example(case)
    params, state = case.layer.init(key, x)
    table = nn.summary(case.layer, spec(x))
    assert table.params == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert table.state == sum(leaf.size for leaf in jax.tree.leaves(state))
    outer = [row for row in table.rows if len(row.path) == 1]
    assert sum(row.params for row in outer) in (table.params, 0)
    assert f"{table.params:,}" in str(table).splitlines()[-1]
    assert outer or not isinstance(params, tuple) or not params
