"""`perception measure`: what the depth node costs on this machine, scenario by scenario."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from perception.tasks.config import DEPTH_MODEL

SCENARIOS = ("overhead", "throughput", "overload", "transport", "chain", "startup", "memory")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "measure", help="measure the nodes: overhead, throughput, overload, transport, chains, start, memory"
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
    from perception.nodes.benchmark import Benchmark
    from perception.nodes.session import isolate
    from perception.tasks.resources import share

    unknown = set(args.scenarios) - set(SCENARIOS)
    if unknown:
        raise ValueError(f"unknown scenarios: {', '.join(sorted(unknown))}; accepted: {', '.join(SCENARIOS)}")
    isolate()
    args.out.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(
        args.source or str(share("clip")), args.out, args.model, args.target, args.precision, args.threads, args.seconds
    )
    path = args.out / "figures.json"
    figures = json.loads(path.read_text()) if path.is_file() else {}
    for name in args.scenarios or SCENARIOS:
        figures[name] = benchmark.run(name)
        print(f"{name}: {json.dumps(figures[name], indent=2)}", flush=True)
        path.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"figures: {path}")
    return 0
