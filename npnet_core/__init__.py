"""NPNet golden noise: the network, its files, and everything that is done with noise."""
