"""Run the jobs with JAX code as an expert would write it, using only JAX and optax, one file per kind of work."""

from benchmarks.peers.plain_jax.deep_network import deep_network
from benchmarks.peers.plain_jax.dispatch import dispatch
from benchmarks.peers.plain_jax.ensemble import conv_ensemble, ensemble, sweep
from benchmarks.peers.plain_jax.fresh_process import fresh_process
from benchmarks.peers.plain_jax.shuffle import shuffle
from benchmarks.peers.plain_jax.training import training

__all__ = [
    "APART",
    "FORMS",
    "NAME",
    "NEEDS",
    "conv_ensemble",
    "deep_network",
    "dispatch",
    "ensemble",
    "fresh_process",
    "shuffle",
    "sweep",
    "training",
]

NAME = "plain JAX"
NEEDS = ("jax", "optax")
FORMS = {
    "training": ("naive", "fast", "NumPy order"),
    "ensemble": ("vmap", "map", "vmap on all cores", "map on all cores"),
    "conv_ensemble": ("vmap", "map on all cores", "loop"),
    "sweep": ("vmap", "vmap on all cores", "loop"),
    "deep_network": ("scan", "indexed", "unrolled list"),
    "shuffle": ("permutation",),
    "fresh_process": ("process",),
    "dispatch": ("jit",),
}
APART = ("vmap on all cores", "map on all cores")
