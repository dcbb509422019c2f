"""Forty-five optimizers in the shapes in which people publish them, each written from its formula.

A comment names where the shape is known from; no code is copied. The docstring derives by hand how the optimizer
differs from its reference.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch")

LR = 1e-3


class Wild(NamedTuple):
    """An optimizer, its reference and the truth: the ids of its causes; empty for a match, None for no known rule."""

    shape: str  # how it is called
    candidate: Any
    reference: Any
    truth: frozenset[str] | None
    leaves: bool = False  # True if the cause holds in some leaves only
    refusal: str = ""  # words of the refusal; "" if it must be accepted
    arguments: Mapping[str, Any] = {}  # further arguments of compare


def ids(*names):
    return frozenset(names)


# Functions ------------------------------------------------------------------------------------------------------------


# cs231n, assignment 2: optim.sgd_momentum
def cs231n_sgd_momentum(w, dw, config=None):
    """v ← μ v - λ g, w ← w + v: momentum with the learning rate inside v, equal at a constant rate. A match."""
    config = {} if config is None else config
    config.setdefault("learning_rate", 1e-2)
    config.setdefault("momentum", 0.9)
    v = config.get("velocity", np.zeros_like(w))
    v = config["momentum"] * v - config["learning_rate"] * dw
    config["velocity"] = v
    return w + v, config


# cs231n, assignment 2: optim.rmsprop
def cs231n_rmsprop(w, dw, config=None):
    """w ← w - λ g / (√s + ε): optax has ε inside the root."""
    config = {} if config is None else config
    config.setdefault("learning_rate", 1e-2)
    config.setdefault("decay_rate", 0.99)
    config.setdefault("epsilon", 1e-8)
    config.setdefault("cache", np.zeros_like(w))
    rho = config["decay_rate"]
    config["cache"] = rho * config["cache"] + (1 - rho) * dw**2
    return w - config["learning_rate"] * dw / (np.sqrt(config["cache"]) + config["epsilon"]), config


# cs231n, assignment 2: optim.adam
def cs231n_adam(w, dw, config=None):
    """t starts at 0 and is increased before its use; the paper's formula. A match."""
    config = {} if config is None else config
    config.setdefault("m", np.zeros_like(w))
    config.setdefault("v", np.zeros_like(w))
    config.setdefault("t", 0)
    config["t"] += 1
    config["m"] = 0.9 * config["m"] + 0.1 * dw
    config["v"] = 0.999 * config["v"] + 0.001 * dw**2
    m_hat, v_hat = config["m"] / (1 - 0.9 ** config["t"]), config["v"] / (1 - 0.999 ** config["t"])
    return w - 1e-3 * m_hat / (np.sqrt(v_hat) + 1e-8), config


