"""What is wrong with a config, its data and this machine, before training."""

from retina_plugin.workbench.doctor.doctor import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
