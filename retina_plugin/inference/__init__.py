"""A trained detector at work: optimise, tile, augment, predict."""
