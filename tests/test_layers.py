"""The properties of every layer: each is one test over the table of layers."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from cases import LAYERS, block, directional_derivatives, equations, over, random_like

from nnjax import losses, nn

keys, draws, other_draws = (jax.random.split(jax.random.key(i), 2) for i in (7, 8, 9))
key = keys[0]


def example(case, dtype=jnp.float32, salt=1):
    """Return an input of the case; its numbers are equal in every dtype."""
    rng = np.random.default_rng(salt)
    if case.integers:
        return jnp.asarray(rng.integers(0, 5, case.shape), jnp.int32)
    return jnp.asarray(rng.normal(size=case.shape), dtype)


def spec(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def perturbed(tree):
    """Add noise to initial parameters or statistics, whose zeros and ones would hide mistakes."""
    leaves, treedef = jax.tree.flatten(tree)
    rng = np.random.default_rng(2)
    noise = [jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(treedef, [leaf + n for leaf, n in zip(leaves, noise, strict=True)])


def whole(case):
    """Return one function with all that a layer computes, of the key of `init`, the key of `apply`, and an input."""

    def f(key, draw, x):
        start = case.layer.init(key, x)
        params, state = perturbed(start)
        trained, predicted = (case.layer.apply(params, state, x, train=train, key=draw) for train in (True, False))
        return {"start": start, "trained": trained, "predicted": predicted}

    return f


@functools.cache
def compiled(case):
    """Compile `whole(case)` over two members, once for all tests, because compiling takes most of their time."""
    traces = []

    def counted(*args):
        traces.append(case)
        return whole(case)(*args)

    return jax.jit(jax.vmap(counted, in_axes=(0, 0, None))), traces


def results(case, draws, x):
    """Return the results of each member, in NumPy, where parts of arrays and comparisons compile nothing."""
    both = jax.tree.map(np.asarray, compiled(case)[0](keys, draws, x))
    return [jax.tree.map(lambda leaf: leaf[i, ...], both) for i in range(2)]  # noqa: B023


@functools.cache
def members(case):
    """Return the results of each member for the first example."""
    return results(case, draws, example(case))


@functools.cache
def started(case):
    """Return perturbed parameters and state for the first key, and an input."""
    return *perturbed(members(case)[0]["start"]), example(case)


def close(a, b, rtol=2e-5):
    chex.assert_trees_all_equal_shapes_and_dtypes(a, b)
    chex.assert_trees_all_close(a, b, rtol=rtol, atol=rtol)


def same(a, b):
    chex.assert_trees_all_equal(a, b, strict=True)


def differ(a, b):
    return any(np.any(x != y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@over(LAYERS)
def test_jit_of_vmap_over_keys_equals_eager_loop(case):
    close(members(case)[1], whole(case)(keys[1], draws[1], example(case)), case.rtol)


@over(LAYERS)
def test_second_call_traces_nothing(case):
    many, traces = compiled(case)
    many(keys, draws, example(case))
    before = len(traces)
    for i in range(3):
        many(jax.random.split(jax.random.key(i), 2), draws, example(case, salt=i))
    assert len(traces) == before > 0


@over(LAYERS)
def test_its_gradient_lowers_for_accelerators(case):
    params, state, x = started(case)

    def total(params, x):
        y, _ = case.layer.apply(params, state, x, train=True, key=draws[0])
        return sum(leaf.sum() for leaf in jax.tree.leaves(y))

    traced = jax.jit(jax.grad(total, argnums=(0, 1), allow_int=True)).trace(params, x)
    traced.lower(lowering_platforms=("cuda", "tpu"))  # needs no such device, and fails if an operation has no rule


@over(LAYERS)
def test_init_is_a_function_of_the_key_and_of_shape_and_dtype(case):
    x = example(case)
    start = case.layer.init(key, x)
    batch_of_one = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
    same(start, case.layer.init(jax.random.key_data(key), batch_of_one))  # a legacy uint32 key
    again, _ = results(case, other_draws, example(case, salt=5))
    same(again["start"], members(case)[0]["start"])


@over(LAYERS)
def test_no_two_parameters_share_their_random_numbers(case):
    def drawn(member):
        """Return pairs of neighbouring numbers of every random parameter."""
        leaves = [
            np.ravel(leaf)
            for leaf in jax.tree.leaves(member["start"][0])
            if np.ptp(leaf) > 0 and not np.isin(leaf, (0, 1)).all()
        ]
        return np.concatenate([np.zeros(0), *(leaf[:-1] + 1j * leaf[1:] for leaf in leaves)])

    first, second = (drawn(member) for member in members(case))
    assert len(np.unique(first)) == len(first)
    assert not np.intersect1d(first, second).size


@over([case for case in LAYERS if case.follows_dtype])
def test_gradients_equal_finite_differences(case):
    start = started(case)[:2]
    with jax.enable_x64(True):
        x = example(case, jnp.float64)
        params, state = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), start)

        def f(at):
            inputs = x if case.integers else at[1]
            modes = (False, True) if case.trained_gradient else (False,)
            ys = [case.layer.apply(at[0], state, inputs, train=train, key=key)[0] for train in modes]
            return sum(jnp.vdot(random_like(y, 3), y) for y in ys)

        exact, numerical = directional_derivatives(f, (params, () if case.integers else x))
        np.testing.assert_allclose(exact, numerical, rtol=1e-5, atol=1e-7)


@over([case for case in LAYERS if case.follows_dtype])
def test_dtype_is_kept(case):
    for dtype in ("bfloat16", "float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            out = members(case)[0]
            if dtype != "float32":
                out = jax.eval_shape(whole(case), key, key, spec(example(case, dtype)))
            expected = jnp.dtype("float32" if case.integers and dtype == "bfloat16" else dtype)
            params, state = out["start"]
            assert {leaf.dtype for leaf in jax.tree.leaves(params)} <= {expected}
            wide = {np.promote_types(expected, np.float32)}
            assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= (wide if case.moves else wide | {expected})
            for y, new in (out["trained"], out["predicted"]):
                assert y.dtype == expected
                assert jax.tree.map(spec, new) == jax.tree.map(spec, state)


@over(LAYERS)
def test_batch_axis_is_first_and_of_any_size(case):
    params, state, x = started(case)
    for size in (1, 7):
        batch = jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
        y, _ = jax.eval_shape(lambda x: case.layer.apply(params, state, x, train=False), batch)
        assert y.shape[0] == size


@over(LAYERS)
def test_rows_are_independent_in_prediction(case):
    x = example(case)
    others = np.array(example(case, salt=5))
    others[0] = x[0]
    other, _ = results(case, draws, jnp.asarray(others))
    close(other["predicted"][0][0], members(case)[0]["predicted"][0][0])


@over(LAYERS)
def test_prediction_draws_nothing_needs_no_key_and_changes_no_state(case):
    params, state, x = started(case)
    again, _ = results(case, other_draws, x)
    before, _ = members(case)
    same(again["predicted"], before["predicted"])
    same(before["predicted"][1], state)
    y, _ = jax.eval_shape(lambda x: case.layer.apply(params, state, x, train=False), x)
    assert spec(y) == spec(before["predicted"][0])


@over(LAYERS)
def test_training_draws_only_if_random(case):
    params, state, x = started(case)
    again, _ = results(case, other_draws, x)
    before, _ = members(case)
    assert differ(again["trained"], before["trained"]) == case.random

    def without_key(x):
        return case.layer.apply(params, state, x, train=True)[0]

    if case.random:
        with pytest.raises(ValueError, match=r"(dropout|drop_path)\(0\.5\): train=True draws a mask and needs a key"):
            without_key(x)
    else:
        assert jax.eval_shape(without_key, x) == spec(before["trained"][0])


@over(LAYERS)
def test_state_keeps_its_form_and_moves_only_in_training(case):
    _, state, _ = started(case)
    out = members(case)[0]
    for _, new in (out["trained"], out["predicted"]):
        assert jax.tree.structure(new) == jax.tree.structure(state)
        types = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(new)]
        assert types == [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]
    before, after = jax.tree.leaves(state), jax.tree.leaves(out["trained"][1])
    assert all(np.any(a != b) == case.moves for a, b in zip(before, after, strict=True))
    both = compiled(case)[0](keys, draws, example(case))
    typed = both["start"], both["trained"][1], both["predicted"][1]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(typed))


@over(LAYERS)
def test_summary_counts_what_init_makes(case):
    params, state, x = started(case)
    table = nn.summary(case.layer, spec(x))
    assert table.params == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert table.state == sum(leaf.size for leaf in jax.tree.leaves(state))
    assert f"{table.params:,}" in str(table).splitlines()[-1]


# Properties of single layers and combinators -------------------------------------------------------------------------


def _probe_init(key, x, /):
    return jax.random.key_data(key), ()


def _probe_apply(params, state, x, /, *, train, key=None):
    return x, jax.random.key_data(key) if train else state


probe = nn.Layer("probe", _probe_init, _probe_apply)  # returns the keys that it receives
x43 = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)


def keys_of(layer):
    """Return the keys that the probes inside a layer receive in `init` and in training, as lists of words."""
    params, state = layer.init(key, x43)
    _, seen = layer.apply(params, state, x43, train=True, key=key)
    same(params, seen)
    return [word for leaf in jax.tree.leaves(params) for word in leaf.reshape(-1, 2).tolist()]


@pytest.mark.parametrize(
    "combine",
    [
        nn.serial,
        nn.residual,
        nn.concat,
        lambda *layers: nn.branch(*layers, merge=lambda ys: ys[0]),
        lambda *layers: nn.remat(nn.serial(*layers)),
        lambda *layers: nn.with_precision(nn.serial(*layers)),
        lambda *layers: nn.serial(nn.serial(*layers), nn.serial(probe)),
        lambda *layers: nn.repeat(len(layers), layers[0]),
    ],
    ids=["serial", "residual", "concat", "branch", "remat", "with_precision", "nested", "repeat"],
)
def test_every_position_has_a_key_of_its_own_and_appending_changes_none(combine):
    three, four = keys_of(combine(*[probe] * 3)), keys_of(combine(*[probe] * 4))
    assert len({tuple(word) for word in four}) == len(four)
    assert len(four) == len(three) + 1
    assert four[:3] == three[:3]


def test_appended_layer_leaves_earlier_parameters_as_they_were():
    before, after = nn.serial(block, nn.dense(2)), nn.serial(block, nn.dense(2), nn.layer_norm(), nn.dense(5))
    same(before.init(key, x43)[0], after.init(key, x43)[0][:2])


def test_key_of_position_is_fold_in_of_its_number():
    expected = [jax.random.key_data(jax.random.fold_in(key, i)).tolist() for i in range(2)]
    assert keys_of(nn.serial(probe, probe)) == expected
    assert keys_of(nn.repeat(2, probe)) == keys_of(nn.serial(probe, probe))


@pytest.mark.parametrize(
    ("part", "wrap"),
    [
        (block, nn.as_layer),
        (block, nn.remat),
        (nn.serial(nn.dense(3), nn.dropout(0.5)), nn.as_layer),
        (nn.serial(nn.dense(3), nn.dropout(0.5)), nn.remat),
        (nn.serial(nn.dense(3), nn.batch_norm()), nn.as_layer),
    ],
    ids=["residual", "residual, remat", "dropout", "dropout, remat", "batch_norm"],
)
def test_repeat_equals_unrolled_blocks(part, wrap):
    n = 3
    layer = nn.repeat(n, wrap(part))
    params, state = perturbed(layer.init(key, x43))
    loops = nn.serial(*[part] * n)
    ps, ss = ([jax.tree.map(lambda leaf: leaf[i], tree) for i in range(n)] for tree in (params, state))  # noqa: B023

    def value(layer):
        def f(p, s):
            y, new = layer.apply(p, s, x43, train=True, key=key)
            return jnp.square(y).sum(), (y, new)

        return jax.jit(jax.value_and_grad(f, has_aux=True))

    (_, (y, new)), grads = value(layer)(params, state)
    (_, (z, news)), parts = value(loops)(ps, ss)
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    close((y, new, grads), (z, stack(news), stack(parts)), 1e-4)
    close(layer.init(key, x43)[0], stack(loops.init(key, x43)[0]))


def test_remat_changes_neither_values_nor_gradients_but_recomputes():
    net = nn.serial(nn.dense(8), nn.batch_norm(), jnp.tanh, nn.dropout(0.5), nn.repeat(2, nn.dense(8)), nn.dense(1))
    params, state = perturbed(net.init(key, x43))

    def loss(params, layer):
        y, new = layer.apply(params, state, x43, train=True, key=key)
        return jnp.square(y).sum(), (y, new)

    close(*(jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(params, layer) for layer in (net, nn.remat(net))))
    tanhs = [str(jax.make_jaxpr(jax.grad(loss, has_aux=True), static_argnums=1)(params, layer)).count(" tanh ")
             for layer in (net, nn.remat(net))]  # fmt: skip
    assert tanhs == [1, 2]


def test_with_precision_keeps_float32_and_computes_in_bfloat16():
    seen = []

    def spy(x):
        seen.append(x.dtype)
        return x

    net = nn.with_precision(nn.serial(nn.dense(3), spy, nn.batch_norm(), spy, nn.dropout(0.5), nn.dense(2), spy))
    params, state = net.init(key, x43)
    seen.clear()

    def loss(params):
        y, new = net.apply(params, state, x43, train=True, key=key)
        return y.sum(), (y, new)

    grads, (y, new) = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert seen == [jnp.bfloat16] * 3
    assert y.dtype == jnp.float32
    for tree in (params, state, new, grads):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype(jnp.float32)}
    exact = nn.with_precision(net, compute=jnp.float32)
    assert exact.apply(params, state, x43, train=False)[0].dtype == jnp.float32


def test_with_precision_is_near_the_exact_layer():
    net = nn.serial(nn.dense(3), nn.batch_norm(), jnp.tanh, nn.dense(2))
    params, state = perturbed(net.init(key, x43))
    exact, _ = net.apply(params, state, x43, train=True)
    y, _ = nn.with_precision(net).apply(params, state, x43, train=True)
    assert 0 < jnp.abs(y - exact).max() < 0.05


@pytest.mark.parametrize(
    ("layer", "shape", "inputs"),
    [
        (nn.dense(100), (1, 50), 50),
        (nn.conv(40, (3, 3)), (1, 8, 8, 20), 3 * 3 * 20),
        (nn.conv(40, (3, 3), groups=4), (1, 8, 8, 20), 3 * 3 * 5),
        (nn.conv(40, 9), (1, 8, 20), 9 * 20),
    ],
    ids=["dense", "conv 2-D", "conv, groups", "conv 1-D"],
)
def test_initial_weights_have_variance_2_over_the_inputs_of_an_output(layer, shape, inputs):
    """A convolution's output sums over its whole window."""
    params, _ = layer.init(key, jnp.zeros(shape))
    np.testing.assert_allclose(params["w"].var() * inputs, 2.0, rtol=0.1)


