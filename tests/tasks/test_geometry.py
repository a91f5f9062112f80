"""Cameras, the way back from depth to points, and the lens that must not change the metres."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks import depth as depth_task
from perception.tasks.config import ModelConfig, Output
from perception.tasks.geometry import DISTORTION_MODELS, Camera, Fit, Rectifier, back_project

VGA = Camera(640, 480, 525.0, 520.0, 322.3, 238.1)
WIDE = Camera(1280, 720, 910.0, 905.0, 645.2, 355.9)  # 16:9

cameras = st.builds(
    Camera,
    width=st.integers(8, 200),
    height=st.integers(8, 200),
    fx=st.floats(20, 500),
    fy=st.floats(20, 500),
    cx=st.floats(0, 200),
    cy=st.floats(0, 200),
)


def project(points: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    return (
        camera.fx * points[..., 0] / points[..., 2] + camera.cx,
        camera.fy * points[..., 1] / points[..., 2] + camera.cy,
    )


def plane_depth(camera: Camera, normal: np.ndarray, offset: float) -> np.ndarray:
    """Depth along Z of the plane normal . x = offset, float64 (height, width)."""
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack(
        [(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones(columns.shape)], axis=-1
    )
    return offset / (rays @ normal)


@given(cameras, st.floats(0.3, 20))
def test_back_projection_inverts_projection(camera: Camera, metres: float) -> None:
    depth = np.full((camera.height, camera.width), metres, np.float32)
    depth[0, 0] = metres * 2
    points = back_project(depth, camera)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points[..., 2], depth)
    u, v = project(points.astype(np.float64), camera)
    np.testing.assert_allclose(u, np.broadcast_to(np.arange(camera.width), u.shape), atol=2e-3)
    np.testing.assert_allclose(v, np.broadcast_to(np.arange(camera.height)[:, None], v.shape), atol=2e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_unknown_depth_gives_unknown_points(value: float) -> None:
    depth = np.full((480, 640), 2.0, np.float32)
    depth[7, 9] = value
    points = back_project(depth, VGA)
    assert np.isnan(points[7, 9]).all() and np.isfinite(np.delete(points.reshape(-1, 3), 7 * 640 + 9, axis=0)).all()
    assert depth[7, 9] == value or np.isnan(value)  # the input stays as it was


def test_depth_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depth of shape \(240, 320\) does not fit"):
        back_project(np.ones((240, 320), np.float32), VGA)


@pytest.mark.parametrize("camera", [VGA, WIDE], ids=["640x480", "16:9"])
def test_points_of_a_plane_lie_on_it_after_the_networks_squeeze(camera: Camera) -> None:
    """A perfect network of 224x224 that sees a tilted plane through a lens of another focal length: error below 1 %."""
    normal = np.array([0.25, -0.35, 0.9])
    normal /= np.linalg.norm(normal)
    focal = (0.9, 1.2)
    config = ModelConfig("t", "depth", (224, 224), (Output("depth", (1, 1, 224, 224), "m"),), focal=focal)
    fit = Fit.of((camera.height, camera.width), config, camera)
    small = plane_depth(camera.resized(224, 224), normal, 3.0) / fit.depth_scale
    result = depth_task.parse({"depth": small[None, None].astype(np.float32)}, fit, config)
    assert result.camera == camera
    points = back_project(result.metres, camera).astype(np.float64)
    distance = np.linalg.norm(points, axis=-1)
    # Half a network pixel at the border is extrapolated; the relative error counts along the ray.
    assert np.max(np.abs(points @ normal - 3.0) / distance) < 0.01
    truth = plane_depth(camera, normal, 3.0)
    assert np.max(np.abs(result.metres - truth) / truth) < 0.01


def test_half_the_field_of_view_leaves_the_metres_as_they_are() -> None:
    """Twice the focal length makes everything look half as far; `depth_scale` takes that back."""
    focal = (0.82, 1.09)
    zoomed = Camera(VGA.width, VGA.height, 2 * VGA.fx, 2 * VGA.fy, VGA.cx, VGA.cy)
    scales = {camera: Fit((480, 640), (224, 224), camera, focal).depth_scale for camera in (VGA, zoomed)}
    wall = 4.0
    for camera, scale in scales.items():
        # What a network sees is apparent size: focal length in widths over distance.
        apparent = np.sqrt(camera.fx / camera.width * camera.fy / camera.height) / wall
        says = np.sqrt(focal[0] * focal[1]) / apparent
        assert says * scale == pytest.approx(wall)
    assert scales[zoomed] == pytest.approx(2 * scales[VGA])


@given(cameras, st.integers(8, 300), st.integers(8, 300))
def test_depth_scale_does_not_depend_on_resolution(camera: Camera, width: int, height: int) -> None:
    resized = camera.resized(width, height)
    before = Fit((camera.height, camera.width), (224, 224), camera, (0.8, 1.1)).depth_scale
    after = Fit((height, width), (224, 224), resized, (0.8, 1.1)).depth_scale
    assert after == pytest.approx(before)


def test_depth_scale_is_one_without_camera_or_without_training_focal_length() -> None:
    assert Fit((480, 640), (224, 224), None, (0.8, 1.1)).depth_scale == 1.0
    assert Fit((480, 640), (224, 224), VGA).depth_scale == 1.0


TRAINED = (0.9, 1.2)  # fx / width, fy / height


def fit_of(horizontal: float, vertical: float, pads: bool = True) -> Fit:
    """An image of 640x480 behind these multiples of the training focal length, in a network's 256x192."""
    camera = Camera(640, 480, 640 * TRAINED[0] * horizontal, 480 * TRAINED[1] * vertical, 320, 240)
    return Fit((480, 640), (192, 256), camera, TRAINED, pads)


