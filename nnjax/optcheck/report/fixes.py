"""Which parameter of the reference would make it do as the candidate does."""

from nnjax.optcheck.search.causes import Cause

# (reference, or "" for any; the cause's id) -> the argument; {value} is the candidate's
ARGUMENTS = {
    ("optax.rmsprop", "eps-outside"): "eps_in_sqrt=False",
    ("torch.optim.RMSprop", "eps-inside"): "none: PyTorch has ε outside; optax.rmsprop has it inside",
    ("optax.rmsprop", "second_start"): "initial_scale={value}",
    ("optax.rmsprop", "b2"): "decay={value}",
    ("optax.rmsprop", "second_correction-t"): "bias_correction=True",
    ("optax.rmsprop", "second-centered"): "centered=True",
    ("optax.rmsprop", "velocity-trace"): "momentum=…",
    ("optax.adagrad", "second_start"): "initial_accumulator_value={value}",
    ("optax.adam", "eps-inside"): "eps=0, eps_root={eps}",
    ("optax.adam", "numerator-nadam"): "nesterov=True",
    ("optax.adam", "maximum-corrected"): "none: optax.amsgrad",
    ("optax.adam", "decay-decoupled"): "none: optax.adamw(weight_decay={weight_decay})",
    ("optax.adam", "decay-l2"): "none: optax.chain(optax.add_decayed_weights({weight_decay}), optax.adam(…))",
    ("optax.adamw", "decay-l2"): "none: optax.chain(optax.add_decayed_weights({weight_decay}), optax.adam(…))",
    ("optax.adamw", "decay-none"): "weight_decay=0",
    ("optax.sgd", "velocity-trace"): "momentum={momentum}",
    ("optax.sgd", "nesterov-standard"): "nesterov=True",
    ("torch.optim.NAdam", "momentum_decay"): "momentum_decay=1e6, for a constant momentum as optax's",
    ("torch.optim.SGD", "velocity-trace"): "momentum={momentum}",
    ("torch.optim.SGD", "nesterov-standard"): "nesterov=True",
}
NAMES = {"learning_rate", "b1", "b2", "eps", "eps_root", "momentum", "weight_decay", "dampening"}


def fixes(reference: str, causes: tuple[Cause, ...], values: dict[str, float], lines: list[str]) -> tuple[str, ...]:
    """What to change, on either side.

    Args:
      reference: its name, "optax.adam".
      causes: what the candidate does otherwise.
      values: its hyper-parameters.
      lines: the reference's equations that are not the candidate's.
    """
    found = [f"in the candidate: make it {';  '.join(lines)}"] if lines else []
    arguments = [_argument(reference, cause, values) for cause in causes]
    if not arguments or None in arguments:  # some of several would leave a difference
        return tuple(found)
    others = [argument for argument in arguments if argument and argument.startswith("none: ")]
    if not others:
        found.append(f"or in the reference: {reference}(…, {', '.join(filter(None, arguments))})")
    elif all(
        argument in others or f"{cause.axis}=" in others[0] for cause, argument in zip(causes, arguments, strict=True)
    ):
        found.append(f"or in the reference: {others[0].removeprefix('none: ')}")
    return tuple(found)


def _argument(reference: str, cause: Cause, values: dict[str, float]) -> str | None:
    """What makes the reference do as the candidate; None where nothing does."""
    argument = ARGUMENTS.get((reference, cause.id))
    if argument is not None:
        return argument.format(value=f"{values.get(cause.axis, float('nan')):.6g}", **_short(values))
    if cause.axis in NAMES and reference.startswith("optax."):
        return f"{cause.axis}={values[cause.axis]:.6g}"
    return None


def _short(values: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in values.items()}
