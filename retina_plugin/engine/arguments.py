"""The command line of ``train_net.py`` and ``retina train``, read without importing PyTorch."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.\w+)*")  # of a yaml config: no name of a config looks so
NUMBER = re.compile(r"-\.?\d.*")


def parse_arguments(
    words: Sequence[str], *, prog: str | None = None, description: str = ""
) -> Namespace:
    """The arguments of a training: those of Detectron2's ``default_argument_parser`` and more.

    The first word may be the config, in place of ``--config-file``. Options may stand anywhere;
    what is left are the overrides, ``opts``.

    Raises:
        SystemExit: the command line is wrong (exit code 2), or asks for help (0).
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
    """`KEY -1e-3` as `KEY=-1e-3`, which argparse would take for an option."""
    joined: list[str] = []
    for word in words:
        if NUMBER.fullmatch(word) and joined and KEY.fullmatch(joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def argument_parser(*, prog: str | None = None, description: str = "") -> ArgumentParser:
    """Detectron2's arguments, of which importing takes seconds, and the plugin's.

    On one machine workers meet at a free port: with Detectron2's, which is the same for all runs of
    a user, a second run fails.
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
    """The path of a config, for argparse, which says which argument is wrong."""
    from retina_plugin.config.names import find_config
    from retina_plugin.config.safe_yaml import ConfigFileError

    try:
        return str(find_config(name)) if name else ""
    except ConfigFileError as error:
        raise ArgumentTypeError(str(error)) from None
