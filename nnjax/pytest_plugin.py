"""The pytest fixture `optcheck`: `def test_my_adam(optcheck): optcheck(my_adam(1e-3), optax.adam(1e-3))`."""

from typing import Any

import pytest


@pytest.fixture
def optcheck() -> Any:
    """Assert that an optimizer matches a reference: `optcheck(my_adam(1e-3), "optax.adam", allow=["eps-inside"])`.

    Raises AssertionError with the whole report: the first difference, its cause with both formulas, and fixes that were
    tried. `allow` accepts causes by their id; `hparams` takes the arguments of functions that make optimizers. See
    `nnjax.optcheck.assert_matches`.
    """
    from nnjax.optcheck import assert_matches

    return assert_matches