# Coursera, Improving Deep Neural Networks: update_parameters_with_adam
def update_parameters_with_adam(parameters, grads, v, s, t, learning_rate=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """v is the first moment and s the second; t is an argument that counts from 1. The paper's formula. A match."""
    corrected = {}
    for k in range(1, len(parameters) // 2 + 1):
        for name in (f"W{k}", f"b{k}"):
            g = grads["d" + name]
            v["d" + name] = beta1 * v["d" + name] + (1 - beta1) * g
            s["d" + name] = beta2 * s["d" + name] + (1 - beta2) * g**2
            v_hat, s_hat = v["d" + name] / (1 - beta1**t), s["d" + name] / (1 - beta2**t)
            corrected["d" + name] = v_hat
            parameters[name] = parameters[name] - learning_rate * v_hat / (np.sqrt(s_hat) + epsilon)
    return parameters, v, s, corrected


# Coursera, Improving Deep Neural Networks: update_parameters_with_momentum
def update_parameters_with_momentum(parameters, grads, v, beta, learning_rate):
    """v ← β v + (1 - β) g: a moving average, where optax.sgd has a decaying sum."""
    for k in range(1, len(parameters) // 2 + 1):
        for name in (f"W{k}", f"b{k}"):
            v["d" + name] = beta * v["d" + name] + (1 - beta) * grads["d" + name]
            parameters[name] = parameters[name] - learning_rate * v["d" + name]
    return parameters, v


# Dive into Deep Learning, chapter on Adam (PyTorch)
def d2l_adam(params, states, hyperparams):
    """Gradients are read from `p.grad`; the counter is in `hyperparams`. The paper's formula, ε = 1e-6. A match."""
    for p, (v, s) in zip(params, states, strict=True):
        with torch.no_grad():
            v[:] = 0.9 * v + 0.1 * p.grad
            s[:] = 0.999 * s + 0.001 * torch.square(p.grad)
            v_hat, s_hat = v / (1 - 0.9 ** hyperparams["t"]), s / (1 - 0.999 ** hyperparams["t"])
            p[:] -= hyperparams["lr"] * v_hat / (torch.sqrt(s_hat) + 1e-6)
        p.grad.data.zero_()
    hyperparams["t"] += 1


# Dive into Deep Learning, chapter on Adagrad (PyTorch)
def d2l_adagrad(params, states, hyperparams):
    """p ← p - λ g / √(s + ε): PyTorch has ε outside the root."""
    for p, s in zip(params, states, strict=True):
        with torch.no_grad():
            s[:] += torch.square(p.grad)
            p[:] -= hyperparams["lr"] * p.grad / torch.sqrt(s + 1e-6)
        p.grad.data.zero_()


# Haiku and JAX tutorials: update(params, grads)
def haiku_sgd(params, grads):
    """Gradient descent without a state. A match."""
    return jax.tree.map(lambda p, g: p - LR * g, params, grads)


# JAX, "Training a simple neural network": parameters are [(w, b), …]
def jax_pairs_sgd(params, grads):
    """Gradient descent on a list of pairs. A match."""
    return [(w - LR * dw, b - LR * db) for (w, b), (dw, db) in zip(params, grads, strict=True)]


# JAX blog posts: (m, v, t) in a tuple, made by nobody
def tuple_adam(params, grads, opt_state):
    """The paper's formula, with a state (m, v, t) that starts with zeros. A match."""
    m, v, t = opt_state
    t = t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, v, grads)
    params = jax.tree.map(
        lambda p, m, v: p - LR * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), params, m, v
    )
    return params, (m, v, t)


# Notebooks: the arguments in the order of optax, the results in that of a step
def optim_in_another_order(dtheta, theta, s):
    """Gradient descent. A match."""
    return jax.tree.map(lambda p, g: p - LR * g, theta, dtheta), s


# PINN and PDE codes: everything is an argument
def pde_adam(theta, m, v, g, it):
    """`it` counts from 0, and t = it + 1. The paper's formula. A match."""
    t = it + 1
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    theta = theta - LR * (m / (1.0 - 0.9**t)) / (np.sqrt(v / (1.0 - 0.999**t)) + 1e-8)
    return theta, m, v


# HIPS autograd, misc.optimizers.adam: the whole loop
def hips_adam(grad, x, callback=None, num_iters=100, step_size=0.001, b1=0.9, b2=0.999, eps=10**-8):
    """m̂ and v̂ of i + 1, ε outside. The paper's formula. A match."""
    m = np.zeros(len(x))
    v = np.zeros(len(x))
    for i in range(num_iters):
        g = grad(x, i)
        if callback:
            callback(x, i, g)
        m = (1 - b1) * g + b1 * m
        v = (1 - b2) * g**2 + b2 * v
        x = x - step_size * (m / (1 - b1 ** (i + 1))) / (np.sqrt(v / (1 - b2 ** (i + 1))) + eps)
    return x


# HIPS autograd, misc.optimizers.sgd
def hips_sgd(grad, x, callback=None, num_iters=200, step_size=0.1, mass=0.9):
    """velocity ← mass · velocity - (1 - mass) g: a moving average, where optax has a decaying sum."""
    velocity = np.zeros(len(x))
    for i in range(num_iters):
        g = grad(x, i)
        if callback:
            callback(x, i, g)
        velocity = mass * velocity - (1.0 - mass) * g
        x = x + step_size * velocity
    return x


# HIPS autograd, misc.optimizers.rmsprop
def hips_rmsprop(grad, x, callback=None, num_iters=100, step_size=0.1, gamma=0.9, eps=10**-8):
    """The average of squares starts at 1, and ε is outside the root: two differences from optax."""
    average = np.ones(len(x))
    for i in range(num_iters):
        g = grad(x, i)
        if callback:
            callback(x, i, g)
        average = average * gamma + g**2 * (1 - gamma)
        x = x - step_size * g / (np.sqrt(average) + eps)
    return x


# BERT, optimization.AdamWeightDecayOptimizer: one array a call
def bert_adam(param, grad, m, v):
    """m / (√v + ε) without bias correction; decoupled decay. optax.adamw corrects both moments."""
    next_m = 0.9 * m + 0.1 * grad
    next_v = 0.999 * v + 0.001 * jnp.square(grad)
    update = next_m / (jnp.sqrt(next_v) + 1e-6) + 0.01 * param
    return param - LR * update, next_m, next_v


# Blog posts: a closure with its own state
def make_momentum(lr=LR, mu=0.9):
    """b ← μ b + g. A match; the function itself is the factory."""
    velocity = None

    def step(params, grads):
        nonlocal velocity
        velocity = [np.zeros_like(p) for p in params] if velocity is None else velocity
        velocity = [mu * b + g for b, g in zip(velocity, grads, strict=True)]
        return [p - lr * b for p, b in zip(params, velocity, strict=True)]

    return step


# Classes --------------------------------------------------------------------------------------------------------------


# Deep Learning from Scratch, common/optimizer.py: Momentum
class BookMomentum:
    """v ← μ v - λ g, θ ← θ + v, in place in flat dicts. A match."""

    def __init__(self, lr=0.01, momentum=0.9):
        self.lr, self.momentum, self.v = lr, momentum, None

    def update(self, params, grads):
        if self.v is None:
            self.v = {key: np.zeros_like(value) for key, value in params.items()}
        for key in params:
            self.v[key] = self.momentum * self.v[key] - self.lr * grads[key]
            params[key] += self.v[key]


# Deep Learning from Scratch, common/optimizer.py: Nesterov
class BookNesterov(BookMomentum):
    """θ ← θ + μ² v - (1 + μ) λ g with the *new* v; Nesterov's step needs the old one."""

    def update(self, params, grads):
        if self.v is None:
            self.v = {key: np.zeros_like(value) for key, value in params.items()}
        for key in params:
            self.v[key] *= self.momentum
            self.v[key] -= self.lr * grads[key]
            params[key] += self.momentum * self.momentum * self.v[key]
            params[key] -= (1 + self.momentum) * self.lr * grads[key]


# Deep Learning from Scratch, common/optimizer.py: AdaGrad
class BookAdaGrad:
    """h starts at 0 and ε is outside the root; optax starts at 0.1 and has ε inside."""

    def __init__(self, lr=0.01):
        self.lr, self.h = lr, None

    def update(self, params, grads):
        if self.h is None:
            self.h = {key: np.zeros_like(value) for key, value in params.items()}
        for key in params:
            self.h[key] += grads[key] * grads[key]
            params[key] -= self.lr * grads[key] / (np.sqrt(self.h[key]) + 1e-7)


# Deep Learning from Scratch, common/optimizer.py: Adam
class BookAdam:
    """λ_t = λ √(1 - β₂ᵗ)/(1 - β₁ᵗ), θ ← θ - λ_t m/(√v + ε): Keras' formula with Keras' ε. A match."""

    def __init__(self, lr=0.001, beta1=0.9, beta2=0.999):
        self.lr, self.beta1, self.beta2 = lr, beta1, beta2
        self.iter, self.m, self.v = 0, None, None

    def update(self, params, grads):
        if self.m is None:
            self.m = {key: np.zeros_like(value) for key, value in params.items()}
            self.v = {key: np.zeros_like(value) for key, value in params.items()}
        self.iter += 1
        lr_t = self.lr * np.sqrt(1.0 - self.beta2**self.iter) / (1.0 - self.beta1**self.iter)
        for key in params:
            self.m[key] += (1 - self.beta1) * (grads[key] - self.m[key])
            self.v[key] += (1 - self.beta2) * (grads[key] ** 2 - self.v[key])
            params[key] -= lr_t * self.m[key] / (np.sqrt(self.v[key]) + 1e-7)


# ML-From-Scratch, deep_learning/optimizers.py: Adam
class ScratchAdam:
    """m̂ = m/(1 - β₁) at every step: both corrections are constants."""

    def __init__(self, learning_rate=0.001, b1=0.9, b2=0.999):
        self.learning_rate, self.b1, self.b2, self.eps = learning_rate, b1, b2, 1e-8
        self.m = self.v = None

    def update(self, w, grad_wrt_w):
        if self.m is None:
            self.m, self.v = np.zeros(np.shape(grad_wrt_w)), np.zeros(np.shape(grad_wrt_w))
        self.m = self.b1 * self.m + (1 - self.b1) * grad_wrt_w
        self.v = self.b2 * self.v + (1 - self.b2) * np.power(grad_wrt_w, 2)
        m_hat, v_hat = self.m / (1 - self.b1), self.v / (1 - self.b2)
        self.w_updt = self.learning_rate * m_hat / (np.sqrt(v_hat) + self.eps)
        return w - self.w_updt


# ML-From-Scratch, deep_learning/optimizers.py: Adadelta
class ScratchAdadelta:
    """E[Δ²] is updated at the start of the next step, which is the same average. The paper's formula. A match."""

    def __init__(self, rho=0.95, eps=1e-6):
        self.rho, self.eps, self.E_w_updt, self.E_grad, self.w_updt = rho, eps, None, None, None

    def update(self, w, grad_wrt_w):
        if self.w_updt is None:
            self.w_updt, self.E_w_updt, self.E_grad = (np.zeros(np.shape(w)) for _ in range(3))
        self.E_w_updt = self.rho * self.E_w_updt + (1 - self.rho) * np.power(self.w_updt, 2)
        self.E_grad = self.rho * self.E_grad + (1 - self.rho) * np.power(grad_wrt_w, 2)
        self.w_updt = np.sqrt(self.E_w_updt + self.eps) / np.sqrt(self.E_grad + self.eps) * grad_wrt_w
        return w - self.w_updt


# numpy-ml, neural_nets/optimizers: Adam
class NumpyMLAdam:
    """The step uses the moments from before their update, but the new t: both moments lag one step."""

    def __init__(self, lr=0.001, decay1=0.9, decay2=0.999, eps=1e-8):
        self.lr, self.decay1, self.decay2, self.eps, self.cache = lr, decay1, decay2, eps, {}

    def update(self, param, param_grad, param_name, cur_loss=None):
        if param_name not in self.cache:
            self.cache[param_name] = {"t": 0, "mean": np.zeros_like(param_grad), "var": np.zeros_like(param_grad)}
        cache = self.cache[param_name]
        t, mean, var = cache["t"] + 1, cache["mean"], cache["var"]
        cache["t"] = t
        cache["var"] = self.decay2 * var + (1 - self.decay2) * param_grad**2
        cache["mean"] = self.decay1 * mean + (1 - self.decay1) * param_grad
        v_hat, m_hat = var / (1 - self.decay2**t), mean / (1 - self.decay1**t)
        return param - self.lr * m_hat / (np.sqrt(v_hat) + self.eps)


# Towards Data Science, "How to implement an Adam optimizer from scratch"
class BlogAdamOptim:
    """The bias' second moment averages g instead of g²; its root is NaN for negative gradients. Weights are right."""

    def __init__(self, eta=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8):
        self.m_dw, self.v_dw, self.m_db, self.v_db = 0, 0, 0, 0
        self.beta1, self.beta2, self.epsilon, self.eta = beta1, beta2, epsilon, eta

    def update(self, t, w, b, dw, db):
        self.m_dw = self.beta1 * self.m_dw + (1 - self.beta1) * dw
        self.m_db = self.beta1 * self.m_db + (1 - self.beta1) * db
        self.v_dw = self.beta2 * self.v_dw + (1 - self.beta2) * (dw**2)
        self.v_db = self.beta2 * self.v_db + (1 - self.beta2) * db
        m_dw, m_db = self.m_dw / (1 - self.beta1**t), self.m_db / (1 - self.beta1**t)
        v_dw, v_db = self.v_dw / (1 - self.beta2**t), self.v_db / (1 - self.beta2**t)
        w = w - self.eta * (m_dw / (np.sqrt(v_dw) + self.epsilon))
        b = b - self.eta * (m_db / (np.sqrt(v_db) + self.epsilon))
        return w, b


# Neural Networks from Scratch (nnfs.io): Optimizer_Adam
class BookOptimizerAdam:
    """Layers hold weights and gradients; iterations count from 0, and t = iterations + 1. A match with ε = 1e-7."""

    def __init__(self, learning_rate=0.001, decay=0.0, epsilon=1e-7, beta_1=0.9, beta_2=0.999):
        self.learning_rate = self.current_learning_rate = learning_rate
        self.decay, self.iterations, self.epsilon, self.beta_1, self.beta_2 = decay, 0, epsilon, beta_1, beta_2

    def pre_update_params(self):
        if self.decay:
            self.current_learning_rate = self.learning_rate / (1.0 + self.decay * self.iterations)

    def update_params(self, layer):
        if not hasattr(layer, "weight_cache"):
            layer.weight_momentums, layer.weight_cache = np.zeros_like(layer.weights), np.zeros_like(layer.weights)
            layer.bias_momentums, layer.bias_cache = np.zeros_like(layer.biases), np.zeros_like(layer.biases)
        t = self.iterations + 1
        layer.weight_momentums = self.beta_1 * layer.weight_momentums + (1 - self.beta_1) * layer.dweights
        layer.bias_momentums = self.beta_1 * layer.bias_momentums + (1 - self.beta_1) * layer.dbiases
        layer.weight_cache = self.beta_2 * layer.weight_cache + (1 - self.beta_2) * layer.dweights**2
        layer.bias_cache = self.beta_2 * layer.bias_cache + (1 - self.beta_2) * layer.dbiases**2
        for name, kind in (("weights", "weight"), ("biases", "bias")):
            m = getattr(layer, f"{kind}_momentums") / (1 - self.beta_1**t)
            v = getattr(layer, f"{kind}_cache") / (1 - self.beta_2**t)
            new = getattr(layer, name) - self.current_learning_rate * m / (np.sqrt(v) + self.epsilon)
            setattr(layer, name, new)

    def post_update_params(self):
        self.iterations += 1


# estool and OpenAI evolution strategies: Adam on the flat vector of a policy
class EvolutionAdam:
    """step = -a m / (√v + ε), a = λ √(1 - β₂ᵗ)/(1 - β₁ᵗ): ε is added before the correction (the paper's ε̂)."""

    def __init__(self, policy, stepsize=0.01, beta1=0.99, beta2=0.999):
        self.pi, self.stepsize, self.beta1, self.beta2 = policy, stepsize, beta1, beta2
        self.dim, self.epsilon, self.t = policy.num_params, 1e-8, 0
        self.m = np.zeros(self.dim)
        self.v = np.zeros(self.dim)

    def update(self, globalg):
        self.t += 1
        a = self.stepsize * np.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)
        self.m = self.beta1 * self.m + (1 - self.beta1) * globalg
        self.v = self.beta2 * self.v + (1 - self.beta2) * (globalg * globalg)
        self.pi.mu = self.pi.mu - a * self.m / (np.sqrt(self.v) + self.epsilon)


