"""Command line of ``train_net.py`` and ``retina train``, parsed without importing PyTorch."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.\w+)*")  # yaml config key; no config name matches
NUMBER = re.compile(r"-\.?\d.*")


def parse_arguments(
    words: Sequence[str], *, prog: str | None = None, description: str = ""
) -> Namespace:
    """Parse the training arguments: Detectron2's ``default_argument_parser`` and the plugin's.

    The first word may be the config, in place of ``--config-file``. Options may appear anywhere;
    the remaining words are the config overrides, ``opts``.

    Raises:
        SystemExit: if the command line is invalid (exit code 2) or requests help (0).
    """
    parser = argument_parser(prog=prog, description=description)
    arguments = parser.parse_intermixed_args(_with_values_joined(words))
    opts = arguments.opts
    if opts and not arguments.config_file and "=" not in opts[0] and not KEY.fullmatch(opts[0]):
        try:
            arguments.config_file = _config_file(opts.pop(0))
        except ArgumentTypeError as error:
            parser.error(str(error))
    return arguments


def _with_values_joined(words: Sequence[str]) -> list[str]:
    """Rewrite `KEY -1e-3` as `KEY=-1e-3`; argparse would parse the value as an option."""
    joined: list[str] = []
    for word in words:
        if NUMBER.fullmatch(word) and joined and KEY.fullmatch(joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def argument_parser(*, prog: str | None = None, description: str = "") -> ArgumentParser:
    """Build the parser of Detectron2's (whose own takes seconds to import) and plugin arguments.

    On one machine, workers connect through a free port. Detectron2 uses the same port for all runs
    of a user, so that a second concurrent run fails.
    """
    parser = ArgumentParser(
        prog=prog, description=description, formatter_class=RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--config-file",
        default="",
        type=_config_file,
        metavar="CONFIG",
        help="path of a yaml config or LazyConfig, or a name that `retina configs` lists",
    )
    add("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    add("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, do not train")
    add("--num-gpus", type=int, default=1, help="workers on this machine, one on each GPU")
    add("--num-machines", type=int, default=1, help="machines that train together")
    add("--machine-rank", type=int, default=0, help="which of them this is, from 0")
    add(
        "--dist-url",
        default="auto",
        help="where workers of several machines meet, tcp://HOST:PORT; auto: a free port here",
    )
    add(
        "--allow-unsafe-yaml",
        action="store_true",
        help="run the Python tags of yaml configs, as Detectron2 does: only for files you trust",
    )
    add(
        "--import",
        dest="extensions",
        metavar="MODULE",
        action="append",
        default=[],
        help="import a module or a .py file of yours first, to register its components",
    )
    add(
        "opts",
        nargs="*",
        metavar="CONFIG | KEY VALUE | KEY=VALUE",
        help="the config, where there is no --config-file; then keys of it with their values",
    )
    return parser


def _config_file(name: str) -> str:
    """Resolve a config name to its path; argparse reports the invalid argument."""
    from retina_plugin.config.names import find_config
    from retina_plugin.config.safe_yaml import ConfigFileError

    try:
        return str(find_config(name)) if name else ""
    except ConfigFileError as error:
        raise ArgumentTypeError(str(error)) from None
