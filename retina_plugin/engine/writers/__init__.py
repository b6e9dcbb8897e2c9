"""Writers for the scalars and pictures of a training, one service per file."""
