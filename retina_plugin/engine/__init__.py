"""Around the model: config files, set-up, workers, trainer, checkpoints."""
