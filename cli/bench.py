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
    from perception.nodes.bag_bench import BagBench
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
    from perception.evaluation.replayed import depth_scores
    from perception.nodes.bag_bench import BagBench
    from perception.nodes.session import keep_local, machine

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
    for number in range(args.rounds if args.compare else 1):
        for subject, entry in zip(subjects, entries, strict=True):
            for asked in _asked(args):
                print(f"{subject.name}: {_words(asked)}", flush=True)
                trial = bench.run(subject, **asked, keep=truth is not None and subject.output.endswith("depth"))
                if truth is not None and trial.kept:
                    trial.figures["accuracy"] = depth_scores(trial.kept, truth)
                entry["runs"].append(trial.figures)
            if args.search and number == 0:
                entry["highest_hz"] = _search(bench, subject, args.seconds)
    report = {
        "command": shlex.join(["perception", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "bag": about,
        "subjects": entries,
        "ratios": _ratios(entries) if args.compare else {},
    }
    paths = write_report(report, args.out)
    print(markdown(report))
    print(f"report: {', '.join(map(str, paths))}")
    return 0


def _subject(words: list[str], host: str, images: str, info: str | None, output: str) -> Subject:
    """A pipeline of ours by its name and arguments, or else a command."""
    from perception.nodes.pipeline import pipeline_names
    from perception.nodes.subject import any_command, our_pipeline

    if len(words) == 1 and " " in words[0]:
        return any_command(words[0], images, output)
    if words[0] not in pipeline_names():
        return any_command(shlex.join(words), images, output)
    pairs = [word.partition(":=") for word in words[1:]]
    if wrong := [name for name, separator, _ in pairs if not separator]:
        raise ValueError(f"argument {wrong[0]!r} is not understood; write name:=value")
    return our_pipeline(words[0], {name: text for name, _, text in pairs}, images, info, host)


def _entry(bench: BagBench, subject: Subject) -> dict[str, Any]:
    from perception.nodes.subject import described

    return described(subject) | {"build_s": bench.build(subject), "runs": []}


def _asked(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The arguments of `BagBench.run` for each run."""
    runs: list[dict[str, Any]] = [{"rate": rate, "seconds": args.seconds} for rate in args.rate]
    if args.fast:
        runs.append({"one_by_one": True, "seconds": args.seconds})
    if args.soak:
        runs.append({"seconds": 60 * args.soak})
    return runs or [{}]


def _words(asked: dict[str, Any]) -> str:
    how = "one by one" if asked.get("one_by_one") else f"{asked['rate']:g} Hz" if asked.get("rate") else "as recorded"
    return how + (f", {asked['seconds']:g} s" if asked.get("seconds") else "")


def _search(bench: BagBench, subject: Subject, seconds: float) -> dict[str, float | None]:
    """The highest input of which nothing, and of which 1 % is lost."""
    from perception.evaluation.replayed import highest_rate

    losses: dict[float, float] = {}

    def loss(rate: float) -> float:
        if rate not in losses:
            losses[rate] = bench.run(subject, rate, seconds).passage.loss
            print(f"{subject.name}: {rate:.1f} Hz loses {losses[rate]:.2%}", flush=True)
        return losses[rate]

    begin = bench.run(subject, seconds=seconds, one_by_one=True).figures["output_hz"]
    found = {share: highest_rate(loss, begin, share) for share in (0.0, 0.01)}
    return {f"{share:g}": None if rate is None else round(rate, 1) for share, rate in found.items()}


def _about(bag: Bag, images: str) -> dict[str, Any]:
    from perception.tasks.messages import image_from_message

    image = image_from_message(next(bag.messages([images])).message)
    return {
        "name": bag.path.name,
        "topic": images,
        "images": bag.counts[images],
        "form": f"{image.size[1]}x{image.size[0]} {image.encoding}",
        "seconds": bag.duration / 1e9,
    }


def _truth(bag: Bag, images: str) -> dict[int, Any] | None:
    """True depth by stamp, thinned as results are; None where the bag has none."""
    from perception.evaluation.bags import true_depth_topic
    from perception.nodes.bag_bench import STRIDE
    from perception.tasks.messages import image_from_message, metres_of

    topic = true_depth_topic(bag, images)
    if topic is None:
        return None
    return {
        recorded.stamp: metres_of(image_from_message(recorded.message))[::STRIDE, ::STRIDE].copy()
        for recorded in bag.messages([topic])
    }


def _ratios(entries: list[dict[str, Any]]) -> dict[str, float | None]:
    """The second over the first, of medians over all runs."""
    import numpy as np

    def median(entry: dict[str, Any], read: Any) -> float:
        values = [value for run in entry["runs"] if (value := read(run)) is not None]
        return float(np.median(values)) if values else math.nan

    figures = {
        "latency p50": lambda run: run["latency_ms"] and run["latency_ms"]["p50"],
        "latency p99": lambda run: run["latency_ms"] and run["latency_ms"]["p99"],
        "output Hz": lambda run: run["output_hz"],
        "jitter": lambda run: run["jitter_ms"],
        "cores": lambda run: sum(process["cores"] for process in run["processes"].values()),
        "memory": lambda run: sum(process["memory_mib"] for process in run["processes"].values()),
    }
    first, second = entries
    found = {name: (median(first, read), median(second, read)) for name, read in figures.items()}
    return {name: round(b / a, 3) if a > 0 and math.isfinite(b) else None for name, (a, b) in found.items()}
