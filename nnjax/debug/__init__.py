"""Locate the origin of a NaN or infinity, and count the operations of a program."""

from nnjax.debug._flops import Cost, count_flops
from nnjax.debug._nonfinite import first_nonfinite
from nnjax.debug._origin import NonfiniteOrigin

__all__ = ["Cost", "NonfiniteOrigin", "count_flops", "first_nonfinite"]