@pytest.mark.parametrize(
    ("horizontal", "vertical", "rows", "columns", "scale"),
    [
        (1, 1, slice(0, 192), slice(0, 256), 1),
        (2, 2, slice(48, 144), slice(64, 192), 1),
        (1.04, 1.04, slice(0, 192), slice(0, 256), 1.04),  # stretched: as near as calibrations are to each other
        (0.5, 0.5, slice(0, 192), slice(0, 256), 0.5),  # a wide view is squeezed
        (0.8, 1.2, slice(16, 176), slice(0, 256), math.sqrt(0.8)),  # 16:9
        (100, 100, slice(92, 100), slice(124, 132), 100 * math.sqrt(8 / 192 * 8 / 256)),
    ],
)
def test_narrow_views_are_laid_into_the_training_view(
    horizontal: float, vertical: float, rows: slice, columns: slice, scale: float
) -> None:
    fit = fit_of(horizontal, vertical)
    assert fit.window == (rows, columns) and fit.depth_scale == pytest.approx(scale)
    stretched = fit_of(horizontal, vertical, pads=False)
    assert stretched.window == (slice(0, 192), slice(0, 256))
    assert stretched.depth_scale == pytest.approx(math.sqrt(horizontal * vertical))


@given(st.floats(1, 4), st.floats(1, 4))
def test_things_keep_their_size_in_the_window(horizontal: float, vertical: float) -> None:
    """As many pixels a degree as training had, but for half a step of the grid, or the 5 % that are stretched."""
    fit = fit_of(horizontal, vertical)
    rows, columns = fit.window
    assert rows.stop - rows.start == pytest.approx(192 / vertical, abs=0.05 * 192 if vertical <= 1.05 else 4.01)
    assert columns.stop - columns.start == pytest.approx(
        256 / horizontal, abs=0.05 * 256 if horizontal <= 1.05 else 4.01
    )
    assert fit.depth_scale == pytest.approx(1, abs=0.1)
    assert rows.start % 4 == columns.start % 4 == 0 and (rows.start + rows.stop, columns.start + columns.stop) == (
        192,
        256,
    )


def test_a_calibration_of_another_resolution_is_refused() -> None:
    with pytest.raises(ValueError, match="calibrated for 640x480 does not fit an image of 320x240"):
        Fit((240, 320), (224, 224), VGA)


@given(cameras, st.integers(1, 400), st.integers(1, 400))
def test_resizing_there_and_back_is_the_same_camera(camera: Camera, width: int, height: int) -> None:
    back = camera.resized(width, height).resized(camera.width, camera.height)
    np.testing.assert_allclose(back.matrix, camera.matrix, rtol=1e-9, atol=1e-9)


