"""Every key with its default, yaml files read safely, overrides with near misses, configs by name."""
