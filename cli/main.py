"""Entry point of the command `perception`.

Every module of this package that has `add_parser` is a subcommand. Such a module imports what it needs in its `run`, so
that `perception --help` is quick and `perception engines` never loads ROS.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import pkgutil
import sys
from collections.abc import Sequence

import perception.cli as package
from perception.tasks.memory import keep_freed_memory


class Command(argparse.ArgumentParser):
    """A parser that may have a default `more`: a function that adds what takes time to know, called when it is used."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def, override]
        if more := self._defaults.pop("more", None):
            more(self)
        return super().parse_known_args(args, namespace)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands; each sets the default `run`, a function from parsed arguments to exit status."""
    parser = Command(prog="perception", description="Camera perception for robots on ROS 2.")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for info in pkgutil.iter_modules(package.__path__):
        if info.name == "main":  # this file, which must not run a second time under `python -m perception.cli.main`
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        if hasattr(module, "add_parser"):
            module.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status: 1 after an error, which is printed in one sentence."""
    args = build_parser().parse_args(arguments)
    keep_freed_memory()
    try:
        return int(args.run(args))
    except (ValueError, OSError, RuntimeError) as error:
        if args.debug:
            raise
        print(f"perception: {_sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("perception: interrupted", file=sys.stderr)
        return 130


def _sentence(error: Exception) -> str:
    """What is said of an error; a full disk does not say what to do."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error}; what was being written is not whole: free some space, or write elsewhere"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
