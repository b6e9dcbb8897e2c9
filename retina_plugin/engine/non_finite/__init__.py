"""When a loss is not finite: stop or skip, find what did it, keep the step for a replay."""
