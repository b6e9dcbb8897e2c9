"""The detector and nothing else: images -> losses, or boxes."""
