"""`perception replay` and `perception demo`: a source through a pipeline's node on real topics, measured."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

DEMO_FRAMES = 300


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    demo = subparsers.add_parser(
        "demo", help="build the engine for this machine and show a pipeline on a clip or your own input"
    )
    demo.add_argument(
        "input", nargs="?", default="", help="folder, video, rosbag or /dev/videoN (default: a shipped clip)"
    )
    demo.add_argument("--frames", type=int, default=DEMO_FRAMES, help="results to wait for (default: %(default)s)")
    demo.set_defaults(run=run_demo)
    replay = subparsers.add_parser(
        "replay", help="replay a folder, video or rosbag through a pipeline: latency, drops, accuracy"
    )
    replay.add_argument("input", help="folder of images or RGB-D frames, video, rosbag, /dev/videoN")
    replay.add_argument("--frames", type=int, default=0, help="results to wait for (default: as many as the input has)")
    replay.set_defaults(run=run_replay)
    for parser in (demo, replay):
        parser.add_argument("--pipeline", default="depth_pipeline", help="whose node (default: %(default)s)")
        parser.add_argument("--rate", type=float, default=0.0, help="frames per second; 0: the input's own")
        parser.add_argument("--model", default="", help="registered name or file (default: the pipeline's)")
        parser.add_argument("--target", default="auto", help="runtime of the engine (default: %(default)s)")
        parser.add_argument("--precision", default="auto", help="precision of the engine (default: %(default)s)")
        parser.add_argument("--threads", type=int, default=0, help="threads of the runtime; 0: all cores")
        parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for report and picture")


def run_demo(args: argparse.Namespace) -> int:
    from perception.cli.main import main

    executable, model = _nodes(args.pipeline)[0]
    args.model = args.model or model
    choice = ["--target", args.target, "--precision", args.precision]
    if status := main(["engines", "build", args.model, *choice, "--if-needed"]):
        return status
    args.input = args.input or str(_demonstration(executable, args.out / "perception_demo_clip"))
    return _run(args)


def _demonstration(executable: str, folder: Path) -> Path:
    """The shipped clip; where the node's images are of another kind, made so in `folder`: dark, for instance."""
    import cv2
    import numpy as np

    from perception.nodes.replay_observers import OBSERVERS
    from perception.tasks import get_task, typical
    from perception.tasks.resources import share

    task = OBSERVERS[executable].task
    if not hasattr(get_task(task), "typical"):
        return share("clip")
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(sorted(share("clip/rgb").iterdir())):
        pixels = np.asarray(cv2.imread(str(path)))
        cv2.imwrite(str(folder / f"{path.stem}.png"), typical(task, pixels, number))
    return folder


def run_replay(args: argparse.Namespace) -> int:
    from perception.nodes.sources import open_source

    if not args.frames:
        source = open_source(args.input)
        args.frames = source.length or DEMO_FRAMES
        source.close()
    return _run(args)


def _nodes(name: str) -> list[tuple[str, str]]:
    """Executables of a pipeline's nodes with a model, and the models, as far as they run without any argument.

    Raises:
        ValueError: no such pipeline, or one without a model.
    """
    from perception.nodes.pipeline import load_pipeline

    pipeline = load_pipeline(name)
    nodes = pipeline.nodes(pipeline.read({}))
    found = [(node.executable, str(node.parameters["model"])) for node in nodes if "model" in node.parameters]
    if not found:
        raise ValueError(f"{name} runs no model, so there is nothing to replay")
    return found


def _run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from perception.nodes.replay import Replay
    from perception.nodes.session import keep_local, machine

    (executable, model), *others = _nodes(args.pipeline)
    args.model = args.model or model
    keep_local()
    args.out.mkdir(parents=True, exist_ok=True)
    parameters = {name: getattr(args, name) for name in ("model", "target", "precision", "threads")}
    print(f"replaying {args.input} through {args.model} on real ROS topics; the nodes' logs are in {args.out / 'log'}")
    if others:
        without = ", ".join(other for other, _ in others)
        print(
            f"of {args.pipeline} this is {executable} alone, without {without}; `perception run` and "
            "`perception bench` run all of it"
        )
    with tqdm(total=args.frames, unit="frame") as bar:

        def progress(done: int, total: int) -> None:
            bar.update(min(done, total) - bar.n)

        report = Replay(executable, args.input, args.frames, args.out, args.rate, parameters, progress).run()
    report = {"command": " ".join(sys.argv), "machine": machine()} | report
    path = args.out / "report.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(_summary(report))
    print(f"\nreport: {path}\npicture: {report['picture'] or 'none, no frame came any more'}")
    for name in ("sheet", "animation"):
        if name in report:
            print(f"{name}: {report[name]}")
    return 0


def _summary(report: dict[str, Any]) -> str:
    """The report as a person reads it."""
    from perception.evaluation.truth import accuracy_text

    engine, counts = report["engine"], report["counts"]
    lines = [
        "",
        f"engine     {engine['model']} on {engine['target']} in {engine['precision']}, {engine['threads']} threads",
        f"frames     {report['frames']} results at {report['rate_hz']} Hz, {report['memory_mib']} MiB resident",
        "counts     " + ", ".join(f"{name} {count}" for name, count in counts.items() if count or name == "dropped"),
        "",
        f"{'stage (ms)':<20}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}",
    ]
    for stage, points in report["stages_ms"].items():
        lines.append(f"{stage:<20}" + "".join(f"{points[point]:>8.2f}" for point in ("p50", "p95", "p99", "max")))
    if accuracy := report.get("accuracy"):
        lines += ["", f"accuracy   {accuracy_text(accuracy)} over {accuracy['frames']} frames with true depth"]
    if "brightness" in report:
        lines += ["", f"brightness {report['brightness']} on average, where black is 0 and white 1"]
    if "objects" in report:
        found = ", ".join(f"{name} in {seen['images']}" for name, seen in report["objects"].items())
        lines += ["", f"objects    {found or 'none in any image'}"]
    if "classes" in report:
        found = ", ".join(f"{name} {share:.1%}" for name, share in report["classes"].items() if share >= 0.0005)
        lines += ["", f"classes    {found or 'no image came'}"]
    return "\n".join(lines)
