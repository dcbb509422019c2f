"""Optimizers in styles of courses and small frameworks, correct and wrong: the verdicts, and how they are called."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optcheck_runs import difference

from nnjax import optcheck
from nnjax.optcheck.calling.adapters import adapt

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # wrong rules take roots of negative numbers


def lion(w, dw, cfg=None, stored=0.99):
    """A course's style: the state is an optional dict with an unusual name."""
    cfg = {} if cfg is None else cfg
    m = cfg.get("buffer", np.zeros_like(w))
    w = w - 1e-4 * np.sign(0.9 * m + 0.1 * dw)
    cfg["buffer"] = stored * m + (1 - stored) * dw
    return w, cfg


LION = functools.partial(optax.lion, 1e-4, weight_decay=0.0)


def test_an_optional_state_of_any_name_is_a_state():
    report = optcheck.compare(lion, LION())
    assert report.ok
    assert report.called.startswith("lion(params, grads, state)")
    assert [cause.id for cause in optcheck.compare(functools.partial(lion, stored=0.9), LION()).causes] == ["b2"]


class Yogi:
    def __init__(self, sign):
        self.moments, self.count, self.sign = {}, 0, sign

    def update(self, p, g):
        self.count += 1
        for name in p:
            m, v = self.moments.get(name, (np.full_like(p[name], 1e-6), np.full_like(p[name], 1e-6)))
            square = g[name] ** 2
            m, v = 0.9 * m + 0.1 * g[name], v + self.sign * 0.001 * np.sign(v - square) * square
            self.moments[name] = m, v
            m_hat, v_hat = m / (1 - 0.9**self.count), v / (1 - 0.999**self.count)
            p[name] -= 0.01 * m_hat / (np.sqrt(v_hat) + 1e-3)


def test_yogi_with_the_wrong_sign_is_named_and_its_nan_is_no_breach():
    assert optcheck.compare(Yogi(-1), optax.yogi(0.01)).ok
    report = optcheck.compare(Yogi(1), optax.yogi(0.01))
    assert [cause.id for cause in report.causes] == ["second-yogi-wrong-sign"]
    assert {violation.rule for violation in report.violations} == {"runs eagerly only"}


def test_a_step_without_its_sign_says_that_updates_are_added():
    def apply(o, x, dx):
        return 0.01 * dx

    report = optcheck.compare(apply, optax.sgd(0.01))
    assert [cause.id for cause in report.causes] == ["direction-up"]
    assert report.called.endswith("it returns updates, which are added to the parameters")


def move(parameters, rate=0.05):
    for p in parameters:
        p.data -= rate * p.grad


def test_a_function_of_objects_with_their_gradients():
    assert optcheck.compare(move, optax.sgd(0.05)).ok
    assert [cause.id for cause in optcheck.compare(move, optax.sgd(0.1)).causes] == ["learning_rate"]


class Adadelta:
    def __init__(self):
        self.squares = None

    def get_updates(self, grads):
        if self.squares is None:
            self.squares = [(np.zeros_like(g), np.zeros_like(g)) for g in grads]
        updates = []
        for i, g in enumerate(grads):
            square, step_square = self.squares[i]
            square = 0.9 * square + 0.1 * g * g
            d = -(np.sqrt(step_square) + 1e-6) / (np.sqrt(square) + 1e-6) * g
            self.squares[i] = square, 0.9 * step_square + 0.1 * d * d
            updates.append(d)
        return updates


def test_updates_from_gradients_alone():
    report = optcheck.compare(Adadelta(), optax.adadelta(1.0, 0.9, 1e-6))
    assert report.called.startswith("Adadelta.get_updates(grads), on a list; it returns updates")
    assert {cause.id for cause in report.causes} == {"eps-outside", "rescaling_eps-outside"}


def lagging(params, grads, state):
    """A wrong Adagrad that divides by the sum of the previous step, so its first step is huge."""
    new = [p - 0.001 * g / (np.sqrt(s) + 1e-12) for p, g, s in zip(params, grads, state, strict=True)]
    return new, [s + g * g for s, g in zip(state, grads, strict=True)]