class Policy:
    """What EvolutionAdam changes: a flat vector `mu`."""

    def __init__(self, mu):
        self.mu, self.num_params = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(mu)]), None
        self.num_params = len(self.mu)


# scikit-learn, neural_network._stochastic_optimizers: AdamOptimizer
class HolderAdam:
    """Holds its arrays and changes them in place; ε is added before the correction (the paper's ε̂)."""

    def __init__(self, params, learning_rate_init=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
        self.params = list(params)
        self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon = learning_rate_init, beta_1, beta_2, epsilon
        self.t = 0
        self.ms = [np.zeros_like(param) for param in self.params]
        self.vs = [np.zeros_like(param) for param in self.params]

    def update_params(self, grads):
        self.t += 1
        self.ms = [self.beta_1 * m + (1 - self.beta_1) * g for m, g in zip(self.ms, grads, strict=True)]
        self.vs = [self.beta_2 * v + (1 - self.beta_2) * g**2 for v, g in zip(self.vs, grads, strict=True)]
        rate = self.learning_rate_init * np.sqrt(1 - self.beta_2**self.t) / (1 - self.beta_1**self.t)
        for param, m, v in zip(self.params, self.ms, self.vs, strict=True):
            param += -rate * m / (np.sqrt(v) + self.epsilon)  # noqa: PLW2901


# tinynn: RMSProp with momentum, `apply_grad`
class ApplyGradRMSProp:
    """b ← μ b + λ g/√(s + ε): optax.rmsprop with momentum. A match."""

    def __init__(self, params, lr=0.01, decay=0.99, momentum=0.9, epsilon=1e-8):
        self.params, self.lr, self.decay, self.momentum, self.epsilon = params, lr, decay, momentum, epsilon
        self.rms = dict.fromkeys(params, 0.0)
        self.mom = dict.fromkeys(params, 0.0)

    def apply_grad(self, grads):
        for name, grad in grads.items():
            self.rms[name] += (1 - self.decay) * (grad**2 - self.rms[name])
            self.mom[name] = self.momentum * self.mom[name] + self.lr * grad / (self.rms[name] + self.epsilon) ** 0.5
            self.params[name] -= self.mom[name]


# micrograd and its descendants: SGD on objects with .data and .grad
class ValueSGD:
    """Gradient descent. A match."""

    def __init__(self, parameters, lr=LR):
        self.parameters, self.lr = parameters, lr

    def step(self):
        for p in self.parameters:
            p.data -= self.lr * p.grad


# Keras-like code from scratch: apply_gradients(zip(grads, variables))
class VariablesAdam:
    """The counter increases with every variable instead of every step."""

    def __init__(self, lr=LR):
        self.lr, self.t, self.m, self.v = lr, 0, {}, {}

    def apply_gradients(self, grads_and_vars):
        for i, (g, var) in enumerate(grads_and_vars):
            self.t += 1
            self.m[i] = 0.9 * self.m.get(i, 0.0) + 0.1 * g
            self.v[i] = 0.999 * self.v.get(i, 0.0) + 0.001 * g**2
            m_hat, v_hat = self.m[i] / (1 - 0.9**self.t), self.v[i] / (1 - 0.999**self.t)
            var -= self.lr * m_hat / (np.sqrt(v_hat) + 1e-8)  # noqa: PLW2901


# Blog posts on JAX: a class that keeps its moment
class SelfMomentum:
    """b ← μ b + g on self. A match in a Python loop; jit would freeze b, so it runs eagerly only."""

    def __init__(self, learning_rate=LR):
        self.learning_rate, self.velocity = learning_rate, None

    def step(self, params, grads):
        if self.velocity is None:
            self.velocity = jax.tree.map(jnp.zeros_like, params)
        self.velocity = jax.tree.map(lambda b, g: 0.9 * b + g, self.velocity, grads)
        return jax.tree.map(lambda p, b: p - self.learning_rate * b, params, self.velocity)


# Objects of JAX -------------------------------------------------------------------------------------------------------


# NumPyro: optim.ClippedAdam, an object with init, update and get_params
class GetParamsClippedAdam:
    """Gradients are clipped to ±10 element by element before Adam."""

    def __init__(self, step_size=LR, clip_norm=10.0):
        self.step_size, self.clip_norm = step_size, clip_norm

    def init(self, params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jnp.array(0), (params, zeros, zeros)

    def update(self, g, state):
        i, (x, m, v) = state
        g = jax.tree.map(lambda g: jnp.clip(g, -self.clip_norm, self.clip_norm), g)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, v, g)
        x = jax.tree.map(
            lambda x, m, v: (
                x - self.step_size * (m / (1 - 0.9 ** (i + 1))) / (jnp.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-8)
            ),
            x, m, v,
        )  # fmt: skip
        return i + 1, (x, m, v)

    def get_params(self, state):
        return state[1][0]


def own_momentum(lr=LR, mu=0.9):
    """(init, update) of b ← μ b + (1 - μ) g."""

    def update(grads, state, params=None):
        b = jax.tree.map(lambda b, g: mu * b + (1 - mu) * g, state, grads)
        return jax.tree.map(lambda b: -lr * b, b), b

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


# Flax examples: TrainState with an own transformation
def train_state(params):
    """The velocity is a moving average, where optax.sgd has a decaying sum."""
    from flax.training.train_state import TrainState

    return TrainState.create(apply_fn=None, params=params, tx=own_momentum())


# Flax NNX examples: nnx.Optimizer with an own transformation
def nnx_optimizer(model):
    """The velocity is a moving average, where optax.sgd has a decaying sum."""
    from flax import nnx

    return nnx.Optimizer(model, own_momentum(), wrt=nnx.Param)


# jax.example_libraries.optimizers: a triple with (i, g, state)
def triple_adam(step_size):
    """The counter i starts at 0, and t = i + 1. The paper's formula. A match."""

    def init(x0):
        return x0, jax.tree.map(jnp.zeros_like, x0), jax.tree.map(jnp.zeros_like, x0)

    def update(i, g, state):
        x, m, v = state
        m = jax.tree.map(lambda m, g: 0.1 * g + 0.9 * m, m, g)
        v = jax.tree.map(lambda v, g: 0.001 * jnp.square(g) + 0.999 * v, v, g)

        def step(x, m, v):
            m_hat = m / (1 - jnp.asarray(0.9, m.dtype) ** (i + 1))
            v_hat = v / (1 - jnp.asarray(0.999, m.dtype) ** (i + 1))
            return x - step_size * m_hat / (jnp.sqrt(v_hat) + 1e-8)

        new = jax.tree.map(step, x, m, v)
        return new, m, v

    return init, update, lambda state: state[0]


# Trax: Optimizer with init(weights) and update(step, grads, weights, slots, opt_params)
class SlotsAdam:
    """The decay, (1 - w) θ, is not multiplied by the learning rate; optax' is, and w is the same."""

    def init(self, weights):
        return np.zeros_like(weights), np.zeros_like(weights)

    def update(self, step, grads, weights, slots, opt_params=None):
        rate = 1e-3 if opt_params is None else opt_params["learning_rate"]
        m, v = slots
        m = 0.1 * grads + 0.9 * m
        v = 0.001 * grads**2 + 0.999 * v
        m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        weights = (1 - 1e-5) * weights - rate * m_hat / (np.sqrt(v_hat) + 1e-5)
        return weights, (m, v)


# PyTorch --------------------------------------------------------------------------------------------------------------


class TorchOptimizer(torch.optim.Optimizer):
    """The loop over parameters that all classes below share."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, self.state[p], group)
        return loss


# timm: RMSpropTF
class TimmRMSpropTF(TorchOptimizer):
    """The average of squares starts at 1 and ε is inside the root; PyTorch starts at 0 with ε outside.

    With ε = 1e-3, as for EfficientNet; timm's default of 1e-10 is below rounding beside the first average of 1.
    """

    def __init__(self, params, lr=1e-2, alpha=0.9, eps=1e-10, momentum=0.0):
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum})

    def update(self, p, g, state, group):
        if not state:
            state["square_avg"] = torch.ones_like(p)
            state["momentum_buffer"] = torch.zeros_like(p)
        state["square_avg"].add_(g.pow(2) - state["square_avg"], alpha=1 - group["alpha"])
        root = state["square_avg"].add(group["eps"]).sqrt_()
        buffer = state["momentum_buffer"]
        buffer.mul_(group["momentum"]).addcdiv_(g, root, value=group["lr"])
        p.add_(-buffer)


# transformers: AdamW, before 4.46
class TransformersAdamW(TorchOptimizer):
    """Three differences from torch.optim.AdamW: ε before the correction, ε = 1e-6, decay of the updated parameters."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def update(self, p, g, state, group):
        if not state:
            state["step"], state["exp_avg"], state["exp_avg_sq"] = 0, torch.zeros_like(p), torch.zeros_like(p)
        (beta1, beta2), m, v = group["betas"], state["exp_avg"], state["exp_avg_sq"]
        state["step"] += 1
        m.mul_(beta1).add_(g, alpha=1.0 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1.0 - beta2)
        step_size = group["lr"] * (1.0 - beta2 ** state["step"]) ** 0.5 / (1.0 - beta1 ** state["step"])
        p.addcdiv_(m, v.sqrt().add_(group["eps"]), value=-step_size)
        if group["weight_decay"] > 0.0:
            p.add_(p, alpha=-group["lr"] * group["weight_decay"])


# Stanford CS336, assignment 1: AdamW
class CS336AdamW(TorchOptimizer):
    """Two differences from torch.optim.AdamW: ε before the correction, decay of the updated parameters."""

    def __init__(self, params, lr=1e-3, weight_decay=0.01, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps})

    def update(self, p, g, state, group):
        (beta1, beta2), t = group["betas"], state.get("t", 1)
        m = beta1 * state.get("m", torch.zeros_like(p)) + (1 - beta1) * g
        v = beta2 * state.get("v", torch.zeros_like(p)) + (1 - beta2) * g * g
        rate = group["lr"] * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        p -= rate * m / (torch.sqrt(v) + group["eps"])
        p -= group["lr"] * group["weight_decay"] * p
        state["t"], state["m"], state["v"] = t + 1, m, v