@pytest.mark.parametrize("layer", [nn.batch_norm(eps=1e-12), nn.layer_norm(eps=1e-12)], ids=lambda layer: layer.name)
def test_variance_is_right_far_from_zero(layer):
    values = np.random.default_rng(0).normal(3000.0, 0.01, 4096)
    x = jnp.asarray(values, jnp.float32).reshape({"batch_norm": (-1, 1), "layer_norm": (1, -1)}[layer.name])
    params, state = layer.init(key, x)
    y, _ = layer.apply(params, state, x, train=True)
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(y, (exact - exact.mean()) / exact.std(), atol=0.05)


def test_batch_norm_running_statistics_follow_their_formula():
    rng, layer = np.random.default_rng(0), nn.batch_norm(decay=0.7)
    params, state = layer.init(key, x43)
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(5):
        x = rng.normal(2.0, 3.0, (6, 3))
        _, state = layer.apply(params, state, jnp.asarray(x, jnp.float32), train=True)
        mean, var = 0.7 * mean + 0.3 * x.mean(0), 0.7 * var + 0.3 * x.var(0, ddof=1)
    np.testing.assert_allclose(state["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(state["var"], var, rtol=1e-5)
    y, _ = layer.apply(params, state, x43, train=False)
    np.testing.assert_allclose(y, (np.asarray(x43) - mean) / np.sqrt(var + 1e-5), rtol=1e-4, atol=1e-5)


def test_batch_norm_before_training_is_almost_the_identity():
    params, state = nn.batch_norm().init(key, x43)
    y, _ = nn.batch_norm().apply(params, state, x43, train=False)
    np.testing.assert_allclose(y, x43, rtol=1e-5)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
    x = jnp.full((100, 100), 2.0)
    y, _ = nn.dropout(rate).apply((), (), x, train=True, key=key)
    assert abs(float((y == 0).mean()) - rate) < 4 * np.sqrt(rate * (1 - rate) / x.size)
    np.testing.assert_allclose(y[y != 0], 2.0 / (1 - rate), rtol=1e-6)


def test_legacy_key_draws_the_same_as_the_typed_one():
    net = nn.serial(nn.dropout(0.5), nn.residual(nn.dropout(0.5)), nn.repeat(2, nn.dropout(0.5)))
    start = net.init(key, x43)
    typed, legacy = (net.apply(*start, x43, train=True, key=k)[0] for k in (key, jax.random.key_data(key)))
    np.testing.assert_array_equal(typed, legacy)


def test_dropout_rate_can_be_swept():
    drop = lambda rate: nn.dropout(rate).apply((), (), x43, train=True, key=key)[0]  # noqa: E731
    many = jax.vmap(drop)(jnp.array([0.0, 0.5, 0.9]))
    np.testing.assert_array_equal(many[0], x43)
    for y, rate in zip(many[1:], (0.5, 0.9), strict=True):
        np.testing.assert_allclose(y, drop(rate), rtol=1e-6)


def test_embedding_outside_its_table_is_nan():
    params, state = nn.embedding(5, 2).init(key, jnp.zeros((1, 4), jnp.int32))
    y, _ = nn.embedding(5, 2).apply(params, state, jnp.array([[0, 4, 5, -1]]), train=False)
    np.testing.assert_array_equal(np.isnan(y).all(-1), [[False, False, True, True]])
    np.testing.assert_array_equal(y[0, :2], params["w"][jnp.array([0, 4])])


def test_thousand_blocks_are_a_program_of_the_size_of_ten():
    def program(depth):
        net = nn.residual_mlp(4, depth, 2, dropout=0.1)
        start = jax.eval_shape(net.init, key, x43)
        apply = lambda p, s, x: net.apply(p, s, x, train=True, key=key)  # noqa: E731
        programs = jax.make_jaxpr(apply)(*start, x43), jax.make_jaxpr(net.init)(key, x43)
        return [len(list(equations(program.jaxpr))) for program in programs]

    assert program(10) == program(1000)
    assert min(program(10)) > 20


def test_residual_mlp_starts_as_the_identity_of_its_blocks():
    shallow, deep = (nn.residual_mlp(4, depth, 2) for depth in (1, 50))
    one, many = (net.apply(*net.init(key, x43), x43, train=False)[0] for net in (shallow, deep))
    np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("activation", [jax.nn.relu, jnp.tanh, jax.nn.selu])
def test_initialisers_keep_the_size_of_activations(activation):
    net = nn.mlp([256] * 6, 64, activation=activation)
    x = jax.random.normal(key, (64, 256))
    y, _ = net.apply(*net.init(key, x), x, train=False)
    assert 0.2 < float(y.std()) < 2.0


def test_softmax_and_heaviside():
    x = np.array([[1e4, 0.0, -1e4], [1.0, 2.0, 3.0]], np.float32)
    np.testing.assert_allclose(nn.softmax(jnp.asarray(x)), scipy.special.softmax(x, -1), rtol=1e-6)
    np.testing.assert_array_equal(nn.softmax(jnp.ones((2, 1))), np.ones((2, 1)))  # one class
    np.testing.assert_array_equal(nn.heaviside(jnp.array([-1.0, 0.0, 1e-30])), [0.0, 0.0, 1.0])


def test_summary_shows_rows_of_nested_layers():
    rows = nn.summary(nn.serial(nn.dense(3), nn.repeat(5, block), nn.residual(nn.dense(3))), jnp.ones((1, 3)))
    table = {row.path: (row.name, row.params) for row in rows.rows}
    assert table[0,] == ("dense(3)", 12)
    assert table[1,][1] == 5 * (6 + 12 + 12)
    assert table[2,] == ("residual", 12)
    assert table[2, 1, 0] == ("dense(3)", 12)
    assert all(row.output == "(1, 3)" for row in rows.rows)


# Errors: (name, call, exception, what its message and notes say) ------------------------------------------------------

ones, two = jnp.ones((4, 3)), jnp.ones((4, 2))
three = nn.serial(nn.dense(8), jax.nn.relu, nn.dense(2))


def applied(layer, x, *, wrong=None, train=False, key=None):
    params, state = layer.init(jax.random.key(0), x)
    return layer.apply(params, state, x if wrong is None else wrong, train=train, key=key)


def rows(n):
    return nn.repeat(n, nn.dense(3))


def _raise(x):
    raise RuntimeError("own error")


ERRORS = [
    ("width", lambda: applied(three, ones, wrong=jnp.ones((4, 5))), ValueError,
     [r"dense\(8\): expected 3 features, got 5 \(x is \(4, 5\)\)",
      r"in serial layer 1 of 3, dense\(8\), input \(4, 5\)"]),
    ("1-D x", lambda: nn.dense(2).init(key, jnp.ones(4)), ValueError,
     [r"\(batch, features\), got \(4,\); use x\[:, None\] for one feature per example, or x\[None\] for one example"]),
    ("integer x", lambda: nn.dense(2).init(key, jnp.ones((4, 3), int)), TypeError,
     ["x must be floating-point, got int32"]),
    ("list as x", lambda: nn.dense(2).init(key, [[1.0]]), TypeError, ["x must be an array", "got list"]),
    ("features 0", lambda: nn.dense(0), ValueError, ["dense: features must be ≥ 1, got 0"]),
    ("features 2.5", lambda: nn.dense(2.5), TypeError, ["features must be an integer, got 2.5"]),
    ("features True", lambda: nn.dense(True), TypeError, ["features must be an integer, got True"]),
    ("conv features", lambda: nn.conv(0, 3), ValueError, ["conv: features must be ≥ 1"]),
    ("conv kernel_size", lambda: nn.conv(2, (3, 0)), ValueError, ["kernel_size must be ≥ 1, got 0"]),
    ("conv strides", lambda: nn.conv(2, 3, strides=0), ValueError, ["strides must be ≥ 1, got 0"]),
    ("conv dilation", lambda: nn.conv(2, 3, dilation=(1, 0)), ValueError, ["dilation must be ≥ 1, got 0"]),
    ("conv padding", lambda: nn.conv(2, 3, padding="same"), ValueError,
     ["unknown padding 'same'; known names are SAME, VALID"]),
    ("conv padding < 0", lambda: nn.conv(2, 3, padding=((-1, 0),)), ValueError, [r"must be \(before, after\)"]),
    ("conv padding rank", lambda: applied(nn.conv(2, 3, padding=((1, 1),)), jnp.ones((4, 5, 5, 3))), ValueError,
     [r"padding \(\(1, 1\),\) is for 1 spatial axes, x \(4, 5, 5, 3\) has 2"]),
    ("conv rank", lambda: nn.conv(2, (3, 3)).init(key, jnp.ones((4, 5, 3))), ValueError, ["spatial, channels"]),
    ("conv rank, window", lambda: nn.conv(2, (3,)).init(key, jnp.ones((4, 5, 5, 3))), ValueError, ["spatial axes"]),
    ("conv too small", lambda: applied(nn.conv(2, 6, padding="VALID"), jnp.ones((4, 5, 3))), ValueError,
     ["the window does not fit into the input"]),
    ("conv width", lambda: applied(nn.conv(2, 3), jnp.ones((4, 5, 3)), wrong=jnp.ones((4, 5, 2))), ValueError,
     ["expected 3 features, got 2"]),
    ("conv groups", lambda: nn.conv(3, 3, groups=2), ValueError, ["groups must divide features, got 2 groups for 3"]),
    ("conv groups of x", lambda: nn.conv(4, 3, groups=2).init(key, jnp.ones((4, 5, 3))), ValueError,
     ["groups must divide the number of input channels, got 2 for 3"]),
    ("pool window", lambda: nn.max_pool(0), ValueError, ["window must be ≥ 1, got 0"]),
    ("pool too small", lambda: applied(nn.avg_pool(6), jnp.ones((4, 5, 3))), ValueError, ["does not fit"]),
    ("pool rank", lambda: applied(nn.max_pool((2, 2)), jnp.ones((4, 5, 3))), ValueError, ["spatial"]),
    ("global pool", lambda: applied(nn.global_avg_pool(), ones), ValueError, [r"\(batch, \*spatial, channels\), got"]),
    ("rate 1.5", lambda: nn.dropout(1.5), ValueError, [r"dropout: rate must be in \[0, 1\), got 1.5"]),
    ("rate 1", lambda: nn.dropout(1.0), ValueError, [r"must be in \[0, 1\), got 1"]),
    ("rate -.1", lambda: nn.dropout(-0.1), ValueError, ["got -0.1"]),
    ("rate nan", lambda: nn.dropout(float("nan")), ValueError, ["got nan"]),
    ("rates", lambda: nn.dropout(jnp.array([0.1, 0.2])), ValueError, ["must be one number", "jax.vmap"]),
    ("no key", lambda: applied(nn.serial(nn.dense(2), nn.dropout(0.5)), ones, train=True), ValueError,
     [r"dropout\(0\.5\): train=True draws a mask and needs a key: apply\(params, state, x, train=True, key=key\)",
      "in serial layer 2 of 2"]),
    ("int as key", lambda: nn.dense(2).init(0, ones), TypeError, [r"got the integer 0; use jax\.random\.key\(0\)"]),
    ("None as key", lambda: nn.dense(2).init(None, ones), TypeError, ["key must be a random key", "NoneType"]),
    ("several keys", lambda: nn.dense(2).init(keys, ones), ValueError, [r"shape \(2,\); use jax\.vmap"]),
    ("several keys in serial", lambda: three.init(keys, ones), ValueError, [r"shape \(2,\); use jax\.vmap"]),
    ("swapped", lambda: nn.dense(2).init(ones, key), TypeError,
     [r"key and x are swapped: the call is init\(key, x\)"]),
    ("swapped in serial", lambda: three.init(ones, key), TypeError, ["key and x are swapped"]),
    ("dropout key", lambda: nn.dropout(0.5).apply((), (), ones, train=True, key=3), TypeError, ["the integer 3"]),
    ("batch of 1", lambda: applied(nn.serial(nn.batch_norm()), jnp.ones((1, 3)), train=True), ValueError,
     [r"batch_norm: train=True needs at least 2 values of each feature, got x \(1, 3\)", "layer 1 of 1"]),
    ("bn decay", lambda: nn.batch_norm(decay=1.1), ValueError, [r"decay must be in \[0, 1\], got 1.1"]),
    ("bn eps", lambda: nn.batch_norm(eps=0.0), ValueError, ["eps must be in"]),
    ("bn width", lambda: applied(nn.batch_norm(), ones, wrong=two), ValueError, ["expected 3 features, got 2"]),
    ("ln eps", lambda: nn.layer_norm(eps=-1), ValueError, ["eps must be in"]),
    ("ln width", lambda: applied(nn.layer_norm(), ones, wrong=two), ValueError, ["expected 3 features, got 2"]),
    ("scale width", lambda: applied(nn.scale(), ones, wrong=two), ValueError, ["expected 3 features, got 2"]),
    ("embedding floats", lambda: nn.embedding(5, 2).init(key, ones), TypeError, ["x must hold integers, got float32"]),
    ("embedding size", lambda: nn.embedding(0, 2), ValueError, ["size must be ≥ 1"]),
    ("reshape", lambda: applied(nn.reshape((2, 2)), ones), ValueError, [r"one example has shape \(3,\)"]),
    ("residual", lambda: applied(nn.residual(nn.dense(2)), ones), ValueError,
     [r"\(4, 2\).*\(4, 3\)", r"shortcut=nn\.dense\(2\)"]),
    ("no path", nn.concat, ValueError, ["concat: at least one path"]),
    ("concat", lambda: applied(nn.concat(nn.flatten(), nn.reshape((3, 1))), ones), TypeError,
     ["concat: the outputs must have the same number of axes"]),
    ("concat rows", lambda: applied(nn.concat(nn.reshape((3, 1)), nn.reshape((1, 3)), axis=1), ones), TypeError,
     ["concat: the outputs must have equal shapes except along axis 1"]),
    ("repeat 0", lambda: nn.repeat(0, nn.dense(3)), ValueError, ["n must be ≥ 1"]),
    ("repeat shape", lambda: nn.repeat(2, nn.dense(2)).init(key, ones), ValueError,
     ["must return the shape and dtype"]),
    ("repeat rows", lambda: rows(3).apply(*rows(2).init(key, ones), ones, train=False), ValueError,
     ["must have length 3"]),
    ("not a layer", lambda: nn.serial(nn.dense(2), "relu"), TypeError, ["a Layer or a function", "'relu'"]),
    ("params of another net", lambda: three.apply(((), ()), ((), ()), ones, train=False), ValueError,
     ["params must be a tuple of 3 entries", "got 2 entries"]),
    ("params swapped", lambda: three.apply({}, (), ones, train=False), ValueError, ["tuple of 3 entries.*got dict"]),
    ("init with values", lambda: nn.serial(nn.dense(2), nn.Layer("a", lambda key, x: x.mean(0), three.apply))
     .init(key, ones), AttributeError, [r"init gets shapes and dtypes, not values; jax\.eval_shape\(f, x\) returns"]),
    ("init's last layer", lambda: nn.serial(nn.dense(3), nn.reshape((5,))).init(key, ones), ValueError,
     ["in serial layer 2 of 2"]),
    ("nested place", lambda: applied(nn.serial(jnp.tanh, nn.residual(nn.dense(3), _raise)), ones), RuntimeError,
     ["own error", r"in serial layer 2 of 2, _raise, input \(4, 3\)", "in residual layer 2 of 2, serial",
      "in serial layer 2 of 2, residual"]),
    ("JAX's own error", lambda: applied(nn.serial(lambda x: x @ x), ones), TypeError,
     ["in serial layer 1 of 1, <lambda>"]),
    ("precision", lambda: nn.with_precision(nn.dense(2), compute=jnp.int32), TypeError,
     ["compute must be a floating dtype"]),
    ("norm", lambda: nn.mlp([3], 2, norm="bath"), ValueError, ["unknown norm 'bath'.*did you mean 'batch'"]),
    ("mlp width", lambda: nn.mlp([3, 0], 2), ValueError, ["features must be ≥ 1"]),
    ("mlp dropout", lambda: nn.mlp([3], 2, dropout=1.5), ValueError, [r"rate must be in \[0, 1\), got 1.5"]),
    ("depth", lambda: nn.residual_mlp(3, 0, 2), ValueError, ["n must be ≥ 1"]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "says"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_error_names_place_value_and_fix(call, kind, says):
    with pytest.raises(kind) as caught:
        call()
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    for pattern in says:
        assert re.search(pattern, text), f"{pattern!r} is not in {text!r}"


def test_train_is_keyword_only_and_has_no_default():
    params, state = three.init(key, ones)
    with pytest.raises(TypeError, match="train"):
        three.apply(params, state, ones)
    with pytest.raises(TypeError, match="positional"):
        three.apply(params, state, ones, True)


@pytest.mark.parametrize("net", [nn.residual(nn.dense(1)), nn.concat(nn.dense(3), nn.reshape((2, 2)))])
def test_paths_that_do_not_merge_are_found_at_init(net):
    with pytest.raises((ValueError, TypeError)) as caught:
        net.init(jax.random.key(0), jnp.ones((8, 4)))
    assert any("in the merge of" in note for note in caught.value.__notes__)


def test_summary_of_a_language_model():
    tokens = jnp.zeros((1, 4), jnp.int32)
    rows = nn.summary(nn.language_model(7, 8, 2, 2, tied=False), tokens).rows
    paths = {row.path: row.name for row in rows}
    assert paths["embedding",] == "embedding(7, 8)"
    assert paths["body", 0, 0, 1, 1] == "multi_head_attention(2)"
    assert paths["head",] == "dense(7)"


def test_summary_of_a_custom_combinator():
    """It is one row, because its parameters are not at the path of its children."""
    inner = nn.serial(nn.dense(3), jax.nn.relu)

    def init(key, x):
        params, state = inner.init(key, x)
        return {"inner": params}, state

    def apply(params, state, x, *, train, key=None):
        return inner.apply(params["inner"], state, x, train=train, key=key)

    summary = nn.summary(nn.serial(nn.dense(4), nn.Layer("wrapped", init, apply)), jnp.ones((1, 2)))
    assert [(row.name, row.params) for row in summary.rows] == [("dense(4)", 12), ("wrapped", 15)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.conv(4, (3, 3), padding=1), "padding must be"),
        (lambda: nn.reshape(4), r"use \(4,\)"),
        (lambda: nn.dropout(None), "rate must be one number, got None"),
        (lambda: nn.flatten().apply((), (), jnp.ones(4), train=False), r"use x\[None\] for one example"),
        (lambda: nn.dense(3).init(jax.random.key(0), jnp.ones((2, 0))), "x has 0 features"),
        (lambda: nn.conv(4, (3, 3)).init(jax.random.key(0), jnp.ones((2, 8, 8))), r"x\[\.\.\., None\]"),
        (lambda: nn.serial(nn.dropout(0.5)).apply(((),), ((),), jnp.ones((2, 2)), train=True, key=0), "random\\.key"),
    ],
)
def test_more_wrong_arguments_are_errors(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_tied_weights_are_one_entry_whose_gradient_is_the_sum_of_both_uses():
    tied, free = (nn.language_model(7, 8, 1, 2, tied=tied) for tied in (True, False))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 7, (3, 5)))
    params, state = tied.init(jax.random.key(0), x)
    head = {"w": params["embedding"]["w"].T, "b": jnp.zeros(7)}

    def loss(net, params, state):
        return losses.cross_entropy(net.apply(params, state, x, train=True)[0], jnp.roll(x, -1, 1)).sum()

    both = jax.grad(lambda p: loss(free, p, state | {"head": ()}))(params | {"head": head})
    once = jax.grad(lambda p: loss(tied, p, state))(params)
    assert set(once) == {"embedding", "body"}
    expected = both["embedding"]["w"] + both["head"]["w"].T
    np.testing.assert_allclose(once["embedding"]["w"], expected, rtol=1e-4, atol=1e-6)
    assert jnp.abs(both["embedding"]["w"]).max() > 1e-3
