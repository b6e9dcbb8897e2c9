"""What is wrong with a config, its data and this machine, before training."""
