"""What an ensemble predicts, and how sure it is.

Members are networks, or passes of one network with dropout. Classifiers give logits (members, n, classes); their
prediction is logits (n, classes) again, so that `nnjax.metrics` and `losses.cross_entropy` take it.
"""

from nnjax.uncertainty.curves import SizeCurve, ensemble_size_curve, rejection_curve
from nnjax.uncertainty.decomposition import Uncertainty, classification, regression
from nnjax.uncertainty.ensemble import log_mean_probabilities, mean_logits, vote
from nnjax.uncertainty.mc_dropout import mc_dropout
from nnjax.uncertainty.paired import Paired, paired

__all__ = [
    "Paired",
    "SizeCurve",
    "Uncertainty",
    "classification",
    "ensemble_size_curve",
    "log_mean_probabilities",
    "mc_dropout",
    "mean_logits",
    "paired",
    "regression",
    "rejection_curve",
    "vote",
]