def test_new_parameters_are_recognised_although_the_first_step_is_huge():
    report = optcheck.compare(lagging, "torch.adagrad")
    assert report.called == "lagging(params, grads, state), on a list; the state starts as zeros"
    assert {cause.id for cause in report.causes} == {"second_lag-one-step", "eps"}


def _zeros(params):
    return jax.tree.map(jnp.zeros_like, params)


def test_a_pair_may_return_new_parameters_in_any_order_of_arguments():
    def new_params(grads, state, params):
        state = jax.tree.map(lambda v, g: 0.9 * v + g, state, grads)
        return jax.tree.map(lambda p, v: p - 0.01 * v, params, state), state

    def state_first(state, grads, params):
        return new_params(grads, state, params)

    for update in (new_params, state_first):
        report = optcheck.compare((_zeros, update), optax.sgd(0.01, 0.9))
        assert report.ok, update
        assert report.called

    def unnamed(a, b, c):
        return new_params(b, c, a)

    assert optcheck.compare((_zeros, unnamed), optax.sgd(0.01, 0.9), order=("params", "grads", "state")).ok


def test_a_pair_of_lists_and_one_of_an_array():
    def init(params):
        return [jnp.zeros_like(p) for p in params]

    def update(grads, state, params=None):
        state = [0.9 * v + g for v, g in zip(state, grads, strict=True)]
        return [-0.01 * v for v in state], state

    report = optcheck.compare((init, update), optax.sgd(0.01, 0.9))
    assert report.ok
    assert report.called.endswith("on a list")

    def update_array(g, v, p=None):
        return -0.01 * (0.9 * v + g), 0.9 * v + g

    report = optcheck.compare((lambda p: jnp.zeros(p.shape), update_array), optax.sgd(0.01, 0.9))
    assert report.ok
    assert "one array" in report.called


def test_a_triple_of_lists():
    def init(params):
        return [(p, jnp.zeros_like(p)) for p in params]

    def update(i, grads, state):
        new = [(p, 0.9 * v + g) for (p, v), g in zip(state, grads, strict=True)]
        return [(p - 0.01 * v, v) for p, v in new]

    report = optcheck.compare((init, update, lambda state: [p for p, _ in state]), optax.sgd(0.01, 0.9))
    assert report.ok
    assert "on a list" in report.called


def test_both_moments_may_be_called_mu_and_nu():
    def step(i, grads, params, mu, nu):
        t = i + 1
        mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mu, grads)
        nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, nu, grads)

        def new(p, m, v):
            return p - (1e-3 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)).astype(p.dtype)

        return jax.tree.map(new, params, mu, nu), mu, nu

    report = optcheck.compare(step, optax.adam(1e-3))
    assert report.ok
    assert "step(t = 0, 1, …, grads, params, state, state)" in report.called


def test_an_optimizer_may_skip_its_first_steps():
    torch = pytest.importorskip("torch")

    class Late(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})
            self.t = 0

        @torch.no_grad()
        def step(self):
            self.t += 1
            for p in self.param_groups[0]["params"] if self.t > 5 else ():
                p.sub_(0.01 * p.grad)

    report = optcheck.compare(Late, Late)
    assert report.matches


def test_a_transformation_of_matrices_only():
    def update(grads, state, params=None):
        if any(g.ndim != 2 for g in jax.tree.leaves(grads)):
            raise ValueError("only matrices")
        return jax.tree.map(lambda g: -0.01 * g / jnp.sqrt(jnp.sum(g * g) + 1e-12), grads), state

    report = optcheck.compare((_zeros, update), (_zeros, update))
    assert report.ok
    assert "matrices only" in report.called


def test_a_state_that_a_loop_skips_is_not_the_initial_state():
    torch = pytest.importorskip("torch")

    def momentum(params, states, hyperparams):
        for p, v in zip(params, states, strict=False):
            with torch.no_grad():
                v[:] = hyperparams["momentum"] * v + p.grad
                p[:] -= hyperparams["lr"] * v
            p.grad.data.zero_()

    candidate = functools.partial(momentum, hyperparams={"lr": 1e-3, "momentum": 0.9})
    report = optcheck.compare(candidate, optax.sgd(1e-3, 0.9))
    assert report.ok
    assert "starts as zeros" in report.called


