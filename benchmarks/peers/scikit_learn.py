"""scikit-learn's multi-layer perceptrons: NumPy, one `partial_fit` for each epoch."""

import time
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils import shuffle
from threadpoolctl import ThreadpoolController

from benchmarks.jobs.definitions import Training
from benchmarks.jobs.inputs import Layers, training_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import training_error

NAME = "scikit-learn"
NEEDS = ("sklearn", "threadpoolctl")
FORMS = {"training": ("fast",)}

SEED = 1


def training(job: Training, form: str) -> Program:
    """Train with `partial_fit`, which keeps Adam's moments between epochs; `fit` would reset them in each call.

    Its squared error is half of ours, and so are its gradients; with half the epsilon, Adam takes the same steps.

    Raises:
      ValueError: for cross-entropy with fewer than 3 classes, because it then has one logistic output.
    """
    outputs = job.widths[-1]
    if job.loss == "cross_entropy" and outputs < 3:
        raise ValueError(f"scikit-learn has no softmax of {outputs} outputs; expected 3 or more")
    inputs = training_inputs(job)
    model = _model(job)
    y = inputs.y[:, 0] if inputs.y.shape[1:] == (1,) else inputs.y
    classes = {"classes": np.arange(outputs)} if job.loss == "cross_entropy" else {}
    model.partial_fit(inputs.x, y, **classes)  # creates the arrays
    controller = ThreadpoolController()
    threads = _fastest_threads(model, inputs.x, y, controller)
    _set_params(model, inputs.layers)

    def call(model: Any) -> Any:
        with controller.limit(limits=threads):
            for _ in range(job.epochs):
                model.partial_fit(inputs.x, y)
        return model

    def error(model: Any) -> float:
        params = [array.copy() for layer in zip(model.coefs_, model.intercepts_, strict=True) for array in layer]
        return training_error(job, inputs, _first_rows(job), params)

    return Program(state=model, call=call, block=lambda model: None, error=error, units=job.steps)


def _model(job: Training) -> Any:
    estimator, epsilon = (MLPClassifier, 1e-8) if job.loss == "cross_entropy" else (MLPRegressor, 0.5e-8)
    return estimator(
        hidden_layer_sizes=job.widths[1:-1],
        activation=job.activation,
        alpha=0,
        batch_size=job.batch or job.rows,
        learning_rate_init=job.rate,
        epsilon=epsilon,
        shuffle=job.batch is not None,
        tol=0,
        n_iter_no_change=np.inf,
    )


def _fastest_threads(model: Any, x: np.ndarray, y: np.ndarray, controller: ThreadpoolController) -> int | None:
    """Return 1 or None (all threads), whichever makes an epoch faster; small products lose time by synchronising."""
    seconds: dict[int | None, float] = {}
    for threads in (1, None, 1, None):
        with controller.limit(limits=threads):
            clock = time.perf_counter()
            model.partial_fit(x, y)
            seconds[threads] = min(time.perf_counter() - clock, seconds.get(threads, np.inf))
    return min(seconds, key=lambda threads: seconds[threads])


def _set_params(model: Any, layers: Layers) -> None:
    """Set the parameters that all peers start from, and reset the optimizer."""
    for coefs, intercepts, (w, b) in zip(model.coefs_, model.intercepts_, layers, strict=True):
        coefs[:], intercepts[:] = w, b
    del model._optimizer  # the next call creates a new one
    model.set_params(random_state=np.random.RandomState(SEED))  # an int would give every epoch the same order


def _first_rows(job: Training) -> np.ndarray | None:
    """Return the rows (steps, batch) of the first call."""
    if job.batch is None:
        return None
    random = np.random.RandomState(SEED)
    epochs = [shuffle(np.arange(job.rows), random_state=random) for _ in range(job.epochs)]
    return np.stack(epochs).reshape(-1, job.batch)
