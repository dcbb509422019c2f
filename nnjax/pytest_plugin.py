"""The `optcheck` fixture for pytest: `def test_mine(optcheck): optcheck(my_adam(1e-3), optax.adam(1e-3))`."""

from typing import Any

import pytest


@pytest.fixture
def optcheck() -> Any:
    """`nnjax.optcheck.assert_matches`, imported only where a test asks for it."""
    from nnjax.optcheck import assert_matches

    return assert_matches
