"""Use networks as scikit-learn estimators, in a `Pipeline` and with `GridSearchCV`, `cross_val_score` and joblib.

Each estimator is a thin wrapper around a network, a loss and `train.fit`. Inputs are used unchanged, so put a
`StandardScaler` before the estimator in a `Pipeline`. A `Regressor` standardises its targets itself, because a
`Pipeline` cannot do that.
"""

from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from nnjax import checks, losses, optim, train, uncertainty
from nnjax.data import n_rows, split_rows, take_rows
from nnjax.interop._estimator_programs import (
    MakeOptimizer,
    Network,
    deduplicate,
    initial_states,
    make_network,
    make_optimizer,
    predict_members,
    take_epoch,
)
from nnjax.types import Data, Loss, TrainState

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("nnjax.interop.sklearn needs scikit-learn ≥ 1.6: pip install 'nnjax[sklearn]'") from error

BLOCK = 4096  # maximum number of rows that are predicted at once


class _Estimator(BaseEstimator):  # type: ignore[misc]
    """The base class of `Classifier` and `Regressor`, which checks data, trains and computes outputs."""

    _default_loss: Loss

    def __init__(
        self,
        hidden: Sequence[int] = (100,),
        *,
        net: Network = None,
        loss: Loss | None = None,
        optimizer: MakeOptimizer = optim.adam,
        learning_rate: float = 1e-3,
        epochs: int = 200,
        batch_size: int | None = 200,
        members: int = 1,
        patience: int | None = None,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.hidden = hidden
        self.net = net
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.members = members
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    def _examples(self, X: Any, y: Any, sample_weight: Any, *, reset: bool, **y_options: bool) -> Data:
        """Check the examples, convert X and the weights to JAX's default float dtype, and drop rows of weight 0."""
        dtype = jnp.result_type(float)
        x, y = validate_data(self, X, y, reset=reset, dtype=dtype, **y_options)
        if sample_weight is None:
            return Data(x, y)
        weights = _check_sample_weight(sample_weight, x, dtype=dtype, ensure_non_negative=True)
        if not weights.any():
            raise ValueError("fit: sample_weight is 0 for every row; at least one must be positive")
        return Data(x[weights > 0], y[weights > 0], weights[weights > 0])

    def _train(self, data: Data, labels: np.ndarray | None) -> Self:
        """Train on examples from scratch, with a validation part if `patience` is set; labels stratify that part."""
        seed = self._seed()
        validation = None
        if self.patience is not None:
            rows = split_rows(
                data.y if labels is None else labels,
                self.validation_fraction,
                seed=seed,
                stratify=labels is not None,
            )
            data, validation = (take_rows(data, part) for part in rows)
        result = train.fit(
            self._run(n_rows(data)),
            data,
            epochs=self.epochs,
            key=jax.random.split(jax.random.key(seed), self.members),
            validation=validation,
            patience=self.patience,
            progress=self.verbose,
        )
        self.history_ = result.history
        best = result.best or result.ts
        return self._keep(result.ts._replace(params=best.params, state=best.state))

    def _train_epoch(self, data: Data) -> Self:
        """Train on examples for one epoch, from the current state if there is one."""
        run = self._run(n_rows(data))
        if hasattr(self, "ts_"):
            ts = self.ts_._replace(key=jax.random.wrap_key_data(self.ts_.key))
        else:
            ts = initial_states(run, jax.random.split(jax.random.key(self._seed()), self.members), data)
        return self._keep(take_epoch(run, ts, data))

    def _keep(self, ts: TrainState) -> Self:
        """Store the training state as NumPy arrays, which can be pickled. Raise ValueError if the training diverged."""
        self.ts_ = jax.tree.map(np.asarray, ts._replace(key=jax.random.key_data(ts.key)))
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((self.ts_.params, self.ts_.state))):
            raise ValueError(
                f"{type(self).__name__}: the training diverged, its parameters are not finite; use a smaller "
                "learning_rate, or standardise X"
            )
        return self

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _run(self, n: int) -> train.Run:
        """Return the run for data with `n` rows; a batch has at most `n` rows."""
        where = type(self).__name__
        checks.positive_int(where, "members", self.members)
        if self.batch_size is not None:
            checks.positive_int(where, "batch_size", self.batch_size)
        loss = deduplicate(self.loss or self._default_loss)
        optimizer = make_optimizer(deduplicate(self.optimizer), self.learning_rate)
        batch_size = self.batch_size and min(self.batch_size, n)
        return train.Run(make_network(*self._design), loss, optimizer, batch_size=batch_size)

    def _design_network(self, outputs: int) -> None:
        """Store the settings of the network, because the estimator's parameters may be changed after a fit."""
        hidden = checks.items(type(self).__name__, "hidden", self.hidden, "(100,)")
        self._design = (deduplicate(self.net), hidden, outputs, self.loss is losses.gaussian_nll)

    def _outputs(self, X: Any) -> Any:
        """Return the network's outputs (members, n, outputs), or a pair of means and log-variances of this shape.

        Rows are predicted in blocks, which are padded to a power of two, so few programs are compiled. Up to rounding,
        the prediction for a row does not depend on the other rows.
        """
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=jnp.result_type(float))
        size = min(BLOCK, 1 << max(4, (len(x) - 1).bit_length()))
        parts = []
        for start in range(0, len(x), size):
            block = x[start : start + size]
            padded = np.pad(block, ((0, size - len(block)), (0, 0)))
            outputs = predict_members(make_network(*self._design), self.ts_.params, self.ts_.state, padded)
            parts.append(jax.tree.map(np.asarray, outputs))
        return jax.tree.map(lambda *blocks: np.concatenate(blocks, 1)[:, : len(x)], *parts)


class Classifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """Train a network, or an ensemble of networks, as a scikit-learn classifier.

    The default loss is the log-loss. The probabilities of an ensemble are the means of its members' probabilities.

    Args:
      hidden: widths of the hidden layers of `nn.mlp`.
      net: a network, or a function from the number of outputs to a network, such as
        `partial(nn.mlp, (100, 100), norm="batch")`; None means `nn.mlp(hidden, outputs)`. A classifier has one output
        for each class.
      loss: function that returns one loss per example; None means `losses.cross_entropy` in a classifier and
        `losses.mean_squared_error` in a regressor.
      optimizer: a function from the learning rate to an optax transformation, or a transformation, for which
        `learning_rate` is not used.
      learning_rate: learning rate, or a schedule from the step to the rate.
      epochs: number of passes over the data.
      batch_size: number of rows per step, at most all rows; None means all rows.
      members: number of networks in an ensemble.
      patience: number of epochs without a lower validation loss after which training stops; the epoch with the lowest
        loss is used for predictions. None to use all rows for training and to never stop early.
      validation_fraction: share of the rows for validation if `patience` is set. A classifier stratifies by class.
      random_state: integer, `numpy.random.RandomState` or None, as everywhere in scikit-learn.
      verbose: True to show a progress bar.

    Attributes:
      classes_: the labels, sorted, of any type.
      history_: one record per epoch of the last `fit`, as in the result of `train.fit`.
      ts_: the `TrainState` for predictions and for `partial_fit`, as NumPy arrays with a leading axis of members. With
        `patience`, `fit` stores the parameters and the state of the best epoch.

    >>> from nnjax.interop.sklearn import Classifier
    >>> digits = data.load("digits")
    >>> model = Classifier((64,), epochs=5, learning_rate=1e-2, members=3, random_state=0)
    >>> model.fit(digits.train.x, digits.train.y).score(digits.test.x, digits.test.y) > 0.9
    True
    """

    _default_loss = staticmethod(losses.cross_entropy)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from scratch.

        Args:
          X: (n, features) numbers.
          y: (n,) labels of at least two classes.
          sample_weight: (n,) weights of the losses; None means equal weights.

        Raises:
          ValueError: if there are fewer than two classes, if an argument is invalid, or if the training diverges.
          TypeError: if an argument has the wrong type.
        """
        data = self._examples(X, y, sample_weight, reset=True)
        check_classification_targets(data.y)
        self.classes_ = np.unique(data.y)
        if len(self.classes_) < 2:
            raise ValueError(f"Classifier: y holds only one class, {self.classes_[0]}; at least two are needed")
        self._design_network(len(self.classes_))
        data = self._encode_labels(data)
        return self._train(data, np.asarray(data.y))

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch on these rows, continuing from the last `fit` or `partial_fit`.

        Args:
          X: (n, features) numbers.
          y: (n,) labels.
          classes: all labels that can occur in any call; required in the first call.
          sample_weight: (n,) weights of the losses; None means equal weights.

        Raises:
          ValueError: if `classes` is missing in the first call or differs in a later one, if a label is not among them,
            or if the training diverges.
        """
        first = not hasattr(self, "classes_")
        if first and classes is None:
            raise ValueError("Classifier: classes must be passed on the first call to partial_fit.")
        data = self._examples(X, y, sample_weight, reset=first)
        check_classification_targets(data.y)
        known = np.unique(classes) if first else self.classes_
        if classes is not None and not np.array_equal(np.unique(classes), known):
            raise ValueError(f"Classifier: classes={classes} differ from the classes of the first call, {known}")
        unknown = np.setdiff1d(data.y, known)
        if len(unknown):
            raise ValueError(f"Classifier: the label {unknown[0]} is not among the classes {known}")
        if first:
            self.classes_ = known
            self._design_network(len(known))
        return self._train_epoch(self._encode_labels(data))

    def _encode_labels(self, data: Data) -> Data:
        """Replace the labels of the examples with their positions in `classes_`."""
        return data._replace(y=np.searchsorted(self.classes_, data.y).astype(np.int32))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities (n, classes), in the order of `classes_`."""
        return softmax(self._outputs(X).astype(np.float64), axis=-1).mean(0)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable labels (n,)."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]


class Regressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """Train a network, or an ensemble of networks, as a scikit-learn regressor with one or several outputs.

    The targets are standardised with their weighted mean and standard deviation, over all rows passed to `fit` (also
    those for validation) or to the first `partial_fit`. Predictions are in the units of the targets.

    The arguments and attributes are the same as for `Classifier`, except for `classes_`. With
    `loss=losses.gaussian_nll`, the network has twice as many outputs, the means and then the logarithms of the
    variances, and learns the noise in the targets.

    >>> from nnjax.interop.sklearn import Regressor
    >>> x = np.linspace(-1, 1, 100)[:, None]
    >>> model = Regressor((32,), epochs=200, learning_rate=1e-2, members=5, random_state=0)
    >>> mean, std = model.fit(x, 3 + x[:, 0] ** 2).predict([[0.5], [5.0]], return_std=True)
    >>> bool(abs(mean[0] - 3.25) < 0.1), bool(std[1] > std[0])  # the members disagree far from the data
    (True, True)
    """

    _default_loss = staticmethod(losses.mean_squared_error)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from scratch.

        Args:
          X: (n, features) numbers.
          y: (n,) or (n, outputs) numbers.
          sample_weight: (n,) weights of the losses and of the mean and standard deviation of y; None means equal
            weights.

        Raises:
          ValueError: if an argument is invalid, or if the training diverges.
          TypeError: if an argument has the wrong type.
        """
        data = self._examples(X, y, sample_weight, reset=True, y_numeric=True, multi_output=True)
        self._set_scale(data)
        return self._train(data._replace(y=self._standardise(data.y)), None)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on these rows, continuing from the last `fit` or `partial_fit`.

        Args:
          X: (n, features) numbers.
          y: (n,) or (n, outputs) numbers.
          sample_weight: (n,) weights of the losses and, in the first call, of the mean and deviation of y; None for
            equal weights.

        Raises:
          ValueError: if an argument is invalid, or if the training diverges.
          TypeError: if an argument has the wrong type.
        """
        first = not hasattr(self, "ts_")
        data = self._examples(X, y, sample_weight, reset=first, y_numeric=True, multi_output=True)
        if first:
            self._set_scale(data)
        return self._train_epoch(data._replace(y=self._standardise(data.y)))

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the predictions, and their standard deviations if requested.

        Args:
          X: (n, features) numbers.
          return_std: True to return the pair (mean, standard deviation). The variance is computed over the members.
            With `losses.gaussian_nll`, the mean of their predicted variances is added; with other losses, the noise of
            the targets is not included.

        Returns:
          The predictions (n,) or (n, outputs), like the training targets and in their units; a pair of such arrays with
          `return_std`.

        Raises:
          ValueError: if `return_std` is True for a single network that does not predict variances.
        """
        outputs = self._outputs(X)
        means, variances = (outputs[0], np.exp(outputs[1])) if self._design[-1] else (outputs, None)
        shape = (means.shape[1], *self._shape)
        mean = (means.mean(0, dtype=np.float64) * self.y_std_ + self.y_mean_).reshape(shape)
        if not return_std:
            return mean
        if len(means) == 1 and variances is None:
            raise ValueError("Regressor: return_std needs members ≥ 2, or loss=losses.gaussian_nll")
        total = uncertainty.variance_decomposition(jnp.asarray(means), variances).total
        return mean, (np.sqrt(np.asarray(total, np.float64)) * self.y_std_).reshape(shape)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _set_scale(self, data: Data) -> None:
        """Store the mean and standard deviation of each target, in float64, and the settings of the network."""
        y = np.asarray(data.y, np.float64).reshape(len(data.y), -1)
        self.y_mean_ = np.average(y, axis=0, weights=data.weights)
        std = np.sqrt(np.average((y - self.y_mean_) ** 2, axis=0, weights=data.weights))
        self.y_std_ = np.where(std > 0, std, 1.0)
        self._shape = data.y.shape[1:]
        self._design_network(y.shape[1])

    def _standardise(self, y: np.ndarray) -> np.ndarray:
        scaled = (np.asarray(y, np.float64).reshape(len(y), -1) - self.y_mean_) / self.y_std_
        return scaled.astype(jnp.result_type(float))
