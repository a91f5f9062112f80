"""`perception measure`: what a node with a model costs on this machine, scenario by scenario."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

from perception.tasks.config import DEPTH_MODEL

SCENARIOS = {
    "overhead": "benchmark",
    "throughput": "benchmark",
    "transport": "benchmark",
    "chain": "benchmark",
    "startup": "benchmark",
    "memory": "benchmark",
    "overload": "overload",
    "faults": "faults",
    "habits": "habits",
}
"""Scenario to the module of `perception.nodes` whose class of that name measures it."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "measure",
        help="measure the nodes: overhead, throughput, transport, overload, faults and more",
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--source", default="", help="folder of 640x480 images (default: the shipped clip)")
    parser.add_argument("--model", default=DEPTH_MODEL, help="registered name or ONNX file (default: %(default)s)")
    parser.add_argument("--target", default="auto", help="runtime of the engine (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="precision of the engine (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads of the runtime; 0: all cores")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/measure"), help="folder for figures and logs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from perception.nodes.session import isolate
    from perception.tasks.resources import share

    unknown = set(args.scenarios) - set(SCENARIOS)
    if unknown:
        raise ValueError(f"unknown scenarios: {', '.join(sorted(unknown))}; accepted: {', '.join(SCENARIOS)}")
    isolate()
    args.out.mkdir(parents=True, exist_ok=True)
    source = args.source or str(share("clip"))
    path = args.out / "figures.json"
    figures = json.loads(path.read_text()) if path.is_file() else {}
    for name in args.scenarios or SCENARIOS:
        module = importlib.import_module(f"perception.nodes.{SCENARIOS[name]}")
        kind = getattr(module, SCENARIOS[name].title())
        figures[name] = kind(source, args.out, args.model, args.target, args.precision, args.threads, args.seconds).run(
            name
        )
        print(f"{name}: {json.dumps(figures[name], indent=2)}", flush=True)
        path.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"figures: {path}")
    return 0