class KerasStyle:
    def build(self, trainable_variables):
        self.v = [np.zeros_like(x) for x in trainable_variables]

    def apply(self, grads, trainable_variables):
        for v, g, p in zip(self.v, grads, trainable_variables, strict=True):
            v[...] = 0.9 * v + g
            np.subtract(p, 0.01 * v, out=p)


class MLXStyle:
    def __init__(self):
        self.state = {}

    def init(self, parameters):
        self.state = _zeros(parameters)

    def apply_gradients(self, gradients, parameters):
        if not self.state:
            self.init(gradients)
        self.state = jax.tree.map(lambda v, g: 0.9 * v + g, self.state, gradients)
        return jax.tree.map(lambda p, v: p - 0.01 * v, parameters, self.state)

    def update(self, model, gradients):
        model.update(self.apply_gradients(gradients, model))


@pytest.mark.parametrize("optimizer", [KerasStyle, MLXStyle])
def test_objects_with_an_init_or_build_of_their_own(optimizer):
    assert optcheck.compare(optimizer, optax.sgd(0.01, 0.9)).ok


def test_the_audit_skips_a_network_with_a_step(tmp_path):
    (tmp_path / "network.py").write_text("class Network:\n    def step(self, x):\n        return x\n")
    assert optcheck.audit(tmp_path / "network.py").findings == ()


def test_unknown_roles_in_an_order_are_named():
    with pytest.raises(ValueError, match="unknown order 'gradients'"):
        optcheck.compare(lambda a, b: a, optax.sgd(0.01), order=("params", "gradients"))


def momentum(v, g):
    return jax.tree.map(lambda v, g: 0.9 * v + g, v, g)


def descended(p, v):
    return jax.tree.map(lambda p, v: p - 1e-3 * v, p, v)


def returns_new(grads, state, params=None):
    state = momentum(state, grads)
    return descended(params, state), state


def state_and_updates(grads, state, params=None):
    state = momentum(state, grads)
    return state, jax.tree.map(lambda v: -1e-3 * v, state)


def with_a_dict():
    numbers = {"lr": 1e-3}

    def update(grads, state, params=None):
        state = momentum(state, grads)
        return jax.tree.map(lambda p, v: p - numbers["lr"] * v, params, state), state

    return _zeros, update


def with_state_in_a_dict():
    stored = {}

    def update(grads, state, params=None):
        stored["v"] = momentum(stored["v"], grads) if stored else grads
        return jax.tree.map(lambda v: -1e-3 * v, stored["v"]), state

    return lambda params: (), update


def in_place_and_returns_state(params, grads, v):
    v = [0.9 * a + g for a, g in zip(v, grads, strict=True)]
    for p, a in zip(params, v, strict=True):
        p -= 1e-3 * a  # noqa: PLW2901
    return v


def lists_of_lists(params, grads, vel):
    for i, layer in enumerate(params):
        for j in range(len(layer)):
            vel[i][j][...] = 0.9 * vel[i][j] + grads[i][j]
            params[i][j] -= 1e-3 * vel[i][j]


def one_array_in_place(w, dw, v, t):
    v = 0.9 * v + dw / (t > 0)  # the first step is 1
    w -= 1e-3 * v
    return v


def rate_before_state(w, dw, lr=1e-3, beta=0.9, v=None):
    v = beta * (np.zeros_like(w) if v is None else v) + dw
    return w - lr * v, v


def one_parameter(p, lr=1e-3, mom=0.9, grad_avg=None, **others):
    grad_avg = (0 * p.grad if grad_avg is None else grad_avg) * mom + p.grad
    p.data -= lr * grad_avg
    return {"grad_avg": grad_avg}


def one_parameter_with_a_dict(p, state):
    state["b"] = 0.9 * state.get("b", 0.0) + p.grad
    p.data -= 1e-3 * state["b"]


class OfModel:
    def __init__(self, model):
        self.model, self.v = model, None

    def step(self):
        params, grads = self.model.parameters(), self.model.gradients()
        self.v = self.v or [np.zeros_like(p) for p in params]
        for p, v, g in zip(params, self.v, grads, strict=True):
            v[...] = 0.9 * v + g
            p[...] = p - 1e-3 * v