# Stanford CS336, assignment 1: SGD with a falling rate
class CS336SGD(TorchOptimizer):
    """θ ← θ - λ/√(t + 1) g, t = 0, 1, …: the learning rate falls."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    def update(self, p, g, state, group):
        t = state.get("t", 0)
        p.data -= group["lr"] / (t + 1) ** 0.5 * g
        state["t"] = t + 1


# labml: Adam with optimized_update
class LabmlAdam(TorchOptimizer):
    """θ ← θ - λ √(1 - β₂ᵗ)/(1 - β₁ᵗ) m/(√v + ε): ε before the correction, and ε = 1e-16 in both."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-16):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def update(self, p, g, state, group):
        if not state:
            state["step"], state["exp_avg"], state["exp_avg_sq"] = 0, torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        (beta1, beta2), m, v, t = group["betas"], state["exp_avg"], state["exp_avg_sq"], state["step"]
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        p.addcdiv_(m, v.sqrt() + group["eps"], value=-group["lr"] * (1 - beta2**t) ** 0.5 / (1 - beta1**t))


# lion-pytorch: Lion
class LucidLion(TorchOptimizer):
    """p ← (1 - λ w) p, then λ sign(β₁ m + (1 - β₁) g), m with β₂. The paper's formula. A match."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def update(self, p, g, state, group):
        state.setdefault("exp_avg", torch.zeros_like(p))
        beta1, beta2 = group["betas"]
        p.mul_(1.0 - group["lr"] * group["weight_decay"])
        direction = state["exp_avg"].clone().mul_(beta1).add(g, alpha=1.0 - beta1).sign_()
        p.add_(direction, alpha=-group["lr"])
        state["exp_avg"].mul_(beta2).add_(g, alpha=1.0 - beta2)


# Keller Jordan: Muon, for matrices only
class MatrixMuon(TorchOptimizer):
    """m ← μ m + (1 - μ) g, u = (1 - μ) g + μ m, orthogonalised by five Newton-Schulz steps: Muon, not SGD."""

    def __init__(self, params, lr=0.02, momentum=0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    def update(self, p, g, state, group):
        assert g.ndim == 2, "Muon is for matrices"
        buffer = state.setdefault("momentum_buffer", torch.zeros_like(g))
        buffer.lerp_(g, 1 - group["momentum"])
        x = g.lerp(buffer, group["momentum"])
        x = x.T if g.size(0) > g.size(1) else x
        x = x / (x.norm() + 1e-7)
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        x = x.T if g.size(0) > g.size(1) else x
        p.add_(x, alpha=-group["lr"] * max(1, g.size(0) / g.size(1)) ** 0.5)


# SAM in PyTorch: two passes over the loss
class ClosureSAM(TorchOptimizer):
    """θ ← θ - λ ∇f(θ + ρ g/‖g‖): the closure is called a second time, at the perturbed parameters. A match."""

    def __init__(self, params, lr=LR, rho=0.05):
        super().__init__(params, {"lr": lr, "rho": rho})

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None, "SAM requires closure, but it was not provided"
        closure = torch.enable_grad()(closure)
        closure()
        params = [p for group in self.param_groups for p in group["params"]]
        norm = torch.stack([p.grad.norm() for p in params]).norm()
        olds = [p.clone() for p in params]
        for p in params:
            p.add_(p.grad * self.defaults["rho"] / norm)
        closure()
        for p, old in zip(params, olds, strict=True):
            p.copy_(old - self.defaults["lr"] * p.grad)


# optax.contrib: SAM in one step
def sam_reference():
    """SGD with the gradient at θ + ρ g/‖g‖, twice: optax's normalisation is of the whole tree."""
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    return optax.contrib.sam(optax.sgd(LR), ascent, sync_period=2, opaque_mode=True)


