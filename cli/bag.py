"""`perception bag`: what is in a rosbag."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("bag", help="list the topics of a rosbag and what its images are")
    parser.add_argument("bag", type=Path, help="bag folder, or a .mcap, .db3 or .bag file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the topics of a bag, the form of its images and the notes of its maker."""
    from perception.evaluation.bags import Bag
    from perception.tasks.messages import MessageError, image_from_message

    with Bag(args.bag) as bag:
        print(f"{args.bag}: {sum(bag.counts.values())} messages in {bag.duration / 1e9:.1f} s")
        for topic in sorted(bag.types):
            print(f"  {topic}  {bag.types[topic]}  {bag.counts[topic]}")
        for topic in bag.image_topics():
            try:
                image = image_from_message(next(bag.messages([topic])).message)
                form = f"{image.size[1]}x{image.size[0]} {image.encoding}"
            except MessageError as error:
                form = f"not readable: {error}"
            print(f"image {topic}: {form}, camera_info: {bag.camera_info_topic(topic) or 'none'}")
        for key, value in bag.notes.items():
            print(f"note {key}: {value}")
    return 0
