"""Shuffle the examples in an endless stream of epochs, from which any batch can be computed directly.

Position p of the stream is place p mod n of epoch p // n. Each epoch is shuffled by a keyed bijection of 0 … n - 1.
Nothing is stored or sorted, all batches have the same size, and every epoch contains every example once.

The bijection is the swap-or-not shuffle: in round r, x and (K_r - x) mod n are swapped if a random bit of the pair
is 1. Each round is its own inverse, so all rounds together are a bijection for every n. Because security does not
matter here, a mixing function of a few integer operations replaces the cipher.

Source: Hoang, Morris and Rogaway 2012, "An enciphering scheme based on a card shuffle"; 32-bit mixing function by
T. Mueller and C. Wellons.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nnjax import checks
from nnjax.data._transfers import allow_transfers
from nnjax.types import Key

if TYPE_CHECKING:
    from jaxtyping import Bool, Int, UInt32

ROUNDS = 24  # a chi-square test can distinguish 8 rounds from random, but not 24


@allow_transfers
def batch_indices(key: Key, step: Array | int, n: Array | int, batch_size: int) -> Int[Array, " batch"]:
    """Return the row numbers of a batch, a slice of an endless stream of shuffled epochs.

        index_j = shuffle(key, epoch)(place),   epoch, place = divmod(step · batch_size + j, n)

    Args:
      key: the key of the run, which determines the order of every epoch.
      step: the index of the step, counted from 0. It may be traced, and steps may be requested in any order.
      n: number of examples; may be a traced array.
      batch_size: number of rows; may be larger than n.

    Returns:
      Row numbers (batch_size,), int32, in 0 … n - 1.

    Raises:
      ValueError: if `batch_size` or `n` is not in 1 … 2³¹ - 1, if `step` is not in 0 … 2³¹ - 1, or if there are several
        keys. The values of arrays are not checked.
      TypeError: if `key` is not a random key, or if a number is not an integer.

    >>> [data.batch_indices(jax.random.key(0), step, 10, 5).tolist() for step in range(2)]
    [[6, 0, 8, 9, 2], [1, 5, 4, 7, 3]]
    """
    key = checks.key("batch_indices", key)
    batch_size = checks.positive_int("batch_indices", "batch_size", batch_size)
    step, n = check_int32("batch_indices", "step", step, 0), check_int32("batch_indices", "n", n, 1)
    few = not isinstance(n, jax.Array) and batch_size <= n
    n = jnp.asarray(n, jnp.uint32)
    epoch, place = _divmod_product(jnp.asarray(step, jnp.uint32), batch_size, n)
    place = place + jnp.arange(batch_size, dtype=jnp.uint32)  # < 2³², because both terms are < 2³¹
    later, place = place // n, place % n
    if few:
        return shuffle(key, jnp.stack([epoch, epoch + 1]), place, n, later == 1).astype(jnp.int32)
    return shuffle(key, epoch + later, place, n).astype(jnp.int32)


def check_int32(where: str, name: str, value: Any, low: int) -> Any:
    """Check that an integer is ≥ `low`, and return it. The values of integer arrays of shape () are not checked."""
    if not isinstance(value, jax.Array | np.ndarray):
        return checks.positive_int(where, name, value, low)
    if not jnp.issubdtype(value.dtype, jnp.integer) or value.shape != ():
        raise TypeError(f"{where}: {name} must be one integer, got {value.dtype} of shape {value.shape}")
    return value


def shuffle(
    key: Key, epoch: UInt32[Array, " e"], place: UInt32[Array, " m"], n: Array, later: Bool[Array, " m"] | None = None
) -> UInt32[Array, " m"]:
    """Return the row number at each place of an epoch, by a bijection of 0 … n - 1 for each epoch.

    Args:
      key: one typed random key, which determines the order of all epochs.
      epoch: (m,) uint32, the epoch of each place. With `later`, it contains only the two epochs that occur, (2,), so
        their random words are drawn only once per round.
      place: (m,) uint32, the places within their epochs, < n.
      n: () uint32, the number of examples, < 2³¹.
      later: (m,) booleans, True for places in the second of the two epochs.
    """
    words = jax.random.bits(key, (ROUNDS, 2), jnp.uint32)
    epoch = _mix(epoch)

    def draw(words: Any) -> Any:  # for one round: the image of 0, and the word that determines the swap bits
        return _below(_mix(epoch ^ words[0]), n), epoch + words[1]

    def swap_or_not(x: Array, drawn: Any) -> tuple[Array, None]:
        image, tweak = draw(drawn) if later is None else (jnp.where(later, second, first) for first, second in drawn)
        partner = image - x  # modulo n: a negative difference wraps to a large number, which adding n makes small
        partner = jnp.minimum(partner, partner + n)
        bit = _mix(jnp.maximum(x, partner) ^ tweak) >> 31  # the same for both elements of the pair
        return jnp.where(bit == 1, partner, x), None

    drawn = words if later is None else jax.vmap(draw)(words)

    def rounds(place: Array, drawn: Any, *, unroll: int) -> Array:
        return lax.scan(swap_or_not, place, drawn, unroll=unroll)[0]

    # On a CPU, unrolling two rounds halves the loop overhead. Unrolling more does not help, because each round needs
    # the previous one. On an accelerator, each loop iteration takes several kernel launches, but the unrolled loop is
    # one kernel
    return lax.platform_dependent(place, drawn, cpu=partial(rounds, unroll=2), default=partial(rounds, unroll=ROUNDS))


def _mix(x: Array) -> Array:
    """Mix a 32-bit word with a bijection whose output bits all depend on every input bit."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _below(x: Array, n: Array) -> Array:
    """Return ⌊x n / 2³²⌋, which maps a random word to a number below n without a division."""
    low, high = x & 0xFFFF, x >> 16
    n_low, n_high = n & 0xFFFF, n >> 16
    middle = high * n_low + (low * n_low >> 16)
    return high * n_high + (middle >> 16) + ((low * n_high + (middle & 0xFFFF)) >> 16)


def _divmod_product(a: Array, b: int, n: Array) -> tuple[Array, Array]:
    """Return divmod(a · b, n) by multiplying bit by bit modulo n, because the product exceeds 32 bits.

    a, b and n must be < 2³¹, otherwise doubling a remainder would overflow. The quotient is exact modulo 2³².
    """
    quotient, rest = a // n, a % n
    q, r = jnp.zeros_like(a), jnp.zeros_like(a)
    for bit in bin(b)[2:]:
        q, r = 2 * q, 2 * r
        q, r = jnp.where(r >= n, q + 1, q), jnp.where(r >= n, r - n, r)
        if bit == "1":
            q, r = q + quotient, r + rest
            q, r = jnp.where(r >= n, q + 1, q), jnp.where(r >= n, r - n, r)
    return q, r
