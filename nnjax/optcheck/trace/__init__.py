"""Run optimizers with any interface on the same gradients, and record their updates."""
