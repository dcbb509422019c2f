"""Provide code that all PyTorch peers share."""
