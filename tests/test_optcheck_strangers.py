"""Optimizers in styles of courses and small frameworks, correct and wrong: the verdicts, and how they are called."""

import functools

import numpy as np
import optax
import pytest

from nnjax import optcheck

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
    assert {cause.id for cause in report.causes} == {"eps-outside", "rescaling-adadelta-with-eps-outside"}


def lagging(params, grads, state):
    """A wrong Adagrad that divides by the sum of the previous step, so its first step is huge."""
    new = [p - 0.001 * g / (np.sqrt(s) + 1e-12) for p, g, s in zip(params, grads, state, strict=True)]
    return new, [s + g * g for s, g in zip(state, grads, strict=True)]


def test_new_parameters_are_recognised_although_the_first_step_is_huge():
    report = optcheck.compare(lagging, "torch.adagrad")
    assert report.called == "lagging(params, grads, state), on a list; the state starts as zeros"
    assert {cause.id for cause in report.causes} == {"second_lag-one-step", "eps"}
