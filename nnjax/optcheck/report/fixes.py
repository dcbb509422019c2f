"""Suggest changes to either side that make both optimizers equal."""

from nnjax.optcheck.rules.equations import equations
from nnjax.optcheck.rules.library_rules import LIBRARY_RULES
from nnjax.optcheck.rules.update_rule import HyperParams
from nnjax.optcheck.search.causes import Cause
from nnjax.optcheck.search.diagnosis import Diagnosis

# (reference, id of the cause) -> arguments of the reference that reproduce the candidate. {value} is the candidate's
# value of the cause, {b1}, {eps}, … are all its hyper-parameters. "use " starts the name of another optimizer.
ARGUMENTS = {
    ("optax.rmsprop", "eps-outside"): "eps_in_sqrt=False",
    ("torch.optim.RMSprop", "eps-inside"): "use optax.rmsprop, which has ε inside the root; PyTorch has it outside",
    ("optax.rmsprop", "second_start"): "initial_scale={value}",
    ("optax.rmsprop", "b2"): "decay={value}",
    ("optax.rmsprop", "second_correction-t"): "bias_correction=True",
    ("optax.rmsprop", "second-centered"): "centered=True",
    ("optax.rmsprop", "velocity-trace"): "momentum={momentum}",
    ("optax.adagrad", "second_start"): "initial_accumulator_value={value}",
    ("optax.adam", "eps-inside"): "eps=0, eps_root={eps}",
    ("optax.adam", "numerator-nadam"): "nesterov=True",
    ("optax.adam", "maximum-corrected"): "use optax.amsgrad",
    ("optax.adam", "decay-decoupled"): "use optax.adamw(weight_decay={weight_decay})",
    ("optax.adam", "decay-l2"): "use optax.chain(optax.add_decayed_weights({weight_decay}), optax.adam(…))",
    ("optax.adamw", "decay-l2"): "use optax.chain(optax.add_decayed_weights({weight_decay}), optax.adam(…))",
    ("optax.adamw", "decay-none"): "weight_decay=0",
    ("optax.sgd", "velocity-trace"): "momentum={momentum}",
    ("optax.sgd", "nesterov-standard"): "nesterov=True",
    ("torch.optim.NAdam", "momentum_decay"): "momentum_decay=1e6, a constant momentum as in optax",
    ("torch.optim.SGD", "velocity-trace"): "momentum={momentum}",
    ("torch.optim.SGD", "nesterov-standard"): "nesterov=True",
}
OPTAX_NAMES = {"learning_rate", "b1", "b2", "eps", "eps_root", "momentum", "weight_decay", "dampening"}


def fixes(reference: str | None, diagnosis: Diagnosis) -> tuple[str, ...]:
    """Return what to change in the candidate, and in the reference if its arguments allow it.

    Args:
      reference: the name of the reference, such as "optax.adam"; None to infer it from its formula.
      diagnosis: the explanation of the difference.
    """
    if not diagnosis.explanations or diagnosis.reference is None:
        return ()
    formula, causes, *_ = diagnosis.explanations[0]
    ours = equations(formula)
    lines = [line for line in equations(diagnosis.reference) if line not in ours]
    suggestions = [f"in the candidate, use {';  '.join(lines)}"] if lines else []
    rule = diagnosis.reference.rule
    names = (name for name, library in LIBRARY_RULES.items() if library.rule == rule and name.startswith("optax."))
    name = reference or next(names, "the reference")
    arguments = [_argument(name, cause, formula.hyper) for cause in causes]
    complete = [argument for argument in arguments if argument is not None]
    if not complete or len(complete) < len(arguments):  # changing only some would leave a difference
        return tuple(suggestions)
    replacements = [argument for argument in complete if argument.startswith("use ")]
    if not replacements:
        suggestions.append(f"or in the reference: {name}(…, {', '.join(complete)})")
    elif all(
        argument in replacements or f"{cause.place}=" in replacements[0]
        for cause, argument in zip(causes, complete, strict=True)
    ):
        suggestions.append(f"or as the reference, {replacements[0]}")
    return tuple(suggestions)


def _argument(reference: str, cause: Cause, hyper: HyperParams) -> str | None:
    """Return the argument with which the reference reproduces the candidate, or None."""
    values = {name: f"{float(value):.6g}" for name, value in hyper._asdict().items()}
    argument = ARGUMENTS.get((reference, cause.id))
    if argument is not None:
        return argument.format(value=values.get(cause.place, "nan"), **values)
    if cause.place in OPTAX_NAMES and reference.startswith("optax."):
        return f"{cause.place}={values[cause.place]}"
    return None
