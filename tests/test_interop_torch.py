"""Weights from PyTorch and back: outputs are equal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interop_weights import Case, array, compare

from nnjax import interop, nn

torch = pytest.importorskip("torch")
T = torch.nn
IMAGE, SEQUENCE, ROWS, TOKENS = array(3, 9, 8, 4), array(3, 5, 6), array(3, 6), np.arange(12).reshape(3, 4) % 7


def weights(make):
    """Return a function that returns a state dict of random weights, with positive variances."""

    def draw():
        torch.manual_seed(0)
        module = make()
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point() and not name.endswith(("_u", "_v", "weight_u", "weight_v")):
                    tensor.copy_(torch.rand(tensor.shape) * (1 if "var" in name else 2) - (0 if "var" in name else 1))
        return module.state_dict()

    return draw


def case(net, x, make, *, image=False, output=lambda y: y, call=lambda m, x: m(x), **options):
    def forward(state_dict, x):
        module = make()
        tensor = torch.tensor(np.asarray(x))
        module = module.double() if tensor.dtype == torch.float64 or x.dtype == jnp.int64 else module
        module.load_state_dict({name: torch.as_tensor(value) for name, value in state_dict.items()})
        module.eval()
        with torch.no_grad():
            y = output(call(module, tensor.movedim(-1, 1) if image else tensor))
        return (y.movedim(1, -1) if image and y.ndim > 2 else y).numpy()

    return Case(net, x, weights(make), forward, **options)


def attend(m, x):
    return m(x, x, x, need_weights=False)[0]


def first(y):
    return y[0]


@functools.cache
def encoder():
    layer = T.TransformerEncoderLayer(6, 2, 8, 0.0, norm_first=True, activation="relu", batch_first=True)
    return T.TransformerEncoder(layer, 2, norm=T.LayerNorm(6), enable_nested_tensor=False)


class Block(T.Module):
    """The basic block of torchvision's ResNet, in its order of submodules."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = T.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = T.BatchNorm2d(outputs)
        self.conv2 = T.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = T.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.downsample = (
            None if same else T.Sequential(T.Conv2d(inputs, outputs, 1, stride, bias=False), T.BatchNorm2d(outputs))
        )

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(T.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = T.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = T.BatchNorm2d(8)
        self.layer1 = T.Sequential(Block(8, 8, 1))
        self.layer2 = T.Sequential(Block(8, 16, 2), Block(16, 16, 1))
        self.fc = T.Linear(16, 5)

    def forward(self, x):
        x = T.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.layer2(self.layer1(x)).mean((2, 3)))


