"""The order of the data: an endless stream of shuffled epochs, of which any batch is computed by itself.

Position p of the stream lies in epoch p // n at place p mod n, and a keyed bijection of 0 … n - 1 shuffles the epoch.
Nothing is stored or sorted, no batch is ragged, and every example is seen once in each epoch.

The bijection is the swap-or-not shuffle: in round r, x and its mirror image K_r - x mod n change places if a bit
drawn for the pair says so. Each round is its own inverse, so all rounds together are a bijection, for every n. Hoang,
Morris and Rogaway 2012, "An enciphering scheme based on a card shuffle". Its security does not matter here, its
statistics do, so that a mixing function of a few integer operations stands for the cipher: T. Mueller's and C.
Wellons' 32-bit mixer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from nnjax import checks
from nnjax.types import Key

if TYPE_CHECKING:
    from jaxtyping import Bool, Int, UInt32

ROUNDS = 24  # 8 leave an order that a chi-square test can tell from random, 24 do not


def batch_indices(key: Key, step: Array | int, n: Array | int, batch_size: int) -> Int[Array, " batch"]:
    """The rows of a batch: a slice of an endless stream of shuffled epochs.

        index_j = shuffle(key, epoch)(place),   epoch, place = divmod(step · batch_size + j, n)

    Args:
      key: of the run; each epoch has its own order.
      step: from 0, any int32, traced or not; steps can be asked for in any order.
      n: number of examples, may be an array and traced.
      batch_size: length of the batch, may be larger than n.

    Returns:
      (batch_size,) int32 in 0 … n - 1.

    Raises:
      ValueError: for batch_size < 1, or n outside 1 … 2³¹ - 1 where it is known.
      TypeError: for a key that is none.

    >>> [data.batch_indices(jax.random.key(0), step, 10, 5).tolist() for step in range(2)]
    [[6, 0, 8, 9, 2], [1, 5, 4, 7, 3]]
    """
    key = checks.key("batch_indices", key)
    batch_size = checks.positive_int("batch_indices", "batch_size", batch_size)
    if not isinstance(n, jax.Array) and checks.positive_int("batch_indices", "n", n) >= 2**31:
        raise ValueError(f"batch_indices: n must be < 2³¹, got {n}")
    few = not isinstance(n, jax.Array) and batch_size <= n
    n = jnp.asarray(n, jnp.uint32)
    epoch, place = _divmod_product(jnp.asarray(step, jnp.uint32), batch_size, n)
    place = place + jnp.arange(batch_size, dtype=jnp.uint32)  # < 2³², for both terms are < 2³¹
    later, place = place // n, place % n
    if few:
        return shuffle(key, jnp.stack([epoch, epoch + 1]), place, n, later == 1).astype(jnp.int32)
    return shuffle(key, epoch + later, place, n).astype(jnp.int32)


def shuffle(
    key: Key, epoch: UInt32[Array, " e"], place: UInt32[Array, " m"], n: Array, later: Bool[Array, " m"] | None = None
) -> UInt32[Array, " m"]:
    """The example at each place of an epoch: for each epoch a bijection of 0 … n - 1.

    Args:
      key: one typed key.
      epoch: (m,) uint32, that of each place; or (2,), those that all places lie in, of which a round is drawn once.
      place: (m,) uint32, < n.
      n: () uint32, < 2³¹.
      later: (m,) which places lie in the second of two epochs.
    """
    words = jax.random.bits(key, (ROUNDS, 2), jnp.uint32)
    epoch = _mix(epoch)

    def draw(words: Any) -> Any:  # of one round: the image of 0, and what its bits depend on
        return _below(_mix(epoch ^ words[0]), n), epoch + words[1]

    def swap_or_not(x: Array, drawn: Any) -> tuple[Array, None]:
        image, tweak = draw(drawn) if later is None else (jnp.where(later, second, first) for first, second in drawn)
        partner = image - x  # modulo n; where it is below 0 it has wrapped, and n more is the smaller number
        partner = jnp.minimum(partner, partner + n)
        bit = _mix(jnp.maximum(x, partner) ^ tweak) >> 31  # the same for both of the pair
        return jnp.where(bit == 1, partner, x), None

    drawn = words if later is None else jax.vmap(draw)(words)
    # Two rounds at a time: a loop of one has twice its cost, and more in a row each wait for the one before
    return lax.scan(swap_or_not, place, drawn, unroll=2)[0]


def _mix(x: Array) -> Array:
    """A bijection of 32-bit words whose every output bit depends on every input bit."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _below(x: Array, n: Array) -> Array:
    """⌊x n / 2³²⌋: a random word as a number below n, by the high half of a product, without a slow division."""
    low, high = x & 0xFFFF, x >> 16
    n_low, n_high = n & 0xFFFF, n >> 16
    middle = high * n_low + (low * n_low >> 16)
    return high * n_high + (middle >> 16) + ((low * n_high + (middle & 0xFFFF)) >> 16)


def _divmod_product(a: Array, b: int, n: Array) -> tuple[Array, Array]:
    """divmod(a · b, n) without the product, which passes 32 bits: binary multiplication, reduced after each bit.

    All of a, b, n are < 2³¹, so that a remainder can be doubled. The quotient is exact modulo 2³².
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
