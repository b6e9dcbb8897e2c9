"""Entry point of the command ``retina``, outside the package so that it runs before its import.

``retina_plugin`` registers its components when it is imported, except while this module is
``starting`` the command line. A worker that is spawned imports this module and does not call
``main``: there they are registered at once.
"""

starting = False


def main() -> None:
    """Run ``retina VERB``."""
    global starting
    starting = True
    from retina_plugin.cli import main as run_verb

    run_verb(prog_name="retina")
