"""Code that the PyTorch peers share."""
