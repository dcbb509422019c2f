"""The machinery behind `fit`: one compiled program for all members, and the loop on the host that drives it."""