@given(cameras, st.floats(-2, 2), st.floats(-2, 2))
def test_the_edges_of_the_image_stay_where_they_are_when_it_is_resized(camera: Camera, x: float, y: float) -> None:
    half = camera.resized(2 * camera.width, 3 * camera.height)
    u, v = camera.fx * x + camera.cx, camera.fy * y + camera.cy
    assert half.fx * x + half.cx == pytest.approx((u + 0.5) * 2 - 0.5)
    assert half.fy * y + half.cy == pytest.approx((v + 0.5) * 3 - 0.5)


@given(cameras, st.integers(0, 20), st.integers(0, 20))
def test_cropping_moves_the_principal_point_only(camera: Camera, x: int, y: int) -> None:
    window = camera.cropped(x, y, 6, 7)
    assert (window.width, window.height, window.fx, window.fy) == (6, 7, camera.fx, camera.fy)
    assert (window.cx + x, window.cy + y) == (pytest.approx(camera.cx), pytest.approx(camera.cy))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 480, 500, 500, 1, 1), "size 0x480 is not possible"),
        ((640, 480, 0.0, 500, 1, 1), "fx=0.0"),
        ((640, 480, 500, float("nan"), 1, 1), "fy=nan"),
        ((640, 480, -500.0, 500, 1, 1), "finite and positive"),
        ((640, 480, 500, 500, float("inf"), 1), "principal point finite"),
    ],
)
def test_an_impossible_camera_is_refused(values: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Camera(*values)


def _distorted(x: np.ndarray, y: np.ndarray, model: str, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised coordinates behind the lens, by the formulas of REP 104's models."""
    if model == "equidistant":
        r = np.hypot(x, y)
        theta = np.arctan(r)
        scale = np.where(
            r > 0, theta * (1 + sum(d[i] * theta ** (2 * i + 2) for i in range(4))) / np.maximum(r, 1e-12), 1
        )
        return x * scale, y * scale
    r2 = x**2 + y**2
    k = np.zeros(8)
    k[: d.size] = d
    radial = (1 + k[0] * r2 + k[1] * r2**2 + k[4] * r2**3) / (1 + k[5] * r2 + k[6] * r2**2 + k[7] * r2**3)
    return (
        x * radial + 2 * k[2] * x * y + k[3] * (r2 + 2 * x**2),
        y * radial + k[2] * (r2 + 2 * y**2) + 2 * k[3] * x * y,
    )


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", (-0.28, 0.07, 0.001, -0.002, 0.0)),
        ("rational_polynomial", (0.4, 0.1, 0.001, 0.0, 0.01, 0.7, 0.2, 0.02)),
        ("equidistant", (-0.02, 0.01, -0.003, 0.001)),
    ],
)
def test_rectifying_puts_every_pixel_where_the_pinhole_has_it(model: str, coefficients: tuple[float, ...]) -> None:
    """A picture whose value is a smooth function of the ray, taken through the lens, becomes that of the pinhole."""

    def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (120 + 60 * np.sin(6 * x) + 60 * np.cos(5 * y)).astype(np.float32)

    columns, rows = np.meshgrid(np.arange(VGA.width), np.arange(VGA.height))
    x, y = (columns - VGA.cx) / VGA.fx, (rows - VGA.cy) / VGA.fy
    ideal_x, ideal_y = x.copy(), y.copy()
    for _ in range(40):  # fixed point: which ray does this pixel of the distorted image see?
        got_x, got_y = _distorted(ideal_x, ideal_y, model, np.array(coefficients))
        ideal_x, ideal_y = ideal_x + (x - got_x), ideal_y + (y - got_y)
    rectifier = Rectifier(VGA.matrix, np.array(coefficients), model, (VGA.height, VGA.width))
    rectified = rectifier(scene(ideal_x, ideal_y))
    assert rectifier.camera == VGA
    middle = np.s_[80:400, 100:540]
    assert np.abs(rectified - scene(x, y))[middle].max() < 1.0
    assert np.abs(scene(ideal_x, ideal_y) - scene(x, y))[middle].max() > 5.0  # there was something to undo


def test_an_unknown_distortion_model_is_refused() -> None:
    with pytest.raises(ValueError, match=f"'omni' is unknown; accepted: {', '.join(DISTORTION_MODELS)}"):
        Rectifier(VGA.matrix, np.zeros(5), "omni", (480, 640))
