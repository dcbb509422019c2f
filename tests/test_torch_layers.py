"""Layers of images and sequences, with their gradients, equal PyTorch's modules with the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import nn

torch = pytest.importorskip("torch")
T = torch.nn
rng = np.random.default_rng(0)
B, N = 3, 5  # batch, length


def array(*shape):
    return rng.normal(size=shape)


def channels_first(x):
    return torch.movedim(x, -1, 1)


def channels_last(x):
    return torch.movedim(x, 1, -1)


def module(make, *args, **options):
    """Return a module in float64 with random weights, which shows those that start at 0 or 1."""
    result = make(*args, **options, dtype=torch.float64)
    with torch.no_grad():
        for p in result.parameters():
            p.copy_(torch.tensor(rng.uniform(0.1, 0.9, tuple(p.shape)) * rng.choice([-1, 1], tuple(p.shape))))
    return result


def numpy_of(tensor):
    return tensor.detach().numpy().copy()


def check(layer, params, x, forward, gradients, *, train=False, wrap=lambda x: x, unwrap=lambda y: y):
    """Compare the output and the gradients of a random projection of it.

    Args:
      layer: ours.
      params: our parameters, made of torch's weights.
      x: the input.
      forward: torch's function of x.
      gradients: returns torch's gradients as our parameters, after the backward pass.
      wrap: makes the layer's input from x.
      unwrap: takes the array out of the layer's output.
    """
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, params)
        state = layer.init(jax.random.key(0), wrap(jnp.asarray(x)))[1]
        tx = torch.tensor(x, requires_grad=True)
        ty = forward(tx)
        projection = array(*ty.shape)

        @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
        def f(params, x):
            y = unwrap(layer.apply(params, state, wrap(x), train=train)[0])
            return jnp.vdot(jnp.asarray(projection), y), y

        (dparams, dx), y = jax.jit(f)(params, jnp.asarray(x))
    np.testing.assert_allclose(y, numpy_of(ty), rtol=1e-9, atol=1e-12)
    (ty * torch.tensor(projection)).sum().backward()
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-8, atol=1e-11)
    assert jax.tree.structure(dparams) == jax.tree.structure(gradients())
    for a, b in zip(jax.tree.leaves(dparams), jax.tree.leaves(gradients()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)


def weights_and_gradients(convert, **tensors):
    """Return our parameters and a function that returns their gradients, by one conversion of both."""
    params = convert({name: numpy_of(tensor) for name, tensor in tensors.items()})
    return params, lambda: convert({name: tensor.grad.numpy() for name, tensor in tensors.items()})


def scale_and_bias(m):
    return weights_and_gradients(lambda t: t, scale=m.weight, bias=m.bias)


@pytest.mark.parametrize("spatial", [(7,), (4, 3)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(groups, spatial):
    m = module(T.GroupNorm, groups, 6)
    check(nn.group_norm(groups), scale_and_bias(m)[0], array(B, *spatial, 6),
          lambda x: channels_last(m(channels_first(x))), scale_and_bias(m)[1])  # fmt: skip


def test_instance_norm():
    m = module(T.InstanceNorm2d, 6, affine=True)
    check(nn.instance_norm(), scale_and_bias(m)[0], array(B, 4, 3, 6),
          lambda x: channels_last(m(channels_first(x))), scale_and_bias(m)[1])  # fmt: skip


def test_rms_norm():
    m = module(T.RMSNorm, 6, eps=1e-3)
    params, gradients = weights_and_gradients(lambda t: t, scale=m.weight)
    check(nn.rms_norm(eps=1e-3), params, array(B, N, 6), m, gradients)


TRANSPOSES = [  # spatial shape, kernel_size, ours, torch's
    ((7,), (3,), {"padding": "VALID"}, {}),
    ((7,), (4,), {"strides": 2}, {"stride": 2, "padding": 1}),
    ((7,), (2,), {"strides": 2}, {"stride": 2}),
    ((5,), (3,), {"strides": 2, "padding": ((1, 0),)}, {"stride": 2, "padding": 1, "output_padding": 1}),
    ((5, 4), (3, 2), {"strides": (1, 2), "padding": ((1, 1), (0, 0))}, {"stride": (1, 2), "padding": (1, 0)}),
    ((3, 2, 2), (2, 2, 2), {"padding": "VALID", "strides": 2}, {"stride": 2}),
]


@pytest.mark.parametrize(("spatial", "kernel_size", "ours", "theirs"), TRANSPOSES)
def test_conv_transpose(spatial, kernel_size, ours, theirs):
    make = {1: T.ConvTranspose1d, 2: T.ConvTranspose2d, 3: T.ConvTranspose3d}[len(spatial)]
    m = module(make, 4, 6, kernel_size, **theirs)
    params, gradients = weights_and_gradients(
        lambda t: {"w": np.moveaxis(t["w"], (0, 1), (-2, -1)), "b": t["b"]}, w=m.weight, b=m.bias
    )
    check(nn.conv_transpose(6, kernel_size, **ours), params, array(B, *spatial, 4),
          lambda x: channels_last(m(channels_first(x))), gradients)  # fmt: skip


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("strides", [1, 2, 3, 4])
def test_conv_transpose_same_multiplies_the_length(kernel_size, strides):
    layer = nn.conv_transpose(2, kernel_size, strides=strides)
    params, state = layer.init(jax.random.key(0), jnp.ones((1, N, 3)))
    assert layer.apply(params, state, jnp.ones((1, N, 3)), train=False)[0].shape == (1, strides * N, 2)


@pytest.mark.parametrize(("method", "mode"), [("nearest", "nearest"), ("linear", "bilinear")])
def test_upsample(method, mode):
    options = {} if mode == "nearest" else {"align_corners": False}
    m = T.Upsample(scale_factor=(3, 2), mode=mode, **options)
    check(nn.upsample((3, 2), method=method), (), array(B, 4, 5, 2), lambda x: channels_last(m(channels_first(x))),
          lambda: ())  # fmt: skip


def attention_params(m):
    def convert(t):
        query, key, value = ({"w": w.T, "b": b} for w, b in zip(np.split(t["w"], 3), np.split(t["b"], 3), strict=True))
        return {"query": query, "key": key, "value": value, "out": {"w": t["out"].T, "b": t["out_b"]}}

    return weights_and_gradients(
        convert, w=m.in_proj_weight, b=m.in_proj_bias, out=m.out_proj.weight, out_b=m.out_proj.bias
    )


MASK = rng.random((B, N, N)) < 0.5
MASK[:, np.arange(N), np.arange(N)] = True
CAUSAL = np.tril(np.ones((N, N), bool))


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "mask"])
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention(causal, mask):
    m = module(T.MultiheadAttention, 6, 2, batch_first=True)
    params, gradients = attention_params(m)
    allowed = np.ones((B, N, N), bool) if mask is None else mask
    forbidden = torch.tensor(~np.repeat(allowed & (CAUSAL if causal else True), 2, axis=0))  # torch's True is forbidden
    check(nn.multi_head_attention(2, causal=causal), params, array(B, N, 6),
          lambda x: m(x, x, x, attn_mask=forbidden, need_weights=False)[0], gradients,
          wrap=lambda x: x if mask is None else nn.AttentionInput(x, mask=jnp.asarray(mask)))  # fmt: skip


def test_multi_head_attention_to_a_context():
    m, context = module(T.MultiheadAttention, 6, 3, batch_first=True), array(B, 7, 6)
    params, gradients = attention_params(m)
    tensor = torch.tensor(context)
    check(nn.multi_head_attention(3), params, array(B, N, 6),
          lambda x: m(x, tensor, tensor, need_weights=False)[0], gradients,
          wrap=lambda x: nn.AttentionInput(x, jnp.asarray(context)))  # fmt: skip


@pytest.mark.parametrize("masked", [False, True])
def test_transformer_block(masked):
    m = module(T.TransformerEncoderLayer, 6, 2, 8, 0.0, norm_first=True, activation="relu", batch_first=True)
    attention, attention_gradients = attention_params(m.self_attn)
    names = {"s1": m.norm1.weight, "b1": m.norm1.bias, "s2": m.norm2.weight, "b2": m.norm2.bias,
             "w1": m.linear1.weight, "c1": m.linear1.bias, "w2": m.linear2.weight, "c2": m.linear2.bias}  # fmt: skip

    def convert(t):
        one = ((), ({"scale": t["s1"], "bias": t["b1"]}, None))
        two = ((), ({"scale": t["s2"], "bias": t["b2"]}, {"w": t["w1"].T, "b": t["c1"]}, (),
                    {"w": t["w2"].T, "b": t["c2"]}))  # fmt: skip
        return one, two

    def whole(parts, attention):
        (one, (norm, _)), two = parts
        block = jax.tree.map(lambda leaf: leaf[None], ((one, (norm, attention)), two))
        return block, {"scale": np.ones(6), "bias": np.zeros(6)}, ()

    parts, gradients = weights_and_gradients(convert, **names)
    final = T.LayerNorm(6, dtype=torch.float64)
    padding = np.zeros((B, N), bool)
    padding[1, 3:] = masked

    def all_gradients():
        block = whole(gradients(), attention_gradients())[0]
        return block, {"scale": final.weight.grad.numpy(), "bias": final.bias.grad.numpy()}, ()

    mask = jnp.asarray(np.repeat(~padding[:, None], N, axis=1))
    check(nn.transformer(6, 1, 2, hidden=8, activation=jax.nn.relu), whole(parts, attention), array(B, N, 6),
          lambda x: final(m(x, src_mask=torch.tensor(np.repeat(np.repeat(padding[:, None], N, 1), 2, 0)))),
          all_gradients, wrap=lambda x: nn.AttentionInput(x, mask=mask) if masked else x)  # fmt: skip


RECURRENT = {
    "rnn": (nn.rnn, T.RNN),
    "rnn, relu": (functools.partial(nn.rnn, activation=jax.nn.relu), functools.partial(T.RNN, nonlinearity="relu")),
    "lstm": (nn.lstm, T.LSTM),
    "gru": (nn.gru, T.GRU),
}


def recurrent_params(m, suffix="l0"):
    names = {name: getattr(m, f"{name}_{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    gru = isinstance(m, T.GRU)

    def convert(t, *, gradient):
        b, b_h = t["bias_ih"], t["bias_hh"]
        params = {"w_x": t["weight_ih"].T, "w_h": t["weight_hh"].T}
        # In a sum of two biases, each has the gradient of the sum
        if not gru:
            return params | {"b": b if gradient else b + b_h}
        size = len(b) // 3
        joint = b if gradient else np.concatenate([(b + b_h)[: 2 * size], b[2 * size :]])
        return params | {"b": joint, "b_h": b_h[2 * size :]}

    params = convert({name: numpy_of(tensor) for name, tensor in names.items()}, gradient=False)
    return params, lambda: convert({name: tensor.grad.numpy() for name, tensor in names.items()}, gradient=True)


@pytest.mark.parametrize(("ours", "theirs"), RECURRENT.values(), ids=RECURRENT.keys())
def test_recurrent(ours, theirs):
    m = module(theirs, 3, 4, batch_first=True)
    params, gradients = recurrent_params(m)
    check(ours(4), params, array(B, N, 3), lambda x: m(x)[0], gradients)


@pytest.mark.parametrize(("ours", "theirs"), RECURRENT.values(), ids=RECURRENT.keys())
@pytest.mark.parametrize("last", [False, True])
def test_recurrent_both_ways_with_lengths(ours, theirs, last):
    m = module(theirs, 3, 4, batch_first=True, bidirectional=True)
    (forward, forward_gradients), (back, back_gradients) = (recurrent_params(m, s) for s in ("l0", "l0_reverse"))
    lengths = np.array([5, 1, 3])

    def reference(x):
        packed = T.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        y, final = m(packed)
        final = final[0] if isinstance(final, tuple) else final
        return torch.cat(list(final), -1) if last else T.utils.rnn.pad_packed_sequence(y, batch_first=True)[0]

    layer = nn.bidirectional(ours(4, last=last), ours(4, last=last, reverse=True))
    check(layer, (forward, back), array(B, N, 3), reference, lambda: (forward_gradients(), back_gradients()),
          wrap=lambda x: nn.Sequences(x, jnp.asarray(lengths)), unwrap=lambda y: y if last else y.x)  # fmt: skip


def test_gated_dense():
    m = module(T.Linear, 3, 8)

    def convert(t):
        (vw, gw), (vb, gb) = np.split(t["w"], 2), np.split(t["b"], 2)
        return {"gate": {"w": gw.T, "b": gb}, "value": {"w": vw.T, "b": vb}}

    params, gradients = weights_and_gradients(convert, w=m.weight, b=m.bias)
    check(nn.gated_dense(4), params, array(B, N, 3), lambda x: T.functional.glu(m(x)), gradients)


def test_weight_norm():
    m = T.utils.parametrizations.weight_norm(module(T.Linear, 3, 4))
    weight = m.parametrizations.weight
    params, gradients = weights_and_gradients(
        lambda t: {"g": t["g"].ravel(), "w": t["v"].T, "b": t["b"]}, g=weight.original0, v=weight.original1, b=m.bias
    )
    check(nn.weight_norm(nn.dense(4)), params, array(B, 3), m, gradients)


@pytest.mark.parametrize("train", [False, True])
def test_spectral_norm(train):
    """Torch's two vectors become our state, and the state after a step is compared too."""
    m = T.utils.parametrizations.spectral_norm(module(T.Linear, 3, 4), n_power_iterations=2).train(train)
    vectors = m.parametrizations.weight[0]
    params, gradients = weights_and_gradients(
        lambda t: {"w": t["w"].T, "b": t["b"]}, w=m.parametrizations.weight.original, b=m.bias
    )
    state = {"layer": (), "u": numpy_of(vectors._u), "v": numpy_of(vectors._v)}  # of torch's matrix, (outputs, inputs)
    layer = nn.spectral_norm(nn.dense(4), iterations=2)

    def apply(p, s, x, /, *, train, key=None):
        return layer.apply(p, jax.tree.map(jnp.asarray, state), x, train=train)[0], s

    x = array(B, 3)
    check(nn.Layer("spectral_norm", layer.init, apply), params, x, m, gradients, train=train)
    with jax.enable_x64(True):
        _, new = layer.apply(*jax.tree.map(jnp.asarray, (params, state)), jnp.asarray(x), train=train)
    np.testing.assert_allclose(new["u"], vectors._u.numpy(), rtol=1e-9)
    np.testing.assert_allclose(new["v"], vectors._v.numpy(), rtol=1e-9)
