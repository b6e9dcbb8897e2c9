"""Where a training's numbers and pictures go; one service a file."""
