"""How `train.search` runs: the schedule as pure functions, a method per file, and the programs of the population."""
