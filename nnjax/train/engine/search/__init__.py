"""The engine of `train.search`: the schedule as pure functions, a method per file, the programs of the population."""
