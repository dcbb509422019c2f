"""Provide the pytest fixture `optcheck`, as in this test:

def test_my_adam(optcheck):
    optcheck(my_adam(1e-3), optax.adam(1e-3))
"""

from typing import Any

import pytest


@pytest.fixture
def optcheck() -> Any:
    """Assert that an optimizer matches a reference: `optcheck(my_adam(1e-3), "optax.adam", allow=["eps-inside"])`.

    The AssertionError contains the full report: the first difference, its cause with both formulas, and suggested
    fixes. `allow` lists the ids of accepted causes, and `hparams` holds the arguments of optimizer factories. See
    `nnjax.optcheck.assert_matches`.
    """
    from nnjax.optcheck import assert_matches

    return assert_matches
