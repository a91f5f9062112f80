"""`perception bench`: a rosbag through a pipeline on real topics; latency, loss, processors, memory, accuracy."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perception.evaluation.bags import Bag
    from perception.nodes.bag_bench import BagBench, Trial
    from perception.nodes.subject import Subject


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="replay a rosbag through a pipeline: latency, loss, processors, memory, accuracy",
        description="Without --rate, --fast, --search and --soak, images come as they were recorded.",
    )
    parser.add_argument("bag", type=Path, help="bag folder, or a .mcap, .db3 or .bag file")
    parser.add_argument("pipeline", help="name of a pipeline, or in quotes a command that starts one (with --output)")
    parser.add_argument("arguments", nargs="*", metavar="name:=value", help="arguments of a pipeline of ours")
    parser.add_argument("--compare", metavar="PIPELINE", help="a second one, with its arguments, in quotes")
    parser.add_argument("--rounds", type=int, default=2, help="of a comparison, in turn (default: %(default)s)")
    parser.add_argument("--host", choices=("processes", "one"), default="processes", help="all nodes in one process?")
    parser.add_argument("--compare-host", choices=("processes", "one"), help="of the second (default: as --host)")
    parser.add_argument("--images", default="", help="the bag's topic of images (default: its only one)")
    parser.add_argument("--output", default="", help="topic of results (default: the pipeline's)")
    parser.add_argument("--rate", type=float, nargs="+", default=[], help="runs at so many images a second")
    parser.add_argument("--fast", action="store_true", help="a run in which each image waits for the last one's result")
    parser.add_argument("--search", action="store_true", help="look for the highest input without, and with 1 %% loss")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="a run of so many minutes, as recorded")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a run at a rate (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for report, plots and logs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, and write the report."""
    from perception.evaluation.bags import Bag, choose_images
    from perception.evaluation.replay_report import markdown, write_report
    from perception.nodes.bag_bench import BagBench
    from perception.nodes.session import keep_local

    if args.rounds < 1 or args.seconds <= 0 or any(rate <= 0 for rate in args.rate):
        raise ValueError("rounds, seconds and rates must be more than 0")
    keep_local()
    args.out.mkdir(parents=True, exist_ok=True)
    with Bag(args.bag) as bag:
        images = choose_images(bag, args.images)
        info = bag.camera_info_topic(images)
        about = _about(bag, images)
        truth = _truth(bag, images)
        transforms = [topic for topic in ("/tf", "/tf_static") if bag.counts.get(topic)]
    bench = BagBench(args.bag, tuple(topic for topic in (info, *transforms) if topic), args.out)
    subjects = [_subject([args.pipeline, *args.arguments], args.host, images, info, args.output)]
    if args.compare:
        host = args.compare_host or args.host
        subjects.append(_subject(shlex.split(args.compare), host, images, info, args.output))
    entries = [_entry(bench, subject) for subject in subjects]
    plots = {}
    for number in range(args.rounds if args.compare else 1):
        for subject, entry in zip(subjects, entries, strict=True):
            for asked in _asked(args):
                print(f"{subject.name}: {_words(asked)}", flush=True)
                trial = bench.run(subject, **asked, keep=truth is not None and subject.output.endswith("depth"))
                if truth is not None and trial.kept:
                    trial.figures["accuracy"] = _scores(trial, truth)
                entry["runs"].append(trial.figures)
                plots.setdefault(f"{entry['name']}, {trial.figures['asked']}", trial.passage)
            if args.search and number == 0:
                entry["highest_hz"] = _search(bench, subject, args.seconds)
    report = {
        "command": shlex.join(["perception", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": _machine(),
        "bag": about,
        "subjects": entries,
        "ratios": _ratios(entries) if args.compare else {},
    }
    paths = write_report(report, args.out)
    print(markdown(report))
    print(f"report: {', '.join(map(str, paths))}")
    return 0
