"""Every key with its default and meaning; yaml files read safely; configs by name."""
