"""`python -m retina_plugin.cli`."""

from retina_plugin.cli import main

main(prog_name="retina")
