"""What cannot be paired is refused with its name, its shape and what was expected. No other library is needed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import interop, nn

X = jnp.ones((2, 4))
IMAGE = jnp.ones((2, 8, 8, 3))
NET = nn.named(body=nn.serial(nn.dense(3), jnp.tanh), head=nn.dense(2))


def linear(outputs, inputs, name="fc"):
    return {f"{name}.weight": np.ones((outputs, inputs), np.float32), f"{name}.bias": np.ones(outputs, np.float32)}


GOOD = linear(3, 4, "one") | linear(2, 3, "two")


def imported(net=NET, weights=GOOD, x=X, **options):
    return interop.torch.import_weights(net, x, weights, **options)


def wrapper_init(key, x):
    return {"inner": NET.init(key, x)[0]}, NET.init(key, x)[1]


def wrapper_apply(params, state, x, *, train, key=None):
    return NET.apply(params["inner"], state, x, train=train)


WRAPPER = nn.Layer("mine", wrapper_init, wrapper_apply)
REFUSED = {
    "other shape": (
        {"weights": linear(3, 5, "one") | linear(2, 3, "two")},
        r"interop.torch: one.weight has shape \(3, 5\), but dense\(3\) at 'body/0' needs \(3, 4\)",
    ),
    "other order": (
        {"weights": linear(2, 3, "two") | linear(3, 4, "one")},
        r"interop.torch: two.weight has shape \(2, 3\), but dense\(3\) at 'body/0' needs \(3, 4\)",
    ),
    "nothing left": (
        {"weights": linear(3, 4, "one")},
        r"dense\(2\) at 'head' needs weight \(2, 3\), bias \(2,\), but .*; unused weights are none",
    ),
    "no bias": (
        {"weights": {"one.weight": np.ones((3, 4))} | linear(2, 3, "two")},
        r"at 'head' needs weight .*; unused weights are one.weight \(3, 4\); pair them by names=\{'head': …\}$",
    ),
    "one too many": (
        {"weights": GOOD | linear(7, 2, "three")},
        r"interop.torch: no layer takes three.weight \(7, 2\), three.bias \(7,\); leave them out",
    ),
    "other kind": (
        {"weights": {"one.weight": np.ones((3, 4, 1, 1)), "one.bias": np.ones(3)} | linear(2, 3, "two")},
        r"needs weight \(2, 3\), bias \(2,\), but .*; unused weights are one.weight \(3, 4, 1, 1\)",
    ),
    "statistics": (
        {"net": nn.layer_norm(), "weights": {f"n.{k}": np.ones(4) for k in ("weight", "bias", "running_mean")}},
        r"layer_norm needs weight .*; unused weights are n.weight \(4,\), .*, or by None if that layer",
    ),
    "unknown path": (
        {"names": {"boby/0": "one"}},
        r"no layer has the path 'boby/0' in names; the nearest are \['body/0'",
    ),
    "unknown module": ({"names": {"head": "tow"}}, r"no weights start with 'tow' in names; the nearest are \['two'"),
    "one module twice": (
        {"names": {"head": "two", "body/0": "two"}},
        r"names assigns two.weight to two layers; the second is (dense\(3\) at 'body/0'|dense\(2\) at 'head')",
    ),
    "named without its bias": (
        {"weights": GOOD | {"only.weight": np.ones((2, 3))}, "names": {"head": "only"}},
        r"interop.torch: dense\(2\) at 'head' needs bias \(2,\) in 'only'",
    ),
    "no weights for a layer that needs some": (
        {"names": {"head": None}}, r"dense\(2\) at 'head' needs weight \(2, 3\), bias \(2,\) in None",
    ),
    "a layer that PyTorch lacks": (
        {"net": nn.serial(nn.dense(3), nn.scale())},
        r"no weights can be converted for scale at '1'; a single array is paired",
    ),
    "a custom layer": (
        {"net": nn.serial(nn.dense(3)._replace(name="mine"), nn.dense(2))},
        r"no weights can be converted for mine at '0'",
    ),
    "a custom layer with the name of another": (
        {"net": nn.serial(nn.scale()._replace(name="dense(4)"), nn.dense(2))},
        r"no weights can be converted for dense\(4\) at '0'",
    ),
    "a recurrent layer with other leaves": (
        {"net": nn.serial(nn.scale()._replace(name="gru(4)"), nn.dense(2))},
        r"no weights can be converted for gru\(4\) at '0'",
    ),
    "a custom combinator": (
        {"net": nn.serial(WRAPPER, nn.dense(2))},
        r"interop.torch: no weights can be converted for mine at '0'",
    ),
    "a branch after an image": (
        {"net": nn.serial(nn.conv(2, 3), nn.flatten(), nn.residual(nn.dense(128))), "x": IMAGE},
        r"residual at '2' follows a flattened image \(8, 8, 2\), whose values the other library orders differently",
    ),
    "an image in a branch": (
        {"net": nn.serial(nn.concat(nn.serial(nn.conv(2, 3), nn.flatten()), nn.flatten()), nn.dense(1)), "x": IMAGE},
        r"dense\(1\) at '1' follows a flattened image",
    ),
    "no state dict": ({"weights": [1, 2]}, r"interop.torch: expected a module or a state dict, got list"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_weights_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        imported(**arguments)


def test_names_pair_layers_in_another_order():
    params, _ = imported(weights=linear(2, 3, "two") | linear(3, 4, "one"), names={"body/0": "one"})
    assert params["body"][0]["w"].shape == (4, 3)
    params, _ = imported(
        net=nn.serial(nn.dense(4), nn.dense(4)),
        weights=linear(4, 4, "b") | {name: 2 * leaf for name, leaf in linear(4, 4, "a").items()},
        names={"0": "a", "1": "b"},
    )
    assert params[0]["w"][0, 0] == 2
    assert params[1]["w"][0, 0] == 1


def test_a_single_array_is_paired_by_its_name():
    net = nn.serial(nn.learned_positions(5), nn.scale(), nn.layer_norm())
    x = jnp.ones((1, 5, 4))
    weights = {"pos_embed": np.full((1, 5, 4), 2.0), "gamma": np.full(4, 3.0)}
    params, state = imported(net, weights, x, names={"0": "pos_embed", "1": "gamma", "2": None})
    assert (params[0]["w"] == 2).all()
    assert (params[1]["scale"] == 3).all()
    assert (params[2]["scale"] == 1).all()
    back = interop.torch.export_weights(
        net, x, params, state, like=weights, names={"0": "pos_embed", "1": "gamma", "2": None}
    )
    assert back["pos_embed"].shape == (1, 5, 4)


def test_export_checks_our_trees():
    params, state = NET.init(jax.random.key(0), X)
    with pytest.raises(
        ValueError, match=r"interop.torch: got \(4, 5\) at params/body/0/w, but init .* returns \(4, 3\)"
    ):
        interop.torch.export_weights(
            NET, X, params | {"body": ({"w": jnp.ones((4, 5)), "b": params["body"][0]["b"]}, ())}, state, like=GOOD
        )
    members = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    with pytest.raises(ValueError, match=r"got \(2, 3\) at params/body/0/b"):
        interop.torch.export_weights(NET, X, members, state, like=GOOD)


def test_export_refuses_values_that_cannot_be_stored():
    net, weights = nn.layer_norm(), {"weight": np.ones(4, np.float32)}
    params, state = net.init(jax.random.key(0), X)
    interop.torch.export_weights(net, X, params, state, like=weights)
    with pytest.raises(ValueError, match=r"has no bias \(4,\) for layer_norm; so all values must be 0"):
        interop.torch.export_weights(net, X, params | {"bias": jnp.ones(4)}, state, like=weights)


def test_export_keeps_dtype_and_other_values_and_changes_nothing():
    like = {"n.weight": np.ones(4, np.float16), "n.bias": np.ones(4, np.float16), "n.running_mean": np.zeros(4),
            "n.running_var": np.ones(4), "n.num_batches_tracked": np.asarray(3)}  # fmt: skip
    params, state = nn.batch_norm().init(jax.random.key(0), X)
    result = interop.torch.export_weights(nn.batch_norm(), X, params, state, like=like)
    assert list(result) == list(like)
    assert result["n.bias"].dtype == np.float16
    assert (result["n.bias"] == 0).all()
    assert (like["n.bias"] == 1).all()
    assert result["n.num_batches_tracked"] == 3


def test_the_dtype_of_the_input_is_that_of_the_parameters():
    params, _ = imported(weights={name: leaf.astype(np.float64) for name, leaf in GOOD.items()})
    assert params["head"]["w"].dtype == jnp.float32
    params, _ = imported(x=X.astype(jnp.bfloat16))
    assert params["head"]["w"].dtype == jnp.bfloat16


def test_import_is_a_pure_function_of_arrays():
    """So an ensemble of other networks becomes one of ours by jax.vmap."""
    weights = {"params": {"Dense_0": {"kernel": jnp.arange(24.0).reshape(2, 4, 3), "bias": jnp.zeros((2, 3))}}}
    params, _ = jax.vmap(lambda weights: interop.flax.import_weights(nn.dense(3), X, weights))(weights)
    assert params["w"].shape == (2, 4, 3)
    np.testing.assert_array_equal(params["w"], weights["params"]["Dense_0"]["kernel"])


@pytest.mark.parametrize("library", ["flax", "haiku"])
def test_layers_of_equal_shapes_in_lost_order_are_refused(library):
    """JAX sorts dictionaries, so encoder and decoder may have changed places; numbers keep the order."""

    def weights(*names):
        dense = {"w": jnp.ones((4, 4)), "b": jnp.ones(4)}
        dense = {"kernel": dense["w"], "bias": dense["b"]} if library == "flax" else dense
        tree = dict.fromkeys(names, dense)
        return {"params": tree} if library == "flax" else tree

    module, net = getattr(interop, library), nn.serial(nn.dense(4), nn.dense(4))
    for names in (["linear_2", "linear_10"], ["linear_10", "linear_2"], ["encoder", "decoder"]):
        module.import_weights(net, X, weights(*names))
    lost = r"decoder/.* and encoder/.* have equal shapes, and their order is lost"
    with pytest.raises(ValueError, match=lost):
        module.import_weights(net, X, weights("decoder", "encoder"))
    module.import_weights(net, X, weights("decoder", "encoder"), names={"0": "encoder"})
