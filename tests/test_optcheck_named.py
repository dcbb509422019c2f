"""Rules that are named after papers: correct ones match, and mistakes in them are named."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from named_optimizers import NAMED_RIGHT, NAMED_WRONG
from optcheck_runs import LR, cause_ids, diagnosis, difference
from wrong_optimizers import moments, ratio, rule

from nnjax import optcheck
from nnjax.optcheck.calling.factories import build
from nnjax.optcheck.rules.families import equations, neighbours, with_usual_values
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # candidates divide by zero, as they would


@pytest.fixture(autouse=True)
def usual_modes():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def reference_of(case):
    return case.reference if isinstance(case.reference, str) else case.reference()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NAMED_RIGHT)
def test_correct_ones_match(name, dtype):
    case = NAMED_RIGHT[name]
    assert difference(case.optimizer, reference_of(case), dtype) is None


@pytest.mark.parametrize("name", NAMED_WRONG)
def test_mistakes_are_named(name):
    case = NAMED_WRONG[name]
    explanations = diagnosis(case.optimizer, reference_of(case)).explanations
    assert [cause_ids(explanation) for explanation in explanations] == [case.causes]
    assert explanations[0].error < 1e-6


def test_a_different_rule_is_named():
    text = str(optcheck.compare(optax.adan(LR), "optax.adam"))
    assert "the rule is Adan; the reference: the rule is one of first and second moments, such as Adam" in text
    assert "[rule-adan]" in text
    assert "as the reference: optax.adan(0.001)  (checked: matches)" in text


def test_adafactor_of_optax_rounds_its_decay():
    exact = NAMED_RIGHT["Adafactor"].optimizer
    factored = functools.partial(optax.adafactor, min_dim_size_to_factor=1)
    report = optcheck.compare(exact, factored(LR))
    assert [cause.id for cause in report.causes] == ["precision"]
    assert report.allowed(["precision"])


def rounded(dtype, names):
    """Adam whose moments (m, v) or gradients (g) are rounded."""

    def to(x):
        return x.astype(dtype).astype(x.dtype)

    def update(g, p, t, m, v):
        m, v = moments(to(g) if "g" in names else g, m, v)
        return -ratio(m, v, t), {"m": to(m) if "m" in names else m, "v": to(v) if "v" in names else v}

    return rule(update, "m", "v")


ADAM, MOMENTUM = functools.partial(optax.adam, LR), functools.partial(optax.sgd, LR, 0.9)
ROUNDED = {
    "first_storage-bfloat16": lambda: (ADAM(mu_dtype=jnp.bfloat16), "optax.adam"),
    "first_storage-float16": lambda: (ADAM(mu_dtype=jnp.float16), "optax.adam"),
    "first_storage-bfloat16-stored": lambda: (rounded(jnp.bfloat16, "m"), "optax.adam"),
    "second_storage-float16-stored": lambda: (rounded(jnp.float16, "v"), "optax.adam"),
    "velocity_storage-bfloat16": lambda: (MOMENTUM(accumulator_dtype=jnp.bfloat16), MOMENTUM()),
    "velocity_storage-float16": lambda: (
        MOMENTUM(accumulator_dtype=jnp.float16, nesterov=True), MOMENTUM(nesterov=True)
    ),
    "rounding-float16": lambda: (rounded(jnp.float16, "g"), "optax.adam"),
}  # fmt: skip


@pytest.mark.parametrize("cause", ROUNDED)
def test_moments_and_gradients_in_half_precision(cause):
    explanations = diagnosis(*ROUNDED[cause]()).explanations
    assert [cause_ids(explanation) for explanation in explanations] == [{cause}]


def test_equations_of_all_choices_can_be_written():
    for name, (start, hyper) in LIBRARY_RULES.items():
        for _, other in neighbours(start):
            lines = equations(with_usual_values(other, hyper))
            assert any("θ" in line for line in lines), name


def test_references_of_papers_are_named():
    assert build("paper.mars") == LIBRARY_RULES["paper.mars"]
    with pytest.raises(optcheck.NotAnOptimizerError, match=r"similar names: .*paper\.adamp"):
        build("paper.adam_p")


def test_a_misspelt_name_of_a_library_is_corrected():
    with pytest.raises(optcheck.NotAnOptimizerError, match=r"similar names: optax\.sgd"):
        optcheck.compare("optax.sdg", optax.sgd(0.1))
