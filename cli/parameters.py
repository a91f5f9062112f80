"""`perception parameters`: the nodes' parameters as Markdown, made from the dataclasses that the nodes declare."""

from __future__ import annotations

import argparse
from pathlib import Path

BEGIN, END = "<!-- parameters of {} -->", "<!-- end of parameters -->"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("parameters", help="print the table of every node's parameters")
    parser.add_argument("--write", type=Path, metavar="FILE", help="bring the tables in a Markdown file up to date")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.write:
        args.write.write_text(updated(args.write.read_text(), tables()))
        return 0
    for name, table in tables().items():
        print(f"### {name}\n\n{table}\n")
    return 0


def tables() -> dict[str, str]:
    """Executable to Markdown table, for every node of the package."""
    import importlib
    import pkgutil

    import perception.nodes as package
    from perception.nodes.node import BaseNode
    from perception.nodes.parameters import markdown_table

    result = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        if not info.name.endswith("_node"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for kind in vars(module).values() if hasattr(module, "main") else ():
            if isinstance(kind, type) and issubclass(kind, BaseNode) and kind.__module__ == module.__name__:
                result[info.name] = markdown_table(kind.parameters_type)
    return result


def updated(text: str, new: dict[str, str]) -> str:
    """`text` with the tables between its markers replaced.

    Raises:
        ValueError: a node whose markers are not in the text.
    """
    for name, table in new.items():
        begin = BEGIN.format(name)
        if begin not in text:
            raise ValueError(f"the document has no place for {name}: put the lines {begin} and {END} where it belongs")
        start = text.index(begin) + len(begin)
        text = f"{text[:start]}\n{table}\n{text[text.index(END, start) :]}"
    return text
