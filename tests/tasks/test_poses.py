"""Poses there and back, and what is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks.poses import (
    angle_of,
    check_pose,
    distance_of,
    inverse,
    orbit_pose,
    pose_of,
    quaternion_of,
    relative_pose,
    rotation_of,
    translated,
)

Q = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)


@given(Q)
def test_rotations_there_and_back(q: tuple[float, float, float, float]) -> None:
    unit = np.array(q) / np.linalg.norm(q)
    got = quaternion_of(rotation_of([3 * value for value in q]))
    assert got[3] >= 0 and abs(abs(got @ unit) - 1) < 1e-9


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    np.testing.assert_allclose(rotation_of((0, 0, 1, 1)) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


@given(Q, Q)
def test_what_is_seen_from_a_pose_is_seen_through_the_relative_one(
    first: tuple[float, ...], second: tuple[float, ...]
) -> None:
    here, there = pose_of((1, -2, 3), first), pose_of((0.5, 4, -1), second)
    between = relative_pose(here, there)
    np.testing.assert_allclose(here @ between, there, atol=1e-12)
    np.testing.assert_allclose(inverse(between), relative_pose(there, here), atol=1e-12)
    check_pose(between)


@pytest.mark.parametrize("degrees", [0, 1e-6, 30, 90, 179.999, 180])
def test_the_angle_is_that_of_the_turn(degrees: float) -> None:
    half = math.radians(degrees) / 2
    pose = pose_of((3, 0, 4), (0, math.sin(half), 0, math.cos(half)))
    assert angle_of(pose) == pytest.approx(degrees, abs=1e-7)
    assert distance_of(pose) == pytest.approx(5)


@pytest.mark.parametrize(
    ("position", "quaternion", "message"),
    [
        ((0, 0, math.nan), (0, 0, 0, 1), r"position \(0, 0, nan\).*finite"),
        ((0, 0, 0), (0, 0, math.inf, 1), r"quaternion \(0, 0, inf, 1\).*finite"),
        ((0, 0, 0), (0, 0, 0, 0), r"length is 0, so that it is no rotation; no rotation at all is \(0, 0, 0, 1\)"),
        ((0, 0), (0, 0, 0, 1), "3 and 4 finite numbers"),
    ],
)
def test_what_is_no_pose_is_refused(position: tuple[float, ...], quaternion: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pose_of(position, quaternion)


@pytest.mark.parametrize(
    "matrix", [np.eye(3), np.full((4, 4), np.nan), np.diag([2.0, 2, 2, 1]), np.diag([1.0, 1, -1, 1]), 2 * np.eye(4)]
)
def test_an_array_that_is_no_pose_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a pose must be"):
        check_pose(matrix)


def test_a_shift_is_a_pose() -> None:
    check_pose(translated((1, 2, 3)))
    assert translated((1, 2, 3))[:3, 3].tolist() == [1, 2, 3]


@given(st.floats(0, 1), st.floats(0, 60), st.floats(0.1, 5))
def test_an_orbit_looks_at_its_point_from_the_same_distance(turn: float, angle: float, distance: float) -> None:
    pose = orbit_pose(turn, angle, distance)
    check_pose(pose)
    assert angle_of(pose) == pytest.approx(angle, abs=1e-6)
    np.testing.assert_allclose(pose @ (0, 0, distance, 1), (0, 0, distance, 1), atol=1e-9)


def test_an_orbit_goes_around() -> None:
    places = [orbit_pose(turn, 10, 2)[:3, 3] for turn in (0, 0.25, 0.5, 0.75)]
    aside = 2 * math.sin(math.radians(10))
    expected = [(0, aside), (-aside, 0), (0, -aside), (aside, 0)]
    np.testing.assert_allclose([place[:2] for place in places], expected, atol=1e-9)
