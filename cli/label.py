"""`perception label`: photographs with the depth that a model sees in them, to train another model on."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "label", help="give photographs depth by a model, to train another one on", description=__doc__
    )
    parser.add_argument("photographs", type=Path, help="folder of images, and of folders of them")
    parser.add_argument("--model", required=True, help="the teacher: registered name, trained weights or an ONNX file")
    parser.add_argument("--out", required=True, help="new folder for the RGB-D frames")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192), metavar=("W", "H"), help="default: 256 192")
    parser.add_argument("--limit", type=int, help="only so many photographs, drawn from all by --seed")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--licence", default="as the photographs", help="of the frames, kept with them")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the engine; 0 (default): all cores")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import shlex
    import sys

    import numpy as np
    from tqdm import tqdm

    from perception import engines
    from perception.evaluation.labels import find_photographs, label, training_camera
    from perception.evaluation.rgbd_folder import RGBDWriter

    photographs = find_photographs(args.photographs)
    if args.limit is not None:
        drawn = np.random.default_rng(args.seed).permutation(len(photographs))[: args.limit]
        photographs = [photographs[place] for place in drawn]
    with engines.load(args.model, threads=args.threads) as engine:
        camera = training_camera(engine.config, (args.size[1], args.size[0]))
        command = shlex.join(["perception", *sys.argv[1:]])
        writer = RGBDWriter(args.out, camera, 1.0, args.licence, command, compression=1)
        broken = label(engine.run, engine.config, tqdm(photographs, desc="label"), writer)
    for path in broken:
        print(f"not readable, left out: {path}")
    print(f"wrote {writer.count} frames of {len(photographs)} photographs to {writer.folder}")
    return 0
