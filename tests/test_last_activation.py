"""A network that ends in the softmax that its loss applies itself is warned of."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from nnjax import losses, nn, optim, train

X = jnp.linspace(-1, 1, 24).reshape(8, 3)
LABELS, BITS = jnp.arange(8, dtype=jnp.int32) % 3, jnp.ones((8, 3))


def by_hand(x):
    return jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True)


def warnings_of(net, loss, y):
    run = train.Run(net, loss, optim.sgd(0.1), batch_size=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train.fit(run, (X, y), steps=1, progress=False)
    return caught


@pytest.mark.parametrize("last", [nn.softmax, jax.nn.softmax, by_hand, lambda x: jax.nn.softmax(2 * x, -1)])
@pytest.mark.parametrize("loss", [losses.cross_entropy, partial(losses.focal, gamma=1.0)])
def test_a_softmax_before_a_loss_of_logits_is_warned_of(last, loss):
    (warning,) = warnings_of(nn.serial(nn.dense(3), last), loss, LABELS)
    assert str(warning.message) == (
        "fit: serial ends in a softmax, but the loss takes logits and applies the softmax itself; remove the last "
        "layer, and apply the softmax to the outputs of predict"
    )
    assert warning.filename == __file__


def test_a_sigmoid_before_a_loss_of_logits_is_warned_of():
    net = nn.with_precision(nn.named(a=nn.dense(3), b=jax.nn.sigmoid))
    (warning,) = warnings_of(net, losses.binary_cross_entropy, BITS)
    assert "ends in a sigmoid" in str(warning.message)


@pytest.mark.parametrize(
    ("last", "loss", "y"),
    [
        (jax.nn.relu, losses.cross_entropy, LABELS),
        (jax.nn.log_softmax, losses.cross_entropy, LABELS),  # its softmax is the same
        (jax.nn.sigmoid, losses.cross_entropy, LABELS),
        (lambda x: x / (1 + jnp.exp(x).sum(-1, keepdims=True)), losses.cross_entropy, LABELS),
        (nn.softmax, losses.squared_error, BITS),
        (nn.softmax, lambda p, y: -jnp.log(jnp.take_along_axis(p, y[:, None], 1)[:, 0]), LABELS),
    ],
)
def test_others_are_not(last, loss, y):
    assert not warnings_of(nn.serial(nn.dense(3), last), loss, y)
