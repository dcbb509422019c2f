"""Code that several PyTorch peers share."""
