"""Rays, fields and what is rendered of them, against geometry and sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; models are defined in it")

from perception.models.rendering import (  # noqa: E402
    EMPTY,
    BoxSpace,
    PixelGrid,
    Points,
    Renderer,
    ViewSpace,
    encode,
    project,
)
from perception.tasks.geometry import Camera, back_project  # noqa: E402
from perception.tasks.poses import pose_of  # noqa: E402
from perception.tasks.view_synthesis import lens_numbers  # noqa: E402

CAMERA = Camera(12, 8, 10.0, 9.0, 5.0, 4.0)
LENS = torch.from_numpy(lens_numbers(CAMERA))
NEAR, FAR = 0.5, 8.0


def rays_from(pose: np.ndarray):
    return PixelGrid((8, 12))(torch.from_numpy(pose[None]).float(), LENS)


def test_rays_meet_the_points_of_the_pixels() -> None:
    """Wherever the camera stands."""
    pose = pose_of((0.3, -0.2, 0.1), (0.1, 0.2, -0.1, 1.0))
    depth = np.random.default_rng(0).uniform(1, 5, (8, 12)).astype(np.float32)
    seen = back_project(depth, CAMERA).reshape(-1, 3)
    expected = seen @ pose[:3, :3].T + pose[:3, 3]
    points = rays_from(pose).points(torch.from_numpy(depth.reshape(1, 1, -1)))
    np.testing.assert_allclose(torch.cat(points, 1)[0].T, expected, rtol=1e-5, atol=1e-5)


def test_points_are_where_the_camera_sees_them() -> None:
    points = rays_from(np.eye(4)).points(torch.full((1, 1, 96), 3.0))
    x, y = (place[0, 0] for place in project(points, 1 / points.z, LENS))
    columns, rows = (2 * (torch.arange(side) + 0.5) / side - 1 for side in (12, 8))
    torch.testing.assert_close(x.reshape(8, 12), columns.expand(8, 12))
    torch.testing.assert_close(y.reshape(8, 12), rows[:, None].expand(8, 12))


def test_spaces() -> None:
    """A cube ahead; and what a camera sees, from near to far."""
    camera = torch.from_numpy(lens_numbers(CAMERA, 2.0))
    at = [torch.tensor(values).reshape(1, 1, -1) for values in ((0.8, 0.0), (0.0, -0.4), (2.8, 2.0))]
    found = torch.stack(BoxSpace(0.8, 0, 1.5, 4)(Points(*at), camera)).squeeze()
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [0.0, -0.5], [1.0, 0.0]]))
    space = ViewSpace(NEAR, FAR, 4, 1.25)
    ends = rays_from(np.eye(4)).points(torch.tensor([[NEAR], [FAR]]))
    x, y, z = space(ends, camera)
    torch.testing.assert_close(z[0], torch.tensor([[-1.0], [1.0]]).expand(2, 96))
    torch.testing.assert_close(x[:, 0], x[:, 1])
    assert x[0, 0, -1] == pytest.approx((11.5 / 6 - 1) / 1.25) and y[0, 1, -1] == pytest.approx((7.5 / 4 - 1) / 1.25)
    steps = (1 / space.edges).diff()
    torch.testing.assert_close(steps, steps[:1].expand(4))
    behind = space(Points(*(torch.full((1, 1, 1), value) for value in (0.0, 0.0, -1.0))), camera)
    assert behind.z.item() < -3, "nothing is behind the camera"


def test_a_place_in_a_field_is_the_product_of_planes_and_the_lines_across() -> None:
    torch.manual_seed(0)
    renderer = Renderer(BoxSpace(1, 0, 1, 2), 2, 3, 4)
    planes, lines = torch.randn(2, 3, 5, 4, 4), torch.randn(2, 3, 5, 4, 1)
    x, y, z = 1, 3, 2
    at = Points(*(torch.full((2, 1, 1), 2 * (place + 0.5) / 4 - 1) for place in (x, y, z)))
    found = renderer.look_up(planes, lines, at)
    rows_columns_lines = ((y, x, z), (x, z, y), (z, y, x))
    products = [
        planes[:, k, :, row, column] * lines[:, k, :, line, 0]
        for k, (row, column, line) in enumerate(rows_columns_lines)
    ]
    torch.testing.assert_close(found[..., 0, 0], torch.stack(products, 1))
    outside = Points(*(torch.full((2, 1, 1), value) for value in (0.0, 0.0, 1.6)))
    assert not renderer.look_up(planes, lines, outside).any()


@pytest.mark.parametrize("closed", [False, True])
def test_samples_hold_light_back_from_those_behind(closed: bool) -> None:
    renderer = Renderer(ViewSpace(NEAR, FAR, 6, 1.0) if closed else BoxSpace(1, 0, 1, 6), 1, 1, 4)
    density, lengths = torch.rand(2, 6, 5) * 4, torch.rand(2, 6, 5)
    weights = renderer.weigh(density, lengths)
    if closed:
        density = torch.nn.functional.softplus(density - EMPTY)
        lengths[:, -1] = 1e3
    held = 1 - torch.exp(-density * lengths)
    before = torch.cat([torch.ones(2, 1, 5), (1 - held).cumprod(1)[:, :-1]], 1)
    torch.testing.assert_close(weights, held * before)
    if closed:
        torch.testing.assert_close(weights.sum(1), torch.ones(2, 5))


def test_a_wall_is_seen_where_it_is() -> None:
    """From where the camera was, and from half a metre behind and aside."""
    space = ViewSpace(NEAR, FAR, 256, 2.0)
    renderer = Renderer(space, 1, 1, 4).eval()
    planes, lines = torch.zeros(1, 3, 2, 64, 64), torch.zeros(1, 3, 2, 64, 1)
    planes[:, 0], lines[:, 0, 0, 32:] = 1, 200.0
    wall = 2 / (1 / NEAR + 1 / FAR)  # where disparity is half way
    camera = torch.from_numpy(lens_numbers(CAMERA, 2.0))
    for position in ((0, 0, 0), (0.1, -0.05, -0.3)):
        depth = renderer(planes, lines, rays_from(pose_of(position, (0, 0, 0, 1))), camera).depth
        torch.testing.assert_close(depth, torch.full((1, 1, 96), wall - position[2]), rtol=0.02, atol=0)


def test_training_looks_between() -> None:
    renderer = Renderer(BoxSpace(1, 1, 3, 8), 1, 1, 4)
    edges = renderer.train().edges()
    assert not torch.equal(edges, renderer.edges()) and (edges.diff() >= 0).all()
    assert (edges[:-1] >= renderer.space.edges[:-1]).all() and (edges[:-1] <= renderer.space.edges[1:]).all()
    torch.testing.assert_close(renderer.eval().edges(), torch.linspace(1, 3, 9))


def test_numbers_are_told_with_their_waves() -> None:
    told = encode(torch.tensor([[0.25, 1.0]]))
    assert told.shape == (1, 18) and told[0, :2].tolist() == [0.25, 1.0]
    torch.testing.assert_close(told[0, 2:6], torch.tensor([0.5**0.5, 0.0, 0.5**0.5, -1.0]), atol=1e-6, rtol=0)