class OfBoth:
    def __init__(self, params, grads):
        self.params, self.grads, self.v = params, grads, [np.zeros_like(p) for p in params]

    def step(self):
        for p, v, g in zip(self.params, self.v, self.grads, strict=True):
            v[...] = 0.9 * v + g
            p[...] = p - 1e-3 * v


@dataclasses.dataclass(frozen=True)
class Frozen:
    params: dict
    v: dict | None = None

    def apply_gradients(self, grads):
        v = grads if self.v is None else momentum(self.v, grads)
        return dataclasses.replace(self, params=descended(self.params, v), v=v)


@dataclasses.dataclass
class OfFields:
    velocity: dict = dataclasses.field(default_factory=dict)

    def minimize_step(self, weights, gradients):
        self.velocity = momentum(self.velocity or jax.tree.map(np.zeros_like, weights), gradients)
        return descended(weights, self.velocity)


class Initialised:
    def init(self, params):
        self.v = jax.tree.map(np.zeros_like, params)

    def step(self, params, grads):
        self.v = momentum(self.v, grads)
        return descended(params, self.v)


class Assigns:
    def __init__(self):
        self.v = {}

    def apply_gradients(self, grads_and_vars):
        for i, (g, x) in enumerate(grads_and_vars):
            self.v[i] = 0.9 * self.v.get(i, 0.0) + g
            x.assign_sub(1e-3 * self.v[i])


SHAPES = {
    "new parameters": (_zeros, returns_new),
    "state and updates": (_zeros, state_and_updates),
    "a dict in the closure": with_a_dict(),
    "state in the closure": with_state_in_a_dict(),
    "parameters by keyword": (_zeros, lambda grads, state, *, params: returns_new(grads, state, params)),
    "a result with information": (_zeros, lambda grads, state, params: (*returns_new(grads, state, params), {"lr": 1})),
    "in place, returns the state": in_place_and_returns_state,
    "lists of lists": lists_of_lists,
    "one array in place": one_array_in_place,
    "rate before the state": rate_before_state,
    "one parameter": one_parameter,
    "one parameter with a dict": one_parameter_with_a_dict,
    "a model with methods": OfModel,
    "parameters and gradients": OfBoth,
    "frozen dataclass": Frozen,
    "dataclass": OfFields,
    "init sets attributes": Initialised(),
    "assigns": Assigns(),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_correct_momentum_of_any_shape_matches(name):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert difference(SHAPES[name], optax.sgd(1e-3, 0.9)) is None


def average_grad(p, mom, grad_avg=None, **others):
    return {"grad_avg": (0 * p.grad if grad_avg is None else grad_avg) * mom + p.grad}


def follows_the_lines(p, state):
    state.update(average_grad(p, mom=0.9, **state))
    p.data -= 1e-3 * state["grad_avg"]


def holds_parameters(params):
    return {"params": params, "v": _zeros(params)}


class Registers:
    def register(self, params):
        self.params = params

    def step(self):
        for p in self.params:
            p.data -= 1e-3 * p.grad


REFUSED = {
    "statistics": (average_grad, r"def step\(p, state\)"),
    "transformation": (optax.GradientTransformation(_zeros, returns_new), r"pair = \(optimizer\.init"),
    "no get_params": ((holds_parameters, lambda state, grads: state["missing"]), r"def get_params\(state\)"),
    "registers": (Registers(), r"optimizer\.register\(params\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_shapes_are_refused_with_code(name):
    optimizer, code = REFUSED[name]
    with pytest.raises(optcheck.NotAnOptimizerError, match=code):
        adapt(optimizer)


def test_the_code_of_a_refusal_matches_if_it_is_followed():
    def make(params):
        optimizer = Registers()
        optimizer.register(params)
        return optimizer

    assert difference(follows_the_lines, optax.sgd(1e-3, 0.9)) is None
    assert difference(make, optax.sgd(1e-3)) is None


@pytest.mark.parametrize("kind", ["optax", "pair", "triple", "torch"])
def test_a_wrong_kind_says_what_it_needs(kind):
    with pytest.raises(optcheck.NotAnOptimizerError, match=f"kind='{kind}' needs .*, got the function lion"):
        adapt(lion, kind)
