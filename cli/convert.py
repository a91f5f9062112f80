"""`perception convert`: a rosbag cut, stamped anew, with its images compressed or unpacked, or in another storage."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("convert", help="cut a rosbag, stamp it anew, compress its images; ROS 1 to ROS 2")
    parser.add_argument("bag", type=Path, help="bag folder, or a .mcap, .db3 or .bag file")
    parser.add_argument("--out", type=Path, required=True, help="the bag to write; must not exist")
    parser.add_argument("--topics", nargs="+", default=[], help="keep only these (default: all)")
    parser.add_argument(
        "--start",
        type=float,
        default=0.0,
        help="seconds after the first message from which to keep, besides what latched topics said before",
    )
    parser.add_argument("--duration", type=float, help="seconds to keep (default: to the end)")
    parser.add_argument(
        "--stamps",
        choices=("keep", "recorded", "header"),
        default="keep",
        help="recorded: headers get the time of recording; header: the recording gets the headers' time",
    )
    parser.add_argument(
        "--begin", type=float, help="move all times so that the first message is of this second of 1970"
    )
    parser.add_argument(
        "--images", choices=("keep", "raw", "jpeg", "png"), default="keep", help="compress images, or unpack them"
    )
    parser.add_argument("--quality", type=int, default=90, help="of JPEG images, 1 to 100 (default: %(default)s)")
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="plugin (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the new bag; the old one stays."""
    from perception.evaluation.bags import Bag, BagWriter
    from perception.evaluation.conversion import Conversion, convert, to_ros2

    if args.out.exists():
        raise FileExistsError(f"{args.out} exists; remove it or give another name")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    conversion = Conversion(
        tuple(args.topics), args.start, args.duration, args.stamps, args.begin, args.images, args.quality
    )
    with (
        tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".convert-") as scratch,
        Bag(to_ros2(args.bag, Path(scratch))) as bag,
        BagWriter(args.out, args.storage, bag.notes) as writer,
    ):
        count = convert(bag, writer, conversion)
        if not count:
            raise ValueError(f"{args.bag} has nothing to keep in that time; it lasts {bag.duration / 1e9:.1f} s")
    print(f"wrote {count} messages to {args.out}")
    return 0
