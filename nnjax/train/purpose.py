"""What a run draws random numbers for. Each purpose folds a constant of its own into the run's key.

The constants lie beyond what `jax.random.split(key, n)` reaches (`split(key, n)[i] == fold_in(key, i)`), so that a
user may split the same key for other ends, and a member's key never meets a purpose's.
"""

INIT = 2**31
SHUFFLE = 2**31 + 1
STEP = 2**31 + 2  # dropout and whatever else the layers draw while training
