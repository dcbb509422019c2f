"""Make a random generator for each trial of a search, from the search's key and the trial's number."""

import jax
import numpy as np

from nnjax.types import Key


def key_words(key: Key) -> tuple[int, ...]:
    """Return the data of a random key as Python integers."""
    return tuple(int(word) for word in np.asarray(jax.random.key_data(key)).ravel())


def generator(words: tuple[int, ...], trial: int) -> np.random.Generator:
    """Return a NumPy generator for a trial. JAX would take a hundred times as long for a few numbers."""
    return np.random.default_rng([*words, trial])
