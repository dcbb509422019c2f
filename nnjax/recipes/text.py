"""Train a causal transformer to continue a text character by character, on the topics of Python's help()."""

from pydoc_data.topics import topics

import jax.numpy as jnp
import numpy as np

from nnjax import losses, nn, optim, train
from nnjax.types import Data, Params, State

LENGTH = 32
net = nn.language_model(128, 32, depth=1, heads=2)


def load_text() -> Data:
    """Return windows of the text as ASCII codes (n, 32); the target at each position is the next code."""
    codes = np.frombuffer("\n".join(topics.values()).encode("ascii", "ignore")[:100_000], np.uint8).astype(np.int32)
    rows = np.lib.stride_tricks.sliding_window_view(codes, LENGTH + 1)[::LENGTH]
    return Data(rows[:, :-1], rows[:, 1:])


def continuation(params: Params, state: State, text: str, letters: int) -> str:
    """Extend a text by `letters` characters, each the most probable next character."""
    for _ in range(letters):
        codes = jnp.asarray([[ord(letter) for letter in text[-LENGTH:]]])
        text += chr(int(net.apply(params, state, codes, train=False)[0][0, -1].argmax()))
    return text


def make_run() -> train.Run:
    """Return a run that trains on `load_text()`."""
    return train.Run(net, losses.cross_entropy, optim.adam(1e-2), batch_size=16)
