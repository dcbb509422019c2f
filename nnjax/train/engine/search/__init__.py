"""Implement `train.search`: the schedule as pure functions, one file per method, and the compiled programs."""
