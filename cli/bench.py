"""`perception bench`: a rosbag through a pipeline on real topics; latency, loss, processors, memory, accuracy."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perception.nodes.bag_bench import Feed
    from perception.nodes.subject import Subject

SECONDS = 10.0
"""At a rate and one by one a run has at least so many, in a search just so many, unless the user says how many."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "bench",
        help="replay a rosbag through a pipeline: latency, loss, processors, memory, accuracy",
        description="Without --rate, --fast and --soak, images come as they were recorded.",
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
    parser.add_argument(
        "--compare-output",
        default="",
        help="of the second (default: as --output; after a command, a pipeline of ours has its own)",
    )
    parser.add_argument("--rate", type=float, nargs="+", default=[], help="runs at so many images a second")
    parser.add_argument("--fast", action="store_true", help="a run in which each image waits for the last one's result")
    parser.add_argument("--search", action="store_true", help="look for the highest input without, and with 1 %% loss")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="a run of so many minutes, as recorded")
    parser.add_argument(
        "--seconds",
        type=float,
        help="of a run (default: to the end of the bag; with --rate and --fast it starts again if it is over before "
        f"{SECONDS:g} s, and a run of --search has {SECONDS:g} s)",
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for report, plots and logs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, and write the report."""
    from perception.evaluation.conversion import to_ros2
    from perception.nodes.session import isolate

    asked = {"--rounds": args.rounds, "--seconds": args.seconds, "--soak": args.soak}
    asked |= {f"--rate {rate:g}": rate for rate in args.rate}
    if wrong := [f"{name} ({value:g})" for name, value in asked.items() if value is not None and value <= 0]:
        raise ValueError(f"{', '.join(wrong)} cannot be measured; give numbers above 0")
    isolate()  # the bag's clock, transforms and images must not reach a robot that runs
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="perception-") as scratch:
        return _bench(args, to_ros2(args.bag, Path(scratch)))


def _bench(args: argparse.Namespace, path: Path) -> int:
    """With the bag as one of ROS 2."""
    from perception.evaluation.bag_frames import find_truths, outline
    from perception.evaluation.bags import Bag, choose_images
    from perception.evaluation.replay_report import write_report
    from perception.evaluation.replayed import ratios
    from perception.nodes.bag_bench import BagBench, playable
    from perception.nodes.session import machine
    from perception.tasks.messages import IMAGE_TYPES

    progress = partial(print, flush=True)
    with Bag(path) as bag:
        images = choose_images(bag, args.images)
        info = bag.camera_info_topic(images)
        about, truths = outline(bag, images), find_truths(bag, images)
        topics = playable(bag, (info, "/tf", "/tf_static"), progress)
        subjects = _subjects(args, images, bag.types[images] == IMAGE_TYPES[1], info)
    bench = BagBench(path, topics, args.out, progress)
    entries, series = bench.compare(subjects, _feeds(args), args.rounds if args.compare else 1, truths)
    if args.search:
        for subject, entry in zip(subjects, entries, strict=True):
            entry["highest_hz"] = bench.search(subject, args.seconds or SECONDS)
    report = {
        "command": shlex.join(["perception", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "bag": about,
        "subjects": entries,
        "ratios": ratios(entries) if args.compare else {},
    }
    paths = write_report(report, series, args.out)
    print(paths[1].read_text())
    print(f"report: {', '.join(map(str, paths))}")
    return 0


def _subjects(args: argparse.Namespace, images: str, compressed: bool, info: str | None) -> list[Subject]:
    """What is measured on these topics: one, or two that are compared."""
    from perception.nodes.pipeline import pipeline_names
    from perception.nodes.subject import read_subject

    topics = images, compressed, info
    subjects = [read_subject([args.pipeline, *args.arguments], *topics, args.host, args.output)]
    if args.compare:
        words = shlex.split(args.compare)
        ours, other = (name in pipeline_names() for name in (words[0], args.pipeline))
        output = args.compare_output or ("" if ours and not other else args.output)
        subjects.append(read_subject(words, *topics, args.compare_host or args.host, output))
    return subjects


def _feeds(args: argparse.Namespace) -> list[Feed]:
    """How images come in each run."""
    from perception.nodes.bag_bench import Feed

    feeds = [Feed(rate, args.seconds, least=SECONDS) for rate in args.rate]
    if args.fast:
        feeds.append(Feed(seconds=args.seconds, one_by_one=True, least=SECONDS))
    if args.soak:
        feeds.append(Feed(seconds=60 * args.soak))
    return feeds or [Feed(seconds=args.seconds)]
