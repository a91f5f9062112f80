"""Rooms are repeatable, those of different splits share nothing, and cameras in them see what they should."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

pytest.importorskip("embreex")

from perception.evaluation.photograph import Sensor
from perception.evaluation.room_style import PALETTES, SPLITS, VARIANTS, Draw
from perception.evaluation.room_views import drive, single_views
from perception.evaluation.rooms import KINDS, Room
from perception.tasks.geometry import Camera

CAMERA = Camera(64, 48, 51.9, 51.9, 31.5, 23.5)


@pytest.fixture(scope="module", params=[("train", "bedroom"), ("clip", "living room")], ids=lambda param: param[0])
def room(request) -> Room:
    split, kind = request.param
    return Room(split, 7, 0, kind)


def test_same_seed_same_room_other_seed_other_room():
    first, again, other = (Room("train", 3, number, "office") for number in (5, 5, 6))
    assert np.array_equal(first.scene.triangles, again.scene.triangles)
    assert np.array_equal(first.scene.atlas.texels, again.scene.atlas.texels)
    assert first.size == again.size and first.size != other.size
    assert Room("train", 4, 5, "office").size != first.size


def test_same_seed_same_photograph(room):
    def photograph() -> np.ndarray:
        draw = Draw(room.draw.split, 7, 0, "views")
        (pose,) = single_views(room, CAMERA, draw, 1)
        radiance, sensor = room.scene.radiance(CAMERA, pose, draw.rng), Sensor.drawn(draw)
        return sensor.develop(radiance, sensor.gain(radiance), draw.rng)

    image = photograph()
    assert image.dtype == np.uint8 and image.shape == (48, 64, 3)
    assert 25 < image.mean() < 230 and image.std() > 15  # neither black nor blank
    assert np.array_equal(image, photograph())


def test_palettes_and_constructions_of_the_splits_are_disjoint():
    colours = [{code for codes in PALETTES[split].values() for code in codes.split()} for split in SPLITS]
    assert not colours[0] & colours[1]
    assert VARIANTS["train"].keys() == VARIANTS["clip"].keys() and PALETTES["train"].keys() == PALETTES["clip"].keys()
    for thing in VARIANTS["train"]:
        assert not set(VARIANTS["train"][thing]) & set(VARIANTS["clip"][thing]), thing


def test_no_length_and_no_colour_can_be_drawn_in_both_splits():
    train, clip = Draw("train", 0), Draw("clip", 0)
    lengths = [{round(draw.length(0.3, 0.9) * 1000) for _ in range(1500)} for draw in (train, clip)]
    assert min(map(len, lengths)) > 250 and not lengths[0] & lengths[1]
    for palette in PALETTES["train"]:
        codes = [np.round([draw.colour(palette) * 255 for _ in range(200)]).astype(int) for draw in (train, clip)]
        assert (codes[0] % 2 == 0).all() and (codes[1] % 2 == 1).all(), palette


def test_streams_of_splits_seeds_rooms_and_purposes_differ():
    first = [
        Draw(*key).rng.random()
        for key in [("train", 0), ("clip", 0), ("train", 1), ("train", 0, 1), ("train", 0, 0, "views")]
    ]
    assert len(set(first)) == len(first)


def test_rooms_of_different_splits_share_no_texture_and_no_size():
    rooms = {split: [Room(split, 0, number, kind) for number, kind in enumerate(KINDS[:2])] for split in SPLITS}
    sizes = {split: {round(1000 * side) for room in rooms[split] for side in room.size} for split in SPLITS}
    assert not sizes["train"] & sizes["clip"]
    textures = {
        split: {hashlib.sha256(image.tobytes()).hexdigest() for room in rooms[split] for image in room.stuff.textures}
        for split in SPLITS
    }
    assert len(textures["train"]) > 30 and not textures["train"] & textures["clip"]


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'eval'.*train, clip"):
        Draw("eval", 0)


def test_depth_indoors_is_everywhere_known_and_no_longer_than_the_room(room):
    for pose in single_views(room, CAMERA, Draw("train", 1, 0, "views"), 3):
        depth = room.scene.depth(CAMERA, pose)
        assert np.isfinite(depth).all() and depth.min() > 0
        assert depth.max() < np.linalg.norm(room.size)
        assert 0.9 <= pose[2, 3] <= 1.8 and np.degrees(np.arcsin(pose[2, 2])) < 5.1


def test_things_stand_in_the_room_and_not_in_each_other(room):
    for index, block in enumerate(room.blocks):
        assert (block.low[:2] > -0.06).all() and (block.high[:2] < np.array(room.size[:2]) + 0.06).all()
        # Chairs may be pushed under tables, by at most this.
        assert not any(block.overlaps(other, -0.31) for other in room.blocks[:index])


def test_the_drive_is_smooth_and_free_of_collisions():
    for number in range(20):
        room = Room("clip", 1, number, "living room")
        if room.size[0] * room.size[1] > 20:
            break
    fps, frames = 30.0, 45
    poses = np.stack(drive(room, CAMERA, Draw("clip", 1, number, "views"), frames, fps, tries=400))
    assert poses.shape == (frames, 4, 4)
    speed = np.linalg.norm(np.diff(poses[:, :2, 3], axis=0), axis=1) * fps
    assert speed.max() < 0.55
    turned = np.einsum("nij,nij->n", poses[1:, :3, :3], poses[:-1, :3, :3])  # trace of the rotation between frames
    assert np.degrees(np.arccos(np.clip((turned - 1) / 2, -1, 1))).max() * fps < 45
    assert all(0.8 < pose[2, 3] < 1.2 and room.clearance(*pose[:2, 3]) > 0.35 for pose in poses)
