"""The random numbers of a search: a generator for each trial, from the search's key and the number of the trial."""

import jax
import numpy as np

from nnjax.types import Key


def key_words(key: Key) -> tuple[int, ...]:
    """Return the words of a random key as Python integers."""
    return tuple(int(word) for word in np.asarray(jax.random.key_data(key)).ravel())


def generator(words: tuple[int, ...], trial: int) -> np.random.Generator:
    """Return the NumPy generator of a trial. JAX would take a hundred times as long for a few numbers."""
    return np.random.default_rng([*words, trial])