partial = functools.partial
OPTAX = {"sgd": optax.sgd(LR), "momentum": optax.sgd(LR, 0.9), "adam": optax.adam(LR)}

WILD = {
    "cs231n sgd_momentum": Wild("f(w, dw, config)", cs231n_sgd_momentum, optax.sgd(1e-2, 0.9), ids()),
    "cs231n rmsprop": Wild("f(w, dw, config)", cs231n_rmsprop, optax.rmsprop(1e-2, 0.99), ids("eps-outside")),
    "cs231n adam": Wild("f(w, dw, config)", cs231n_adam, OPTAX["adam"], ids()),
    "Coursera adam": Wild("f(W1/b1, dW1/db1, v, s, t)", update_parameters_with_adam, optax.adam(1e-2), ids()),
    "Coursera momentum": Wild(
        "f(W1/b1, dW1/db1, v)", partial(update_parameters_with_momentum, beta=0.9, learning_rate=LR),
        OPTAX["momentum"], ids("velocity-ema"),
    ),
    "d2l adam": Wild(
        "f(tensors, states, hyperparams)", partial(d2l_adam, hyperparams={"lr": 0.01, "t": 1}),
        partial(torch.optim.Adam, lr=0.01, eps=1e-6), ids(),
        arguments={"init": lambda params: [(torch.zeros_like(p), torch.zeros_like(p)) for p in params]},
    ),
    "d2l adagrad": Wild(
        "f(tensors, states, hyperparams)", partial(d2l_adagrad, hyperparams={"lr": 0.1}),
        partial(torch.optim.Adagrad, lr=0.1, eps=1e-6), ids("eps-inside"),
        arguments={"init": lambda params: [torch.zeros_like(p) for p in params]},
    ),
    "Haiku sgd": Wild("f(params, grads)", haiku_sgd, OPTAX["sgd"], ids()),
    "JAX [(w, b)] sgd": Wild("f([(w, b), …], grads)", jax_pairs_sgd, OPTAX["sgd"], ids()),
    "JAX (m, v, t) adam": Wild("f(params, grads, (m, v, t))", tuple_adam, OPTAX["adam"], ids()),
    "gradient first": Wild("f(dtheta, theta, s)", optim_in_another_order, OPTAX["sgd"], ids()),
    "PDE adam": Wild("f(theta, m, v, g, it)", pde_adam, OPTAX["adam"], ids()),
    "HIPS adam": Wild("loop(grad, x)", hips_adam, OPTAX["adam"], ids()),
    "HIPS sgd": Wild("loop(grad, x)", hips_sgd, optax.sgd(0.1, 0.9), ids("velocity-ema")),
    "HIPS rmsprop": Wild("loop(grad, x)", hips_rmsprop, optax.rmsprop(0.1), ids("second_start", "eps-outside")),
    "BERT adam": Wild(
        "f(param, grad, m, v)", bert_adam, optax.adamw(LR, eps=1e-6, weight_decay=0.01),
        ids("first_correction-none", "second_correction-none"),
    ),
    "closure momentum": Wild("make() -> f(params, grads)", make_momentum, OPTAX["momentum"], ids()),
    "book Momentum": Wild("o.update(dict, dict)", BookMomentum(), optax.sgd(1e-2, 0.9), ids()),
    "book Nesterov": Wild(
        "o.update(dict, dict)", BookNesterov(), optax.sgd(1e-2, 0.9, nesterov=True), ids("nesterov-new-velocity")
    ),
    "book AdaGrad": Wild(
        "o.update(dict, dict)", BookAdaGrad(), optax.adagrad(1e-2), ids("second_start", "eps-outside")
    ),
    "book Adam": Wild("o.update(dict, dict)", BookAdam(), "keras.adam", ids()),
    "ML-From-Scratch Adam": Wild(
        "o.update(w, grad)", ScratchAdam(), OPTAX["adam"],
        ids("first_correction-constant", "second_correction-constant"),
    ),
    "ML-From-Scratch Adadelta": Wild("o.update(w, grad)", ScratchAdadelta(), optax.adadelta(1.0, 0.95, 1e-6), ids()),
    "numpy-ml Adam": Wild(
        "o.update(param, grad, name)", NumpyMLAdam(), OPTAX["adam"], ids("first_lag-one-step", "second_lag-one-step")
    ),
    "blog AdamOptim": Wild(
        "o.update(t, w, b, dw, db)", BlogAdamOptim(), optax.adam(1e-2), ids("second-gradient"), leaves=True
    ),
    "nnfs Optimizer_Adam": Wild(
        "o.update_params(layer)", BookOptimizerAdam(), optax.adam(LR, eps=1e-7), ids()
    ),
    "estool Adam": Wild(
        "o.update(grad), holds a policy", lambda params: EvolutionAdam(Policy(params)), optax.adam(1e-2, 0.99),
        ids("eps-before-correction"),
    ),
    "scikit-learn Adam": Wild(
        "o.update_params(grads), holds arrays", HolderAdam, OPTAX["adam"], ids("eps-before-correction")
    ),
    "tinynn RMSProp": Wild(
        "o.apply_grad(grads), holds a dict", ApplyGradRMSProp, optax.rmsprop(1e-2, 0.99, momentum=0.9), ids()
    ),
    "micrograd SGD": Wild("o.step(), holds .data and .grad", ValueSGD, OPTAX["sgd"], ids()),
    "Keras-like Adam": Wild(
        "o.apply_gradients(zip)", VariablesAdam(), OPTAX["adam"], ids("counter-per-leaf")
    ),
    "JAX class momentum": Wild("o.step(params, grads)", SelfMomentum(), OPTAX["momentum"], ids()),
    "NumPyro ClippedAdam": Wild(
        "o.init, o.update, o.get_params", GetParamsClippedAdam(), OPTAX["adam"], ids("clip-value", "clip")
    ),
    "flax TrainState": Wild("params -> TrainState", train_state, OPTAX["momentum"], ids("velocity-ema")),
    "nnx.Optimizer": Wild("model -> nnx.Optimizer", nnx_optimizer, OPTAX["momentum"], ids("velocity-ema")),
    "triple adam": Wild("(init, update, get_params)", triple_adam(LR), OPTAX["adam"], ids()),
    "trax Adam": Wild(
        "o.init, o.update(step, grads, weights, slots)", SlotsAdam(),
        optax.adamw(LR, eps=1e-5, weight_decay=1e-5), ids("decay-without-rate"),
    ),
    "timm RMSpropTF": Wild(
        "torch class", partial(TimmRMSpropTF, lr=1e-2, eps=1e-3),
        partial(torch.optim.RMSprop, lr=1e-2, alpha=0.9, eps=1e-3),
        ids("second_start", "eps-inside"),
    ),
    "transformers AdamW": Wild(
        "torch class", partial(TransformersAdamW, lr=1e-3, weight_decay=0.01),
        partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01),
        ids("eps-before-correction", "decay-after-update", "eps"),
    ),
    "CS336 AdamW": Wild(
        "params -> torch optimizer", lambda params: CS336AdamW(params, lr=1e-3),
        partial(torch.optim.AdamW, lr=1e-3), ids("eps-before-correction", "decay-after-update"),
    ),
    "CS336 SGD": Wild(
        "torch instance", CS336SGD([torch.nn.Parameter(torch.zeros(2))]), OPTAX["sgd"], ids("schedule-inverse-root")
    ),
    "labml Adam": Wild(
        "torch class", LabmlAdam, partial(torch.optim.Adam, lr=1e-3, eps=1e-16), ids("eps-before-correction")
    ),
    "lion-pytorch": Wild(
        "torch class", partial(LucidLion, weight_decay=0.1), optax.lion(1e-4, weight_decay=0.1), ids()
    ),
    "Muon": Wild("torch class, matrices only", MatrixMuon, optax.sgd(0.02, 0.95), ids("rule-muon")),
    "SAM": Wild("torch class with a closure", ClosureSAM, sam_reference(), ids()),
}  # fmt: skip
