"""`perception eval`: accuracy of an engine through the code that the node runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("eval", help="measure an engine's accuracy on a data set with true depth")
    parser.add_argument("model", help="registered name or ONNX file")
    parser.add_argument("--data", type=Path, required=True, help="folder: NYU Depth v2, or RGB-D frames")
    parser.add_argument(
        "--split", default="eval", help="split of the data set, where it has any (default: %(default)s)"
    )
    parser.add_argument("--target", default="auto", help="runtime of the engine (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="precision of the engine (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/eval"), help="folder for the figures")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from perception import engines
    from perception.evaluation.datasets import open_dataset
    from perception.evaluation.harness import evaluate_depth

    frames = open_dataset(args.data, args.split)
    with engines.load(args.model, args.target, args.precision) as engine:
        scores = evaluate_depth(engine.run, engine.config, tqdm(frames))
        result = {"data": str(args.data), "split": args.split, "engine": engine.info, "scores": scores}
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{engine.config.name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    print(f"figures: {path}")
    return 0
