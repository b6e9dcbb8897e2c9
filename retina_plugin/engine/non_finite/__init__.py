"""Handle non-finite losses: stop or skip, find the cause, save the step for a replay."""
