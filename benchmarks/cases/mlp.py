"""Networks for images of 784 pixels, from those that overhead bounds to those that matrix products bound."""

from benchmarks.work import Training

ROWS = {32: 2048, 256: 2048, 4096: 8192}
RATE = 1e-5  # so small that rounding is not amplified, and what peers compute can be compared with float64

KIND = "training"
UNIT = "step"
JOBS = {
    f"784-{width}-{width}-10, batch {batch}": Training((784, width, width, 10), ROWS[batch], batch, rate=RATE)
    for width in (64, 256, 1024)
    for batch in (32, 256, 4096)
}
QUICK = ()
THOROUGH = ("784-256-256-10, batch 256",)
ROUNDS = dict.fromkeys(JOBS, 5)
