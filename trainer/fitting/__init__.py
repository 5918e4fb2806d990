"""A noise prompt dataset → an NPNet: the starting net, the training loop, checkpoints, metrics."""
