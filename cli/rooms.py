"""`perception rooms`: simulated rooms with true depth, as a folder of RGB-D frames."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perception.evaluation.rgbd_folder import RGBDWriter
    from perception.evaluation.rooms import Room
    from perception.tasks.geometry import Camera

NYU_FOCAL = 518.9 / 640  # focal length over image width of the camera of NYU Depth v2


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("rooms", help="make simulated rooms with true depth", description=__doc__)
    parser.add_argument("--out", required=True, help="new folder for the frames")
    parser.add_argument(
        "--split",
        choices=("train", "clip"),
        default="train",
        help="train: single views of many rooms; clip: a robot's drive through each; nothing is shared",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other rooms (default 0)")
    parser.add_argument("--rooms", type=int, default=1, help="number of rooms (default 1)")
    parser.add_argument("--first-room", type=int, default=0, help="number of the first room (default 0)")
    parser.add_argument("--frames", type=int, default=150, help="frames in all (default 150)")
    parser.add_argument("--size", type=_size, default=(640, 480), metavar="WxH", help="default 640x480")
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second of a clip (default 30)")
    parser.add_argument("--samples", type=int, default=2, help="rays a pixel along each axis (default 2)")
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality (default 90)")
    parser.add_argument(
        "--depth-fraction", type=int, default=1, metavar="K", help="write depth at 1/K of the image's size (default 1)"
    )
    parser.set_defaults(run=run)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"size {text!r} is not WIDTHxHEIGHT, such as 640x480")
    return int(width), int(height)


def run(args: argparse.Namespace) -> int:
    from perception.evaluation.rgbd_folder import RGBDWriter
    from perception.evaluation.rooms import Room
    from perception.tasks.geometry import Camera

    width, height = args.size
    focal = NYU_FOCAL * width
    camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    command = (
        f"perception rooms --split {args.split} --seed {args.seed} --rooms {args.rooms} --first-room {args.first_room} "
        f"--frames {args.frames} --size {width}x{height} --fps {args.fps:g} --samples {args.samples} "
        f"--quality {args.quality} --depth-fraction {args.depth_fraction}"
    )
    writer = RGBDWriter(args.out, camera, args.fps, "Apache-2.0", command, args.quality)
    began = time.monotonic()
    for index in range(args.rooms):
        share = args.frames * (index + 1) // args.rooms - args.frames * index // args.rooms
        room = Room(args.split, args.seed, args.first_room + index)
        _photograph_room(writer, room, camera, args, args.first_room + index, share)
        each = (time.monotonic() - began) / max(writer.count, 1)
        print(f"room {index + 1}/{args.rooms}: {room.kind}, {writer.count} frames, {each:.2f} s a frame", flush=True)
    return 0


def _photograph_room(
    writer: RGBDWriter, room: Room, camera: Camera, args: argparse.Namespace, number: int, frames: int
) -> None:
    """Writes `frames` frames of one room."""
    from perception.evaluation.photograph import Sensor
    from perception.evaluation.room_style import Draw
    from perception.evaluation.room_views import drive, single_views

    draw = Draw(args.split, args.seed, number, "views")
    clip = args.split == "clip"
    poses = drive(room, camera, draw, frames, args.fps) if clip else single_views(room, camera, draw, frames)
    coarse = camera.resized(camera.width // args.depth_fraction, camera.height // args.depth_fraction)
    sensor, gain = Sensor.drawn(draw), None
    for pose in poses:
        radiance = room.scene.radiance(camera, pose, draw.rng, args.samples)
        if clip and gain is not None:  # a camera adapts its exposure within about a second
            gain += (sensor.gain(radiance) - gain) / args.fps
        else:
            sensor = sensor if clip else Sensor.drawn(draw)
            gain = sensor.gain(radiance)
        writer.write_frame(sensor.develop(radiance, gain, draw.rng), room.scene.depth(coarse, pose), pose)
