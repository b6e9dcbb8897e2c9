"""Training around the model: arguments, setup, worker processes, trainer, hooks, writers."""
