"""`perception label`: photographs with the depth or the boxes that a model sees in them, to train another model on."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("label", help="give photographs depth or boxes by a model, to train another one on")
    parser.add_argument("photographs", type=Path, help="folder of images, and of folders of them")
    parser.add_argument("--model", required=True, help="the teacher: registered name, trained weights or an ONNX file")
    parser.add_argument(
        "--out", required=True, help="new folder: RGB-D frames of the teacher's input size, or images with YOLO's texts"
    )
    parser.add_argument("--target", default="auto", help="runtime of its engine, built where missing (default: auto)")
    parser.add_argument("--precision", default="fp32", help="of its engine (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of its engine; 0 (default): all cores")
    parser.add_argument(
        "--score", type=float, default=0.4, help="of a detector's boxes at least (default: %(default)s)"
    )
    parser.add_argument(
        "--calibrate", metavar="DATA",
        help="data set with true boxes, by whose training split scores, --score too, become chances of being right",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, help="only so many photographs, drawn from all by --seed")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--licence", default="as the photographs", help="of the frames, kept with them")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import numpy as np
    from tqdm import tqdm

    from perception.evaluation.confidence import Confidence, judge_boxes
    from perception.evaluation.contenders import Contender, obtain
    from perception.evaluation.datasets import as_boxes, data_root, find_dataset
    from perception.evaluation.labels import find_photographs, label, label_boxes, training_camera, used_labels
    from perception.evaluation.rgbd_folder import RGBDWriter
    from perception.evaluation.yolo import YoloWriter

    photographs = find_photographs(args.photographs)
    if args.limit is not None:
        if args.limit < 1:
            raise ValueError(f"--limit is {args.limit}; give at least 1 photograph")
        drawn = np.random.default_rng(args.seed).permutation(len(photographs))[: args.limit]
        photographs = [photographs[place] for place in drawn]
    teacher = Contender(args.model, args.target, args.precision)
    with obtain(teacher, Path("out/label"), args.threads, lambda line: print(line, flush=True)) as engine:
        config, progress = engine.config, tqdm(photographs, desc="label")
        command = shlex.join(["perception", *sys.argv[1:]])
        writer: YoloWriter | RGBDWriter
        if config.task == "detection":
            labels = [config.labels[place] for place in used_labels(config)]
            confidence = None
            if args.calibrate:
                true = as_boxes(find_dataset(args.calibrate, data_root(), "train", task=config.task))
                confidence = Confidence.fit(*judge_boxes(engine.run, config, true))
                even, sure = (confidence.score_of(chance) for chance in (0.5, 0.9))
                print(f"of boxes that score {even:.2f} half are right, of {sure:.2f} nine of ten", flush=True)
            writer = YoloWriter(Path(args.out), labels, args.licence, command)
            broken = label_boxes(engine.run, config, progress, writer, args.score, confidence)
        else:
            if args.calibrate:
                raise ValueError(f"--calibrate is for the scores of boxes, and {config.name} gives {config.task}")
            writer = RGBDWriter(args.out, training_camera(config), 1.0, args.licence, command, compression=1)
            broken = label(engine.run, config, progress, writer)
    for path in broken:
        print(f"not readable, left out: {path}")
    if not writer.count:
        raise ValueError(f"none of the {len(photographs)} photographs can be read; remove {writer.folder}")
    print(f"wrote {writer.count} frames of {len(photographs)} photographs to {writer.folder}")
    return 0
