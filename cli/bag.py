"""`perception bag`: make a recording from RGB-D frames, and say what is in one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perception.evaluation.bags import BagWriter

START = 1_000_000_000  # nanoseconds; a stamp of zero would mean "never set"


def add_parser(subparsers: Any) -> None:
    """Add `perception bag make` and `perception bag info`."""
    parser = subparsers.add_parser("bag", help="make rosbags from RGB-D frames, or look into one")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    make = actions.add_parser("make", help="write a ROS 2 bag with image, camera_info, true depth and pose")
    make.add_argument("scene", type=Path, help="folder of 7-Scenes, or of RGB-D frames (rgb/, depth/, camera.json)")
    make.add_argument("--out", type=Path, required=True, help="the bag to write; must not exist")
    make.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="storage plugin (default: mcap)")
    make.add_argument("--compressed", action="store_true", help="JPEG on image_raw/compressed instead of image_raw")
    make.add_argument("--frames", type=int, help="only the first so many frames")
    make.add_argument("--namespace", default="camera", help="namespace of the topics (default: camera)")
    make.set_defaults(run=run, action=make_bag)

    info = actions.add_parser("info", help="list the topics of a bag and what its images are")
    info.add_argument("bag", type=Path, help="bag folder, or a .mcap, .db3 or .bag file")
    info.set_defaults(run=run, action=print_info)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    return int(args.action(args))


def make_bag(args: argparse.Namespace) -> int:
    """Write the bag, one frame after the other."""
    from perception.evaluation.bags import BagWriter
    from perception.evaluation.rgbd_folder import RGBDFolder
    from perception.evaluation.seven_scenes import REGISTRATION, SevenScenes

    if args.frames is not None and args.frames < 1:
        raise ValueError(f"--frames {args.frames} is not possible; give a positive number")
    seven_scenes = args.scene.is_dir() and SevenScenes.is_at(args.scene)
    scene: Any = SevenScenes(args.scene) if seven_scenes else RGBDFolder(args.scene)
    notes = {"source": args.scene.resolve().name} | ({"depth_true": REGISTRATION} if seven_scenes else {})
    count = min(len(scene), args.frames or len(scene))
    namespace = "/" + args.namespace.strip("/")
    with BagWriter(args.out, args.storage, notes) as writer:
        for index in range(count):
            _write_frame(writer, scene[index], namespace.rstrip("/"), args.compressed)
            if (index + 1) % 30 == 0 or index + 1 == count:
                print(f"\r{index + 1} of {count} frames", end="", flush=True)
    print(f"\nwrote {args.out}")
    if seven_scenes:
        print(f"true depth is {REGISTRATION}")
    return 0


def _write_frame(writer: BagWriter, frame: Any, namespace: str, compressed: bool) -> None:
    """One frame under one stamp: pose, calibration and depth before the image that they belong to."""
    from perception.evaluation import bags
    from perception.tasks.image import Image

    stamp = START + round(frame.stamp * 1e9)
    frame_id = f"{namespace.strip('/').replace('/', '_') or 'camera'}_color_optical_frame"
    head = bags.header(stamp, frame_id)
    if frame.pose is not None:
        pose, transform = bags.pose_messages(frame.pose, bags.header(stamp, "world"), frame_id)
        writer.write(f"{namespace}/pose", pose, stamp)
        writer.write("/tf", transform, stamp)
    if frame.camera is not None:
        writer.write(f"{namespace}/camera_info", bags.info_message(frame.camera, head), stamp)
    if frame.depth is not None:
        writer.write(f"{namespace}/depth_true", bags.image_message(Image(frame.depth, "32FC1"), head), stamp)
    image = Image(frame.rgb, "rgb8")
    if compressed:
        writer.write(f"{namespace}/image_raw/compressed", bags.compressed_message(image, head), stamp)
    else:
        writer.write(f"{namespace}/image_raw", bags.image_message(image, head), stamp)


def print_info(args: argparse.Namespace) -> int:
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
