"""`perception bench`: a rosbag through a pipeline on real topics; latency, loss, processors, memory, accuracy."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

PLAYED = 0.97
"""Share of a rate that must really have been sent for the rate to count."""

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
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for report and logs")
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
    from perception.evaluation.bags import Bag, choose_images
    from perception.evaluation.replay_report import markdown, write_report
    from perception.evaluation.replayed import depth_scores
    from perception.nodes.bag_bench import BagBench
    from perception.nodes.session import machine

    with Bag(path) as bag:
        images = choose_images(bag, args.images)
        info = bag.camera_info_topic(images)
        about = _about(bag, images)
        truth = _truth(bag, images)
        transforms = [topic for topic in ("/tf", "/tf_static") if bag.counts.get(topic) and _known(bag, topic)]
    bench = BagBench(path, tuple(topic for topic in (info, *transforms) if topic), args.out)
    subjects = [_subject([args.pipeline, *args.arguments], args.host, images, info, args.output)]
    if args.compare:
        host = args.compare_host or args.host
        subjects.append(_subject(shlex.split(args.compare), host, images, info, args.output))
    entries = [_entry(bench, subject) for subject in subjects]
    for number in range(args.rounds if args.compare else 1):
        for subject, entry in zip(subjects, entries, strict=True):
            for asked in _asked(args):
                print(f"{subject.name}: {_words(asked)}", flush=True)
                trial = bench.run(subject, **asked, keep=truth)
                if trial.kept:
                    trial.figures["accuracy"] = depth_scores(trial.kept, truth)
                    if trial.figures["accuracy"] is None:
                        print(f"no accuracy: no result of {subject.output} has the size of the bag's true depth")
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


def _known(bag: Bag, topic: str) -> bool:
    """Whether messages of the topic's type can be sent here; where not, that is said."""
    from perception.nodes.bag_player import message_type

    try:
        message_type(bag.types[topic])
    except ValueError as error:
        print(f"{topic} is not played: {error}", flush=True)
        return False
    return True


def _subject(words: list[str], host: str, images: str, info: str | None, output: str) -> Subject:
    """A pipeline of ours by its name and arguments, or else a command."""
    from perception.nodes.pipeline import pipeline_names
    from perception.nodes.subject import any_command, our_pipeline

    if words[0] not in pipeline_names():
        if len(words) == 1 and " " not in words[0]:
            raise ValueError(
                f"there is no pipeline {words[0]}; there are: {', '.join(pipeline_names())}; for another give, in "
                "quotes, the command that starts it, and its --output"
            )
        return any_command(words[0] if len(words) == 1 else shlex.join(words), images, output)
    pairs = [word.partition(":=") for word in words[1:]]
    if wrong := [name for name, separator, _ in pairs if not separator]:
        raise ValueError(f"argument {wrong[0]!r} is not understood; write name:=value")
    return our_pipeline(words[0], {name: text for name, _, text in pairs}, images, info, host, output)


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
            trial = bench.run(subject, rate, seconds)
            sent = trial.figures["input_hz"]
            print(f"{subject.name}: {rate:.1f} Hz loses {trial.passage.loss:.2%}", flush=True)
            if sent < PLAYED * rate:
                print(f"the player reached only {sent:.1f} Hz: such a rate is not counted", flush=True)
            losses[rate] = trial.passage.loss if sent >= PLAYED * rate else 1.0
        return losses[rate]

    begin = bench.run(subject, seconds=seconds, one_by_one=True).figures["output_hz"]
    if begin <= 0:
        raise ValueError(
            f"{subject.name} gave no two results on {subject.output}, one by one; see the logs in {bench.out}"
        )
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


def _truth(bag: Bag, images: str) -> dict[int, Any]:
    """True depth by stamp, thinned as results are; nothing where the bag has none."""
    from perception.evaluation.bags import true_depth_topic
    from perception.nodes.bag_bench import STRIDE
    from perception.tasks.messages import image_from_message, metres_of

    topic = true_depth_topic(bag, images)
    if topic is None:
        return {}
    return {
        recorded.stamp: metres_of(image_from_message(recorded.message))[::STRIDE, ::STRIDE].copy()
        for recorded in bag.messages([topic])
    }


def _ratios(entries: list[dict[str, Any]]) -> dict[str, float | None]:
    """The second over the first, for each way in which images came: of medians over the rounds."""
    import numpy as np

    figures = {
        "latency p50": lambda run: (run["latency_ms"] or {}).get("p50"),
        "latency p99": lambda run: (run["latency_ms"] or {}).get("p99"),
        "output Hz": lambda run: run["output_hz"],
        "jitter": lambda run: run["jitter_ms"],
        "cores": lambda run: sum(process["cores"] for process in run["processes"].values()),
        "memory": lambda run: sum(process["memory_mib"] for process in run["processes"].values()),
    }
    ratios: dict[str, float | None] = {}
    for asked in dict.fromkeys(run["asked"] for run in entries[0]["runs"]):
        for name, read in figures.items():
            values = [[read(run) for run in entry["runs"] if run["asked"] == asked] for entry in entries]
            known = all(found and None not in found for found in values)
            first, second = (float(np.median(found)) if known else math.nan for found in values)
            ratios[f"{asked}: {name}"] = round(second / first, 3) if first > 0 else None
    return ratios
