"""`perception vit`: split a vision transformer over several devices, and measure a split."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

SCENARIOS = ("plain", "restart", "cut", "loss", "slow", "kill", "skew", "all")
DISCOVERY = ("multicast", "peers", "server")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("vit", help="split a vision transformer over several devices, and measure a split")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    splitting = actions.add_parser("split", help="make a worker for each device, and what fuses them; again: go on")
    splitting.add_argument("--model", required=True, help="trained vision transformer: name, or weights of training")
    splitting.add_argument("--devices", type=Path, required=True, help="YAML file: name, memory, gflops, ... of each")
    splitting.add_argument("--out", type=Path, required=True, help="folder for the split")
    splitting.add_argument("--workers", type=int, help="how many (default: one a device, as far as there are classes)")
    splitting.add_argument("--heads", type=int, help="of each worker before limits (default: the whole's, divided)")
    splitting.add_argument("--images", type=int, help="by which is measured what matters")
    splitting.add_argument("--retrain", type=int, help="steps of training each worker again")
    splitting.add_argument("--fuse", type=int, help="steps of training the fusion network")
    splitting.add_argument("--freeze", action="store_true", help="workers do not learn on with the fusion network")
    splitting.add_argument("--missing", type=float, help="share of its images that lack a worker's features, or two's")
    splitting.add_argument("--knows", type=float, help="how much a worker learns of classes that are not its own")
    splitting.add_argument("--teacher", help="trained classifier to learn from (default: what is split)")
    splitting.add_argument("--batch", type=int, help="images a step")
    splitting.add_argument("--rate", type=float, help="learning rate")
    splitting.add_argument("--device", default="cpu", help="torch device: cpu, cuda (default: cpu)")
    splitting.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all")
    splitting.set_defaults(run=_split)

    measuring = actions.add_parser("eval", help="accuracy of a split: all workers, one alone, one or two missing")
    measuring.add_argument("folder", type=Path, help="that `perception vit split` wrote")
    measuring.add_argument("--features", default="float16", help="as what they travel: float16 (default) or int8")
    measuring.add_argument("--split", default="eval", help="split of the data set (default: %(default)s)")
    measuring.add_argument("--limit", type=int, help="only so many images, of all classes alike")
    measuring.add_argument("--json", type=Path, help="file for the figures")
    measuring.set_defaults(run=_eval)

    benching = actions.add_parser(
        "bench",
        help="run splits on several hosts of this machine while something goes wrong: latency, misses, accuracy",
        description="Hosts are network namespaces, which need root. Engines must be built before.",
    )
    _add_bench_arguments(benching)
    benching.set_defaults(run=_bench)

    for action in (splitting, measuring, benching):
        needed = action is not benching
        action.add_argument("--data", required=needed, help="folder of images by class, or a name such as cifar10")
        action.add_argument("--data-root", type=Path, help="where names lie (default: $PERCEPTION_DATA)")


def _add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "splits", nargs="+", type=Path, metavar="SPLIT", help="folder that `perception vit split` wrote"
    )
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS, help="(default: all)")
    parser.add_argument("--frames", type=int, default=1000, help="images of each scenario (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=10.0, help="images a second (default: %(default)s)")
    parser.add_argument("--deadline", type=float, default=0.1, help="of the fusion, seconds (default: %(default)s)")
    parser.add_argument("--mbit", type=float, default=20.0, help="of each host's link; 0: any (default: %(default)s)")
    parser.add_argument("--delay", type=float, default=0.0, help="of each link, milliseconds (default: %(default)s)")
    parser.add_argument("--discovery", choices=DISCOVERY, default="multicast", help="(default: %(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="of the time that each worker runs (default: all)")
    parser.add_argument("--target", default="auto", help="runtime of the engines (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="precision of the engines (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each runtime (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/vit_bench"), help="folder for the report and logs")


def _folder(args: argparse.Namespace) -> Path:
    from perception.evaluation.datasets import data_root

    path = Path(args.data)
    return path if path.exists() else data_root(args.data_root) / args.data


def _show(items: Iterable[Any], what: str) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(items, desc=what)


def _split(args: argparse.Namespace) -> int:
    import torch

    from perception.training.placement import read_fleet
    from perception.training.split import SplitSettings, split

    if args.threads:
        torch.set_num_threads(args.threads)
    names = ("workers", "heads", "images", "retrain", "fuse", "missing", "knows", "teacher", "batch", "rate")
    chosen = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    settings = SplitSettings(model=args.model, data=str(_folder(args)), tuned=not args.freeze, **chosen)
    found = split(settings, read_fleet(args.devices), args.out, args.device, show=_show)
    print((args.out / "report.md").read_text())
    print(f"split {found.short_hash}: {args.out}")
    return 0


def _eval(args: argparse.Namespace) -> int:
    from perception.evaluation.datasets import as_classes, open_dataset
    from perception.evaluation.vit_split import evaluate, public, told_scores
    from perception.tasks.vit_split import read_split

    split = read_split(args.folder)
    dataset = as_classes(open_dataset(_folder(args), args.split, task="classification"))
    scores = evaluate(split, dataset, args.features, args.limit, _show)
    print(f"# Split {split.short_hash} of {split.model} on {dataset.name}, features as {args.features}\n")
    print(told_scores(split, scores))
    if full := split.predictions.get("accuracy_full"):
        print(f"\nThe whole network: {100 * full:.2f} %, measured when it was split.")
    if args.json:
        args.json.write_text(json.dumps(public(scores), indent=1) + "\n")
        print(f"\nfigures: {args.json}")
    return 0


def _bench(args: argparse.Namespace) -> int:
    from perception.evaluation.datasets import as_classes, open_dataset
    from perception.evaluation.vit_bench_report import compared
    from perception.nodes.network import Link, obstacle
    from perception.nodes.vit_bench import Options, bench
    from perception.tasks.vit_split import read_split

    if args.frames < 3 or args.rate <= 0 or not 0 < args.share <= 1:
        raise ValueError("give 3 --frames or more, a --rate above 0, and a --share above 0, of 1 at most")
    link = Link(args.mbit, args.delay)
    if reason := obstacle(link):
        raise RuntimeError(f"several hosts cannot be made here: {reason}")
    dataset = as_classes(open_dataset(_folder(args), task="classification")) if args.data else None
    names = ("frames", "rate", "deadline", "share", "discovery", "target", "precision", "threads")
    options = Options(link=link, **{name: getattr(args, name) for name in names})
    splits = {folder.resolve().name: read_split(folder) for folder in args.splits}
    reports = [bench(split, dataset, args.scenarios, options, args.out / name) for name, split in splits.items()]
    print("\n".join(compared(reports)))
    return 0
