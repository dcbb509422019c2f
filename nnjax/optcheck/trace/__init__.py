"""Run optimizers of any shape on the same gradients and record their updates."""
