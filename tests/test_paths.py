"""Names and paths of parameters: what a pattern means, and what it is good for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nnjax import losses, nn, optim, train

net = nn.named(
    embed=nn.dense(3),
    body=nn.serial(nn.layer_norm(), nn.repeat(2, nn.residual(nn.dense(3), jnp.tanh))),
    head=nn.named(hidden=nn.dense(3), out=nn.dense(2)),
)
params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
PATHS = [
    "body/0/bias", "body/0/scale", "body/1/1/0/b", "body/1/1/0/w", "embed/b", "embed/w", "head/hidden/b",
    "head/hidden/w", "head/out/b", "head/out/w",
]  # fmt: skip


def test_paths_are_those_of_the_leaves_in_their_order():
    assert list(nn.paths(params)) == PATHS
    for leaf, expected in zip(nn.paths(params).values(), jax.tree.leaves(params), strict=True):
        assert leaf is expected


MATCHES = {
    "head/**": ["head/hidden/b", "head/hidden/w", "head/out/b", "head/out/w"],
    "**": PATHS,
    "**/b": [path for path in PATHS if path.endswith("/b")],
    "*/b": ["embed/b"],
    "head/*/w": ["head/hidden/w", "head/out/w"],
    "embed/w": ["embed/w"],
    "**/o*/**": ["head/out/b", "head/out/w"],
    "body/**/w": ["body/1/1/0/w"],
    "body/?/b[hij]as": ["body/0/bias"],
    "**/head/**": ["head/hidden/b", "head/hidden/w", "head/out/b", "head/out/w"],
}


@pytest.mark.parametrize("pattern", MATCHES)
def test_mask_marks_what_the_pattern_matches(pattern):
    marked = nn.mask(params, pattern)
    assert jax.tree.structure(marked) == jax.tree.structure(params)
    assert [path for path, leaf in nn.paths(marked).items() if leaf] == MATCHES[pattern]


def test_several_patterns_mark_what_any_matches():
    marked = nn.paths(nn.mask(params, ["**/bias", "embed/*"]))
    assert [path for path, leaf in marked.items() if leaf] == ["body/0/bias", "embed/b", "embed/w"]


def test_labels_are_of_the_first_pattern_that_matches():
    labels = nn.paths(nn.labels(params, {"head/out/*": 1, "head/**": 2, "**": 3}))
    assert labels == {path: 1 if "out" in path else 2 if "head" in path else 3 for path in PATHS}


@pytest.mark.parametrize("function", [nn.mask, lambda tree, pattern: nn.labels(tree, {pattern: 1, "**": 2})])
def test_a_pattern_that_matches_nothing_shows_the_nearest_paths(function):
    with pytest.raises(ValueError, match=r"'haed/out/w' matches none of the 10 paths; the nearest are head/out/w"):
        function(params, "haed/out/w")
    with pytest.raises(ValueError, match="the tree has no leaves"):
        function((), "**")
    with pytest.raises(TypeError, match="a pattern must be text"):
        function(params, 3)


def test_a_leaf_without_a_label_is_named():
    with pytest.raises(ValueError, match=r"no pattern matches 'body/0/bias'; add '\*\*'"):
        nn.labels(params, {"head/**": 1})


def test_named_is_serial_with_names():
    layers = [nn.dense(3), jnp.tanh, nn.batch_norm(), nn.dense(2)]
    names = ["a", "b", "c", "d"]
    ours, plain = nn.named(**dict(zip(names, layers, strict=True))), nn.serial(*layers)
    x, key = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32), jax.random.key(1)
    (p, s), (q, t) = ours.init(key, x), plain.init(key, x)
    for a, b in zip(jax.tree.leaves([p[name] for name in names]), jax.tree.leaves(list(q)), strict=True):
        np.testing.assert_array_equal(a, b)
    y, new = ours.apply(p, s, x, train=True)
    z, other = plain.apply(q, t, x, train=True)
    np.testing.assert_array_equal(y, z)
    np.testing.assert_array_equal(new["c"]["mean"], other[2]["mean"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"embed": params["embed"]}, r"named: params must be a dictionary of embed, body, head, got \['embed'\]"),
        ((), "got tuple"),
        ({**params, "tail": ()}, "tail"),
    ],
)
def test_other_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        net.apply(wrong, state, jnp.ones((1, 4)), train=False)


def test_errors_and_summaries_have_the_names():
    with pytest.raises(ValueError, match="expected 4 features") as error:
        net.apply(params | {"head": {"hidden": params["head"]["out"], "out": params["head"]["out"]}}, state,
                  jnp.ones((1, 3)), train=False)  # fmt: skip
    assert any("in named layer 1 of 3 (embed), dense(3)" in note for note in error.value.__notes__)
    table = nn.summary(net, jnp.ones((1, 4)))
    assert [row.path for row in table.rows if row.name == "dense(2)"] == [("head", "out")]
    assert "head/out" in str(table)
    at = lambda path: nn.paths(params)["/".join(map(str, path)) + "/w"]  # noqa: E731
    for row in table.rows:
        if row.name.startswith("dense") and row.path[0] != "body":
            assert row.params == at(row.path).size + at(row.path).shape[-1]


def moved(optimizer, steps=3):
    """Return the paths whose parameters change in training."""
    run = train.Run(net, losses.squared_error, optimizer, batch_size=8)
    data = nn_data()
    ts = run.init(jax.random.key(0), data)
    after, _ = run.steps(ts, data, steps)
    pairs = zip(nn.paths(ts.params).items(), jax.tree.leaves(after.params), strict=True)
    return [path for (path, before), leaf in pairs if (before != leaf).any()]


def nn_data():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(16, 4)), jnp.float32), jnp.asarray(rng.normal(size=(16, 2)), jnp.float32)


def test_freezing_trains_only_the_rest():
    freeze = optax.partition(
        {"train": optim.adam(1e-2), "freeze": optax.set_to_zero()},
        lambda params: nn.labels(params, {"head/**": "train", "**": "freeze"}),
    )
    assert moved(freeze) == MATCHES["head/**"]


def test_weight_decay_without_biases_and_norms():
    """A rate of 0 for the gradient would leave nothing but the decay; so the gradient's part is taken away."""
    rule = optim.adamw(1e-2, weight_decay=0.1, mask=lambda params: nn.mask(params, "**/w"))
    zeros = jax.tree.map(jnp.zeros_like, params)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = rule.update(zeros, rule.init(ones), ones)
    assert [path for path, leaf in nn.paths(updates).items() if leaf.any()] == MATCHES["body/**/w"] + [
        "embed/w", "head/hidden/w", "head/out/w",
    ]  # fmt: skip
