"""`perception eval`: accuracy, latency and size of engines, through the code that the node runs."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perception.evaluation.comparison import Cost
    from perception.evaluation.harness import Options


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("eval", help="measure engines on a data set with true depth, side by side")
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="registered name, weights that training wrote, or an ONNX file"
    )
    parser.add_argument(
        "--engine",
        nargs="+",
        action="extend",
        default=[],
        metavar="TARGET[:PRECISION]",
        help="engines to compare, built where missing; all: every one that this machine has (default: auto)",
    )
    parser.add_argument("--precision", default="auto", help="of the engines that name none (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of each engine; 0 (default): all cores")
    data = parser.add_argument_group("data")
    data.add_argument("--data", required=True, help="path, or nyu, clip, rooms[:SEED[:FRAMES]], seven_scenes, ...")
    data.add_argument("--data-root", type=Path, help="where names lie (default: $PERCEPTION_DATA or ../shared/data)")
    data.add_argument("--split", default="eval", help="split of the data set, where it has any (default: %(default)s)")
    data.add_argument("--splits", type=Path, help="splits.mat, or a text file of image numbers, of NYU's official .mat")
    data.add_argument("--limit", type=int, help="only the first so many samples")
    rule = parser.add_argument_group("rule")
    rule.add_argument("--valid", default="target", help="pixels: target > 0 (default), or FastDepth's 'either'")
    rule.add_argument("--crop", default="none", help="none (default), eigen, or top:bottom,left:right")
    rule.add_argument("--cap", type=_cap, default=(0.0, float("inf")), metavar="MIN:MAX", help="metres (default: none)")
    rule.add_argument("--half-view", action="store_true", help="lens test: metres must stay when half the view is seen")
    parser.add_argument("--out", type=Path, default=Path("out/eval"), help="folder for results (default: %(default)s)")
    parser.add_argument("--readme", type=Path, help="file whose block <!-- results --> gets the table")
    parser.set_defaults(run=run)


def _cap(text: str) -> tuple[float, float]:
    low, separator, high = text.partition(":")
    try:
        return float(low), float(high if separator else "x")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no cap; write metres as MIN:MAX, as in 0.001:10") from None


def run(args: argparse.Namespace) -> int:
    from perception.evaluation.comparison import Comparison, slug
    from perception.evaluation.contenders import contenders
    from perception.evaluation.datasets import data_root, find_dataset
    from perception.evaluation.report import failures, markdown, readme_block, replace_block, write_report

    chosen = contenders(args.models, args.engine, args.precision)
    dataset = find_dataset(args.data, data_root(args.data_root), args.split, args.splits)
    count = len(dataset) if args.limit is None else min(args.limit, len(dataset))
    if count < 1:
        raise ValueError(f"nothing to measure: {dataset.name} has {len(dataset)} samples, --limit is {args.limit}")
    if args.readme:
        replace_block(args.readme.read_text(), "")  # better refused now than after an hour
    folder = args.out / slug(dataset.name)
    command = shlex.join(["perception", *sys.argv[1:]])
    comparison = Comparison(
        dataset, count, _options(args), folder, args.threads, command, lambda line: print(line, flush=True)
    )
    costs = {model: _cost(model) for model in args.models}
    measured = [comparison.measure(contender, costs[contender.model]) for contender in chosen]
    if any(entry.rows for entry in measured):
        comparison.measure_floor()
    report = comparison.report()
    paths = write_report(report, folder)
    print(markdown(report))
    for text in dict.fromkeys(failures(entry.public()) for entry in measured):
        print(text or f"all {count} samples were measured")
    print(f"report: {', '.join(map(str, paths))}")
    if args.readme:
        args.readme.write_text(replace_block(args.readme.read_text(), readme_block(report)))
        print(f"table: {args.readme}")
    if not any(entry.rows for entry in measured):
        raise ValueError(f"no engine could be measured: {'; '.join(entry.problem for entry in measured)}")
    return 0


def _options(args: argparse.Namespace) -> Options:
    from perception.evaluation.harness import Options
    from perception.tasks.depth_metrics import Rule

    return Options(Rule(args.valid, args.crop, *args.cap), args.half_view)


def _cost(model: str) -> Cost | None:
    """Parameters and multiply-accumulates; None where this machine has not what counts them, as on a robot, and where
    they cannot be counted, since accuracy is worth as much without."""
    from perception.evaluation.cost import graph_cost

    try:
        if model.endswith(".onnx"):
            return graph_cost(Path(model))
        from perception.models import count_macs, count_parameters, create_model, model_config

        definition = create_model(model, pretrained=False)
        return count_parameters(definition), count_macs(definition, model_config(model).input_size)
    except ImportError:
        return None
    except ValueError as error:
        print(f"no GMAC and parameters: {error}", flush=True)
        return None
