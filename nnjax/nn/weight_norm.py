"""Normalise the weights of a layer: weight normalisation and spectral normalisation."""

import jax
import jax.numpy as jnp
from jax import Array

from nnjax import checks
from nnjax.nn._features import wide_dtype
from nnjax.nn.as_layer import as_layer
from nnjax.types import Key, Layer, LayerLike, Params, PyTree, State


def weight_norm(layer: LayerLike) -> Layer:
    """Train the length and the direction of a layer's weight vectors separately.

        w_j = g_j · v_j / |v_j|   for each output j

    Args:
      layer: A layer with a parameter `w` whose last axis indexes the outputs, such as `dense` or `conv`.

    Shapes: as for the layer. Parameters are the layer's, with v stored in `w`, plus `g` (outputs,). `g` starts as the
    lengths of the initial weight vectors, so the initial outputs equal the layer's.

    Raises:
      TypeError: if the layer has no parameter `w` with at least two axes.

    >>> layer = nn.weight_norm(nn.dense(3))
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> sorted(params), params["g"].shape
    (['b', 'g', 'w'], (3,))

    Source: Salimans and Kingma 2016, arXiv:1602.07868.
    """
    layer = as_layer(layer)
    name = f"weight_norm({layer.name})"

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        params, state = layer.init(key, x)
        _check_weights(name, params)
        return params | {"g": _lengths(params["w"])}, state

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        _check_weights(name, params, "g")
        factors = (params["g"] / _lengths(params["w"])).reshape((1,) * (params["w"].ndim - 1) + (-1,))
        inner = {name: leaf for name, leaf in params.items() if name != "g"} | {"w": params["w"] * factors}
        return layer.apply(inner, state, x, train=train, key=key)

    return Layer(name, init, apply)


def spectral_norm(layer: LayerLike, *, iterations: int = 1, eps: float = 1e-12) -> Layer:
    """Divide a layer's weights by the largest singular value of their matrix; a dense layer is then 1-Lipschitz.

        w = W / σ,   σ = vᵀ W u;   in training, `iterations` times:   u ← Wᵀ v / |Wᵀ v|,   v ← W u / |W u|

    W is `w` as a matrix (inputs, outputs). W changes slowly, so each step continues with the previous u and v. The
    gradient treats u and v as constants, which is exact once they have converged.

    Args:
      layer: A layer with a parameter `w` whose last axis indexes the outputs, such as `dense` or `conv`.
      iterations: Number of power iterations in each training step.
      eps: Lower bound for the norms |Wᵀ v| and |W u|.

    Shapes and parameters: as for the layer. The state is `{"layer": state of the layer, "u": (outputs,),
    "v": (inputs,)}`; u and v start from 15 power iterations, as in torch.

    Raises:
      TypeError: if the layer has no parameter `w` with at least two axes.
      ValueError: if iterations < 1 or eps ≤ 0.

    >>> layer = nn.spectral_norm(nn.dense(3, bias=False))
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> y, _ = layer.apply(params, state, jnp.eye(4), train=False)
    >>> f"{jnp.linalg.norm(y, 2):.2f}"
    '1.00'

    Source: Miyato et al. 2018, arXiv:1802.05957.
    """
    layer = as_layer(layer)
    iterations = checks.positive_int("spectral_norm", "iterations", iterations)
    eps = checks.in_range("spectral_norm", "eps", eps, "(0, inf)")
    name = f"spectral_norm({layer.name})"

    def iterate(w: Array, u: Array, v: Array, n: int) -> tuple[Array, Array]:
        for _ in range(n):
            u = _unit(v @ w, eps)
            v = _unit(w @ u, eps)
        return u, v

    def init(key: Key, x: PyTree, /) -> tuple[Params, State]:
        key = checks.key(name, key, x)
        params, state = layer.init(jax.random.fold_in(key, 0), x)
        _check_weights(name, params)
        w = _matrix(params["w"]).astype(wide_dtype(params["w"].dtype))
        v = _unit(jax.random.normal(jax.random.fold_in(key, 1), w.shape[:1], w.dtype), eps)
        u, v = iterate(w, jnp.zeros_like(w[0]), v, 15)
        return params, {"layer": state, "u": u, "v": v}

    def apply(
        params: Params, state: State, x: PyTree, /, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree, State]:
        _check_weights(name, params)
        w = _matrix(params["w"])
        if not isinstance(state, dict) or "layer" not in state:
            raise ValueError(f"{name}: state must be a dict of layer, u, v, as returned by init, got {state!r:.60}")
        vectors = {k: v for k, v in state.items() if k != "layer"}
        checks.leaves(name, "state", vectors, {"u": (w.shape[1],), "v": (w.shape[0],)})
        w = w.astype(state["u"].dtype)
        u, v = state["u"], state["v"]
        if train:
            u, v = iterate(jax.lax.stop_gradient(w), u, v, iterations)
        inner = params | {"w": params["w"] / (v @ w @ u).astype(params["w"].dtype)}
        y, inner_state = layer.apply(inner, state["layer"], x, train=train, key=key)
        return y, {"layer": inner_state, "u": u, "v": v}

    return Layer(name, init, apply)


def _check_weights(name: str, params: Params, *others: str) -> None:
    if not isinstance(params, dict) or not {"w", *others} <= set(params) or jnp.ndim(params["w"]) < 2:
        raise TypeError(
            f"{name}: params must be a dict with {', '.join(['w', *others])}, like those of dense and conv; wrap each "
            f"layer separately; got {params!r:.60}"
        )


def _matrix(w: Array) -> Array:
    """Return the weights as a matrix (inputs, outputs)."""
    return w.reshape(-1, w.shape[-1])


def _lengths(w: Array) -> Array:
    """Return the length (outputs,) of each output's weight vector."""
    return jnp.sqrt(jnp.square(_matrix(w)).sum(0))


def _unit(vector: Array, eps: float) -> Array:
    return vector / jnp.maximum(jnp.sqrt(jnp.square(vector).sum()), jnp.asarray(eps, vector.dtype))
