"""Implement `fit`: one compiled program for all members, and a loop on the host that runs it."""
