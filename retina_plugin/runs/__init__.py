"""A run - model, optimizer, schedule, data and settings - from a yaml config or a LazyConfig."""