class Llama(T.Module):
    """An MLP with gates, as in Llama, and attention with a separate projection for each part."""

    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = T.Linear(6, 8, bias=False), T.Linear(6, 8, bias=False)
        self.down_proj = T.Linear(8, 6, bias=False)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (T.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        x = self.down_proj(T.functional.silu(self.gate_proj(x)) * self.up_proj(x))
        q, k, v = (p(x).unflatten(-1, (2, 3)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj(T.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


LLAMA_NAMES = {
    f"2/{ours}": f"{theirs}_proj" for ours, theirs in zip(("query", "key", "value", "out"), "qkvo", strict=True)
} | {
    "0/gate": "gate_proj",
    "0/value": "up_proj",
}
norm, spectral = T.utils.parametrizations.weight_norm, T.utils.parametrizations.spectral_norm
CASES = {
    "dense": case(nn.dense(5), ROWS, lambda: T.Linear(6, 5)),
    "dense, no bias": case(nn.dense(5, bias=False), ROWS, lambda: T.Linear(6, 5, bias=False)),
    "maxout": case(nn.maxout(4, 3), ROWS, lambda: T.Linear(6, 12), output=lambda y: y.unflatten(-1, (4, 3)).amax(-1)),
    "gated_dense": case(nn.gated_dense(5), ROWS, lambda: T.Sequential(T.Linear(6, 10), T.GLU())),
    "conv": case(nn.conv(6, (3, 2), padding="VALID"), IMAGE, lambda: T.Conv2d(4, 6, (3, 2)), image=True),
    "conv, one axis": case(nn.conv(5, 3), SEQUENCE, lambda: T.Conv1d(6, 5, 3, padding=1), image=True),
    "conv, groups": case(
        nn.conv(6, 3, groups=2, strides=2, padding=((1, 1), (1, 1))),
        IMAGE, lambda: T.Conv2d(4, 6, 3, 2, 1, groups=2), image=True,
    ),
    "conv_transpose": case(
        nn.conv_transpose(6, (3, 2), padding="VALID"), IMAGE, lambda: T.ConvTranspose2d(4, 6, (3, 2)), image=True
    ),
    "embedding": case(nn.embedding(7, 5), TOKENS, lambda: T.Embedding(7, 5)),
    "learned_positions": case(
        nn.learned_positions(9), SEQUENCE, lambda: T.Embedding(9, 6), call=lambda m, x: x + m(torch.arange(5))
    ),
    "batch_norm": case(nn.batch_norm(), IMAGE, lambda: T.BatchNorm2d(4), image=True),
    "batch_norm, not affine": case(
        nn.batch_norm(), IMAGE, lambda: T.BatchNorm2d(4, affine=False), image=True, redraw=False
    ),
    "layer_norm": case(nn.layer_norm(), SEQUENCE, lambda: T.LayerNorm(6)),
    "layer_norm, no bias": case(nn.layer_norm(), SEQUENCE, lambda: T.LayerNorm(6, bias=False), redraw=False),
    "rms_norm": case(nn.rms_norm(eps=1e-3), SEQUENCE, lambda: T.RMSNorm(6, eps=1e-3)),
    "group_norm": case(nn.group_norm(2), IMAGE, lambda: T.GroupNorm(2, 4), image=True),
    "instance_norm": case(nn.instance_norm(), IMAGE, lambda: T.InstanceNorm2d(4, affine=True), image=True),
    "multi_head_attention": case(
        nn.multi_head_attention(2), SEQUENCE, lambda: T.MultiheadAttention(6, 2, batch_first=True), call=attend
    ),
    "multi_head_attention, no bias": case(
        nn.multi_head_attention(3, bias=False), SEQUENCE,
        lambda: T.MultiheadAttention(6, 3, bias=False, batch_first=True), call=attend,
    ),
    "rnn": case(nn.rnn(4), SEQUENCE, lambda: T.RNN(6, 4, batch_first=True), output=first),
    "lstm": case(nn.lstm(4), SEQUENCE, lambda: T.LSTM(6, 4, batch_first=True), output=first),
    "gru": case(nn.gru(4), SEQUENCE, lambda: T.GRU(6, 4, batch_first=True), output=first),
    "gru, no bias": case(
        nn.gru(4), SEQUENCE, lambda: T.GRU(6, 4, batch_first=True, bias=False), output=first, redraw=False
    ),
    "lstm, two layers both ways": case(
        nn.serial(*(nn.bidirectional(nn.lstm(4), nn.lstm(4, reverse=True)) for _ in range(2))),
        SEQUENCE, lambda: T.LSTM(6, 4, 2, batch_first=True, bidirectional=True), output=first,
    ),
    "weight_norm": case(nn.weight_norm(nn.dense(5)), ROWS, lambda: norm(T.Linear(6, 5))),
    "weight_norm, conv": case(
        nn.weight_norm(nn.conv(6, 3, padding="VALID")), IMAGE, lambda: norm(T.Conv2d(4, 6, 3)), image=True
    ),
    "spectral_norm": case(nn.spectral_norm(nn.dense(5)), ROWS, lambda: spectral(T.Linear(6, 5))),
    "spectral_norm, conv": case(
        nn.spectral_norm(nn.conv(6, 3, padding="VALID")), IMAGE, lambda: spectral(T.Conv2d(4, 6, 3)), image=True
    ),
    "spectral_norm, conv_transpose": case(
        nn.spectral_norm(nn.conv_transpose(6, 3, padding="VALID")),
        IMAGE, lambda: spectral(T.ConvTranspose2d(4, 6, 3)), image=True,
    ),
    "mlp": case(
        nn.mlp([8, 8], 3, norm="batch"), ROWS,
        lambda: T.Sequential(
            T.Linear(6, 8, bias=False), T.BatchNorm1d(8), T.ReLU(),
            T.Linear(8, 8, bias=False), T.BatchNorm1d(8), T.ReLU(), T.Linear(8, 3),
        ),
    ),
    "lenet": case(
        nn.lenet(10), array(2, 16, 16, 1),
        lambda: T.Sequential(
            T.Conv2d(1, 6, 5, padding=2), T.ReLU(), T.MaxPool2d(2), T.Conv2d(6, 16, 5), T.ReLU(), T.MaxPool2d(2),
            T.Flatten(), T.Linear(64, 120), T.ReLU(), T.Linear(120, 84), T.ReLU(), T.Linear(84, 10),
        ), image=True,
    ),
    "flatten, batch_norm": case(
        nn.named(
            body=nn.serial(nn.conv(5, 3, padding="VALID"), nn.flatten()), head=nn.serial(nn.batch_norm(), nn.dense(3))
        ),
        IMAGE, lambda: T.Sequential(T.Conv2d(4, 5, 3), T.Flatten(), T.BatchNorm1d(210), T.Linear(210, 3)), image=True,
    ),
    "flatten of the input": case(
        nn.serial(nn.flatten(), nn.dense(3)), IMAGE, lambda: T.Sequential(T.Flatten(), T.Linear(288, 3)), image=True
    ),
    "flatten of a sequence": case(
        nn.serial(nn.dense(4), nn.flatten(), nn.dense(3)), SEQUENCE,
        lambda: T.Sequential(T.Linear(6, 4), T.Flatten(), T.Linear(20, 3)),
    ),
    "transformer": case(nn.transformer(6, 2, 2, hidden=8, activation=jax.nn.relu), SEQUENCE, encoder),
    "resnet": case(nn.resnet(5, blocks=(1, 2), width=8, stem="large"), array(2, 32, 32, 3), ResNet, image=True),
    "repeat": case(
        nn.repeat(2, nn.serial(nn.repeat(3, nn.dense(6)), jnp.tanh)), ROWS,
        lambda: T.Sequential(*(T.Sequential(*(T.Linear(6, 6) for _ in range(3)), T.Tanh()) for _ in range(2))),
    ),
    "wrappers": case(
        nn.remat(nn.serial(nn.remat(nn.dense(5)), nn.with_precision(nn.dense(4), jnp.float32, jnp.float32))),
        ROWS, lambda: T.Sequential(T.Linear(6, 5), T.Linear(5, 4)),
    ),
    "parts by name": case(
        nn.serial(nn.gated_dense(8, activation=jax.nn.silu, bias=False), nn.dense(6, bias=False),
                  nn.multi_head_attention(2)),
        SEQUENCE, Llama, names=LLAMA_NAMES,
    ),
}  # fmt: skip


def cast(weights, dtype):
    floating = getattr(torch, dtype)
    return {name: tensor.to(floating) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_equal(name, dtype):
    skip = name == "wrappers" and dtype == "float64"  # it is computed in float32
    if not skip:
        compare(interop.torch, CASES[name], dtype, cast)
