"""Find where a NaN or an infinity comes from, and count the operations of a program."""

from nnjax.debug._flops import Cost, count_flops
from nnjax.debug._nonfinite import NonfiniteOrigin, first_nonfinite

__all__ = ["Cost", "NonfiniteOrigin", "count_flops", "first_nonfinite"]
