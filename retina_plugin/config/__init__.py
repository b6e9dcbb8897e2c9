"""Every key with its default, yaml files read safely, overrides with near misses."""

from retina_plugin.config.defaults import add_retina_config

__all__ = ["add_retina_config"]
