"""Train scikit-learn's multi-layer perceptrons, which use NumPy, and search for their settings."""

import time
import warnings
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import loguniform
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingRandomSearchCV, PredefinedSplit
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils import shuffle
from threadpoolctl import ThreadpoolController

from benchmarks.harness.environment import usable_cores
from benchmarks.jobs.definitions import SettingSearch, Training
from benchmarks.jobs.inputs import Layers, training_inputs
from benchmarks.jobs.program import Program
from benchmarks.jobs.reference import training_error
from benchmarks.jobs.setting_search import Searches, add_search, search_error, search_figures, split_rows

NAME = "scikit-learn"
NEEDS = ("sklearn", "threadpoolctl")
FORMS = {"training": ("fast",), "setting_search": ("halving",)}

SEED = 1


def training(job: Training, form: str) -> Program:
    """Train with one `partial_fit` per epoch, which keeps Adam's moments; each call of `fit` would reset them.

    scikit-learn's squared error and its gradients are half of nnjax's. With half the epsilon, Adam takes the same
    steps.

    Raises:
      ValueError: if the loss is cross-entropy with fewer than 3 classes; the network then has one logistic output.
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


def setting_search(job: SettingSearch, form: str) -> Program:
    """Search with HalvingRandomSearchCV on all cores, which restarts trials at each rung.

    For two classes, scikit-learn's network has one logistic output. Its squared error is half of nnjax's.

    Raises:
      ValueError: if the data set is not on this machine.
    """
    estimator, scoring, half = (
        (MLPClassifier, "neg_log_loss", 1.0) if job.outputs > 1 else (MLPRegressor, "neg_mean_squared_error", 0.5)
    )
    decays = (half * decay * job.batch for decay in job.decays)  # scikit-learn divides alpha by the batch size
    space = {"learning_rate_init": loguniform(*job.rates), "alpha": loguniform(*decays)}
    split_rows(job, 0)  # raises ValueError early if the data set is not on this machine

    def call(searches: Searches) -> Searches:
        split = split_rows(job, searches.seed)
        x, y = np.concatenate([split.x, split.held_out_x]), np.concatenate([split.y, split.held_out_y])
        held_out = PredefinedSplit(np.r_[np.full(len(split.x), -1), np.zeros(len(split.held_out_x), int)])
        model = estimator(
            hidden_layer_sizes=job.hidden,
            batch_size=job.batch,
            tol=0,
            n_iter_no_change=10**9,
            random_state=searches.seed,
        )
        search = HalvingRandomSearchCV(
            model, space, n_candidates=job.trials, factor=3, resource="max_iter", min_resources=job.rungs[0],
            max_resources=job.rungs[-1], scoring=scoring, cv=held_out, refit=False,
            random_state=searches.seed, n_jobs=usable_cores(),
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ignore warnings that trials have not converged
            search.fit(x, y if job.outputs > 1 else y[:, 0])
            model.set_params(**search.best_params_)
            model.fit(split.x, split.y if job.outputs > 1 else split.y[:, 0])  # train the same network again
        epochs = sum(n * r for n, r in zip(search.n_candidates_, search.n_resources_, strict=True))
        layers = [array for layer in zip(model.coefs_, model.intercepts_, strict=True) for array in layer]
        if job.outputs == 2:
            layers[-2:] = [np.stack([np.zeros_like(array[..., 0]), array[..., 0]], -1) for array in layers[-2:]]
        return add_search(job, searches, -float(search.best_score_), int(search.n_candidates_[0]), epochs, layers)

    return Program(
        state=Searches(0, (), 0, None),
        call=call,
        block=lambda _: None,
        error=partial(search_error, job),
        units=1,
        figures=search_figures,
    )


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
    """Return 1 or None (all threads), whichever is faster, because threads slow down small matrix products."""
    seconds: dict[int | None, float] = {}
    for threads in (1, None, 1, None):
        with controller.limit(limits=threads):
            clock = time.perf_counter()
            model.partial_fit(x, y)
            seconds[threads] = min(time.perf_counter() - clock, seconds.get(threads, np.inf))
    return min(seconds, key=lambda threads: seconds[threads])


def _set_params(model: Any, layers: Layers) -> None:
    """Set the initial parameters, which are the same for all peers, and reset the optimizer."""
    for coefs, intercepts, (w, b) in zip(model.coefs_, model.intercepts_, layers, strict=True):
        coefs[:], intercepts[:] = w, b
    del model._optimizer  # the next call creates a new one
    model.set_params(random_state=np.random.RandomState(SEED))  # an int would give every epoch the same order


def _first_rows(job: Training) -> np.ndarray | None:
    """Return the row indices (steps, batch) of all batches in the first call, or None for full-batch steps."""
    if job.batch is None:
        return None
    random = np.random.RandomState(SEED)
    epochs = [shuffle(np.arange(job.rows), random_state=random) for _ in range(job.epochs)]
    return np.stack(epochs).reshape(-1, job.batch)
