"""`perception record`: a rosbag of a folder, a video, RGB-D frames, images with boxes or a camera."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

START = 1_000_000_000  # nanoseconds; a stamp of zero would mean "never set"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "record", help="make a rosbag of a folder, a video, RGB-D frames, images with boxes or a camera"
    )
    parser.add_argument(
        "source",
        help="folder of images, of RGB-D frames, of 7-Scenes or of boxes (COCO, VOC, YOLO), video, /dev/videoN, "
        "gstreamer:",
    )
    parser.add_argument("--split", default="eval", help="of a data set of boxes (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the bag to write; must not exist")
    parser.add_argument("--frames", type=int, help="only the first so many (default: all; of a camera until ctrl-C)")
    parser.add_argument("--rate", type=float, default=0.0, help="stamp so many frames a second; 0: the source's own")
    parser.add_argument("--compression", choices=("none", "jpeg", "png"), default="none", help="of images")
    parser.add_argument("--quality", type=int, default=90, help="of JPEG images, 1 to 100 (default: %(default)s)")
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="plugin (default: %(default)s)")
    parser.add_argument("--namespace", default="camera", help="namespace of the topics (default: %(default)s)")
    parser.add_argument("--camera-info-url", default="", help="calibration: path, file:// or package:// URL")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the bag, one frame after the other; a frame that cannot be read is named and left out."""
    from tqdm import tqdm

    from perception.evaluation.bags import BagWriter
    from perception.evaluation.datasets import is_bag
    from perception.evaluation.recording import FrameWriter
    from perception.evaluation.seven_scenes import REGISTRATION, SevenScenes
    from perception.nodes.sources import open_source
    from perception.tasks.calibration import load_calibration

    if args.frames is not None and args.frames < 1:
        raise ValueError(f"--frames {args.frames} is not possible; give a positive number")
    if args.rate < 0:
        raise ValueError(f"--rate {args.rate:g} is not possible; give frames a second, or 0 for the source's own")
    path = Path(args.source)
    if path.exists() and is_bag(path):
        raise ValueError(f"{path} is a bag already; `perception convert` cuts, re-stamps and compresses bags")
    calibration = load_calibration(args.camera_info_url) if args.camera_info_url else None
    source = open_source(args.source, calibration, report=tqdm.write, split=args.split)
    notes = {"source": path.resolve().name if path.exists() else args.source}
    if path.is_dir() and SevenScenes.is_at(path):
        notes["depth_true"] = REGISTRATION
    total = min((count for count in (args.frames, source.length) if count is not None), default=None)
    count = 0
    with BagWriter(args.out, args.storage, notes) as bag:
        writer = FrameWriter(bag, args.namespace, args.compression, args.quality)
        try:
            for frame in tqdm(source, "record", total, unit="frame"):
                own = None if args.rate else frame.stamp
                if source.live:
                    stamp = time.time_ns()
                else:
                    stamp = START + round(1e9 * (count / (args.rate or source.fps) if own is None else own))
                writer.write(stamp, frame.image, frame.calibration, frame.depth_true, frame.pose, frame.boxes_true)
                count += 1
                if count == args.frames:
                    break
        except KeyboardInterrupt:
            if not source.live:
                raise
        finally:
            source.close()
        if not count:
            raise ValueError(f"{args.source} gave no frame that can be read")
    print(f"wrote {count} frames" + (f" of {total}" if total and count < total else "") + f" to {args.out}")
    if "depth_true" in notes:
        print(f"true depth is {REGISTRATION}")
    return 0
