"""Combine ensemble predictions and compute their uncertainty.

The members are several networks, or one network with dropout active in prediction. The members of a classifier ensemble
predict logits (members, n, classes). The combined prediction is again logits (n, classes), which `nnjax.metrics` and
`losses.cross_entropy` accept.
"""

from nnjax._missing_name import missing_name
from nnjax.uncertainty.curves import SizeCurve, ensemble_size_curve, rejection_curve
from nnjax.uncertainty.decomposition import Uncertainty, entropy_decomposition, variance_decomposition
from nnjax.uncertainty.ensemble import log_mean_probabilities, mean_logits, vote
from nnjax.uncertainty.mc_dropout import mc_dropout

__all__ = [
    "SizeCurve",
    "Uncertainty",
    "ensemble_size_curve",
    "entropy_decomposition",
    "log_mean_probabilities",
    "mc_dropout",
    "mean_logits",
    "rejection_curve",
    "variance_decomposition",
    "vote",
]

_ELSEWHERE = {  # names used by other libraries, in lower case without underscores
    "entropy": "uncertainty.entropy_decomposition",
    "mutualinformation": "uncertainty.entropy_decomposition",
    "variance": "uncertainty.variance_decomposition",
    "averageprobabilities": "uncertainty.log_mean_probabilities",
}
# Assigned through globals(): if the module defined __getattr__ openly, type checkers would accept any name
globals()["__getattr__"] = missing_name("uncertainty", __all__, _ELSEWHERE)
