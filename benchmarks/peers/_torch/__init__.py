"""Parts that several PyTorch peers share."""
