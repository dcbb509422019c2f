"""The pytest fixture `optcheck`: `def test_my_adam(optcheck): optcheck(my_adam(1e-3), optax.adam(1e-3))`."""

from typing import Any

import pytest


@pytest.fixture
def optcheck() -> Any:
    """Return `nnjax.optcheck.assert_matches`, imported only by tests that use it."""
    from nnjax.optcheck import assert_matches

    return assert_matches
