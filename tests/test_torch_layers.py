"""Layers of images and sequences, with their gradients, equal PyTorch's modules with the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import interop, nn

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


def imported(layer, m, x, *, gradients=False):
    """Return parameters and state with the weights of a module, or parameters with its gradients instead of them."""
    tensors = m.state_dict()
    if gradients:
        tensors |= {name: p.grad for name, p in m.named_parameters()}
        for name in tensors:
            if "bias_hh" in name:  # in a sum of two biases, each has the gradient of the sum
                summed = 2 * len(tensors[name]) // 3 if isinstance(m, T.GRU) else None
                tensors[name][:summed] = 0
    params, state = interop.torch.import_weights(layer, x, tensors)
    return params if gradients else (params, state)


def check(layer, m, x, forward=None, *, train=False, wrap=lambda x: x, unwrap=lambda y: y):
    """Compare the output, the gradients of a random projection of it, and return the new state.

    Args:
      layer: ours.
      m: torch's module.
      x: the input.
      forward: torch's function of x; None for the module.
      train: the mode of our layer.
      wrap: makes the layer's input from x.
      unwrap: takes the array out of the layer's output.
    """
    with jax.enable_x64(True):
        params, state = imported(layer, m, wrap(jnp.asarray(x)))
        tx = torch.tensor(x, requires_grad=True)
        ty = (forward or m)(tx)
        projection = array(*ty.shape)

        @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
        def f(params, x):
            y, new = layer.apply(params, state, wrap(x), train=train)
            return jnp.vdot(jnp.asarray(projection), unwrap(y)), (unwrap(y), new)

        (dparams, dx), (y, new) = jax.jit(f)(params, jnp.asarray(x))
        np.testing.assert_allclose(y, ty.detach().numpy(), rtol=1e-9, atol=1e-12)
        (ty * torch.tensor(projection)).sum().backward()
        np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-8, atol=1e-11)
        gradients = imported(layer, m, wrap(jnp.asarray(x)), gradients=True)
    assert jax.tree.structure(dparams) == jax.tree.structure(gradients)
    for a, b in zip(jax.tree.leaves(dparams), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)
    return new


@pytest.mark.parametrize("spatial", [(7,), (4, 3)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(groups, spatial):
    m = module(T.GroupNorm, groups, 6)
    check(nn.group_norm(groups), m, array(B, *spatial, 6), lambda x: channels_last(m(channels_first(x))))


def test_instance_norm():
    m = module(T.InstanceNorm2d, 6, affine=True)
    check(nn.instance_norm(), m, array(B, 4, 3, 6), lambda x: channels_last(m(channels_first(x))))


def test_rms_norm():
    m = module(T.RMSNorm, 6, eps=1e-3)
    check(nn.rms_norm(eps=1e-3), m, array(B, N, 6))


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
    layer = nn.conv_transpose(6, kernel_size, **ours)
    check(layer, m, array(B, *spatial, 4), lambda x: channels_last(m(channels_first(x))))


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
    check(nn.upsample((3, 2), method=method), m, array(B, 4, 5, 2), lambda x: channels_last(m(channels_first(x))))


MASK = rng.random((B, N, N)) < 0.5
MASK[:, np.arange(N), np.arange(N)] = True
CAUSAL = np.tril(np.ones((N, N), bool))


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "mask"])
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention(causal, mask):
    m = module(T.MultiheadAttention, 6, 2, batch_first=True)
    allowed = np.ones((B, N, N), bool) if mask is None else mask
    forbidden = torch.tensor(~np.repeat(allowed & (CAUSAL if causal else True), 2, axis=0))  # torch's True is forbidden
    check(nn.multi_head_attention(2, causal=causal), m, array(B, N, 6),
          lambda x: m(x, x, x, attn_mask=forbidden, need_weights=False)[0],
          wrap=lambda x: x if mask is None else nn.AttentionInput(x, mask=jnp.asarray(mask)))  # fmt: skip


def test_multi_head_attention_to_a_context():
    m, context = module(T.MultiheadAttention, 6, 3, batch_first=True), array(B, 7, 6)
    tensor = torch.tensor(context)
    check(nn.multi_head_attention(3), m, array(B, N, 6),
          lambda x: m(x, tensor, tensor, need_weights=False)[0],
          wrap=lambda x: nn.AttentionInput(x, jnp.asarray(context)))  # fmt: skip


@pytest.mark.parametrize("masked", [False, True])
def test_transformer_block(masked):
    block = module(T.TransformerEncoderLayer, 6, 2, 8, 0.0, norm_first=True, activation="relu", batch_first=True)
    m = T.ModuleDict({"block": block, "final": module(T.LayerNorm, 6)})
    padding = np.zeros((B, N), bool)
    padding[1, 3:] = masked
    mask = jnp.asarray(np.repeat(~padding[:, None], N, axis=1))
    check(nn.transformer(6, 1, 2, hidden=8, activation=jax.nn.relu), m, array(B, N, 6),
          lambda x: m["final"](block(x, src_mask=torch.tensor(np.repeat(np.repeat(padding[:, None], N, 1), 2, 0)))),
          wrap=lambda x: nn.AttentionInput(x, mask=mask) if masked else x)  # fmt: skip


RECURRENT = {
    "rnn": (nn.rnn, T.RNN),
    "rnn, relu": (functools.partial(nn.rnn, activation=jax.nn.relu), functools.partial(T.RNN, nonlinearity="relu")),
    "lstm": (nn.lstm, T.LSTM),
    "gru": (nn.gru, T.GRU),
}


@pytest.mark.parametrize(("ours", "theirs"), RECURRENT.values(), ids=RECURRENT.keys())
def test_recurrent(ours, theirs):
    m = module(theirs, 3, 4, batch_first=True)
    check(ours(4), m, array(B, N, 3), lambda x: m(x)[0])


@pytest.mark.parametrize(("ours", "theirs"), RECURRENT.values(), ids=RECURRENT.keys())
@pytest.mark.parametrize("last", [False, True])
def test_recurrent_both_ways_with_lengths(ours, theirs, last):
    m = module(theirs, 3, 4, batch_first=True, bidirectional=True)
    lengths = np.array([5, 1, 3])

    def reference(x):
        packed = T.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        y, final = m(packed)
        final = final[0] if isinstance(final, tuple) else final
        return torch.cat(list(final), -1) if last else T.utils.rnn.pad_packed_sequence(y, batch_first=True)[0]

    layer = nn.bidirectional(ours(4, last=last), ours(4, last=last, reverse=True))
    check(layer, m, array(B, N, 3), reference,
          wrap=lambda x: nn.Sequences(x, jnp.asarray(lengths)), unwrap=lambda y: y if last else y.x)  # fmt: skip


def test_gated_dense():
    m = module(T.Linear, 3, 8)
    check(nn.gated_dense(4), m, array(B, N, 3), lambda x: T.functional.glu(m(x)))


def test_weight_norm():
    m = T.utils.parametrizations.weight_norm(module(T.Linear, 3, 4))
    check(nn.weight_norm(nn.dense(4)), m, array(B, 3))


@pytest.mark.parametrize("train", [False, True])
def test_spectral_norm(train):
    """The two vectors after a step are compared too."""
    m = T.utils.parametrizations.spectral_norm(module(T.Linear, 3, 4), n_power_iterations=2).train(train)
    new = check(nn.spectral_norm(nn.dense(4), iterations=2), m, array(B, 3), train=train)
    vectors = m.parametrizations.weight[0]
    np.testing.assert_allclose(new["u"], vectors._u.numpy(), rtol=1e-9)
    np.testing.assert_allclose(new["v"], vectors._v.numpy(), rtol=1e-9)
