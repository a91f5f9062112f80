"""A folder of RGB-D frames: the one layout of every clip and simulated set, and plain folders of images.

    camera.json        width, height, fx, fy, cx, cy, fps, depth_scale, licence, command
    rgb/000000.jpg     colour
    depth/000000.png   16 bit, metres x depth_scale along camera Z (REP 118), 0 = invalid; may be an integer fraction
                       of the image's size
    poses.txt          one line a frame: stamp in seconds, then the 4x4 camera-to-world matrix row by row

Everything but the images may be absent; a folder that holds images directly is read too.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from perception.evaluation.frames import Dataset, RGBDFrame
from perception.tasks.geometry import Camera

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
DEPTH_SCALE = 1000.0
LARGEST_MOVE, SMALLEST_COSINE = 0.3, 0.9  # metres, and of the turn, between neighbouring frames of a sequence
LARGEST_STEP = 1.05  # ratio of neighbouring coarse depths up to which they count as one surface


class RGBDWriter:
    """Writes frames one by one; `poses.txt` grows after the images, so a reader never sees half a frame.

    Args:
        folder: made if absent; it must not hold frames yet.
        camera: of the colour images.
        quality: of the JPEG images, 1 to 100.
        compression: of the depth images, 1 to 9; 1 takes a thirtieth of the time, and a quarter more space.
        licence, command: of the data, and what made it; kept in camera.json.

    Raises:
        FileExistsError: the folder holds frames already.
    """

    def __init__(
        self,
        folder: Path | str,
        camera: Camera,
        fps: float,
        licence: str,
        command: str,
        quality: int = 92,
        compression: int = 9,
    ) -> None:
        self.folder, self.camera, self.fps, self.count = Path(folder), camera, fps, 0
        self.quality, self.compression = quality, compression
        if (self.folder / "rgb").exists():
            raise FileExistsError(f"{self.folder} holds frames already; give another folder or remove it first")
        for name in ("rgb", "depth"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        about = {**asdict(camera), "fps": fps, "depth_scale": DEPTH_SCALE, "licence": licence, "command": command}
        (self.folder / "camera.json").write_text(json.dumps(about, indent=2) + "\n")

    def write_frame(self, rgb: np.ndarray, depth: np.ndarray | None, pose: np.ndarray | None = None) -> None:
        """Appends a frame: rgb uint8 (height, width, 3); depth float (height / k, width / k) in metres; pose 4x4.

        Raises:
            ValueError: a shape that does not fit the camera.
            OSError: a file could not be written.
        """
        height, width = self.camera.height, self.camera.width
        if rgb.shape != (height, width, 3):
            raise ValueError(f"rgb of shape {rgb.shape} does not fit the camera; expected {(height, width, 3)}")
        name = f"{self.count:06d}"
        _write_image(
            self.folder / "rgb" / f"{name}.jpg",
            rgb[..., ::-1],
            [cv2.IMWRITE_JPEG_QUALITY, self.quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
        )
        if depth is not None:
            _fraction(depth.shape, (height, width))
            codes = np.nan_to_num(np.asarray(depth, np.float64) * DEPTH_SCALE, nan=0, posinf=0, neginf=0).round()
            codes = np.where((codes > 0) & (codes <= 65535), codes, 0).astype(np.uint16)
            _write_image(self.folder / "depth" / f"{name}.png", codes, [cv2.IMWRITE_PNG_COMPRESSION, self.compression])
        matrix = np.full((4, 4), np.nan) if pose is None else pose
        with open(self.folder / "poses.txt", "a") as poses:
            poses.write(" ".join([f"{self.count / self.fps:.6f}", *(f"{v:.6f}" for v in np.ravel(matrix))]) + "\n")
        self.count += 1


class RGBDFolder(Dataset[RGBDFrame]):
    """Reads a folder of RGB-D frames, or of plain images.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
        ValueError: camera.json, poses.txt or an image is not what the layout says.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.name = self.folder.resolve().name
        images = self.folder / "rgb" if (self.folder / "rgb").is_dir() else self.folder
        if not images.is_dir():
            raise FileNotFoundError(f"{images} is not a folder; give a folder of images or of RGB-D frames")
        self.images = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not self.images:
            raise FileNotFoundError(f"{images} holds no image; accepted: {', '.join(IMAGE_SUFFIXES)}")
        self.camera, self.fps, self.depth_scale, self.about = self._read_camera()
        self.stamps, self.poses = self._read_poses()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sequence(self) -> bool:
        """Whether the camera moves from frame to frame as cameras do: single views of a room have poses, too."""
        if len(self.poses) < 2 or not np.isfinite(self.poses).all():
            return False
        steps = np.linalg.norm(np.diff(self.poses[:, :3, 3], axis=0), axis=1)
        turns = (self.poses[1:, :3, 2] * self.poses[:-1, :3, 2]).sum(axis=1)
        return bool(np.median(steps) < LARGEST_MOVE and np.median(turns) > SMALLEST_COSINE)

    def label(self, index: int) -> str:
        """File name without its suffix."""
        return self.images[index].stem

    def files(self, index: int) -> tuple[Path, ...]:
        """Image, depth, and the files that all frames share."""
        image = self.images[index]
        shared = [path for path in (self.folder / "camera.json", self.folder / "poses.txt") if path.is_file()]
        return image, self._depth_path(image), *shared

    def __getitem__(self, index: int) -> RGBDFrame:
        path = self.images[index]
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{path} is not a readable image; remove or replace it")
        if self.camera and image.shape[:2] != (self.camera.height, self.camera.width):
            raise ValueError(
                f"{path} is {image.shape[1]}x{image.shape[0]} but camera.json says "
                f"{self.camera.width}x{self.camera.height}; use the calibration of this resolution"
            )
        index %= len(self)
        pose = self.poses[index] if index < len(self.poses) and np.isfinite(self.poses[index]).all() else None
        stamp = float(self.stamps[index]) if index < len(self.stamps) else index / self.fps
        depth = self._depth(path, image.shape[:2])
        return RGBDFrame(image[..., ::-1].copy(), depth, self.camera, pose, stamp, name=path.stem)

    def _read_camera(self) -> tuple[Camera | None, float, float, dict]:
        path = self.folder / "camera.json"
        if not path.exists():
            return None, 30.0, DEPTH_SCALE, {}
        try:
            about = json.loads(path.read_text())
            camera = Camera(
                *(int(about[key]) for key in ("width", "height")),
                *(float(about[key]) for key in ("fx", "fy", "cx", "cy")),
            )
            return camera, float(about.get("fps", 30)), float(about.get("depth_scale", DEPTH_SCALE)), about
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            message = f"{path} is not a camera description ({error!r}); it needs width, height, fx, fy, cx, cy"
            raise ValueError(message) from error

    def _read_poses(self) -> tuple[np.ndarray, np.ndarray]:
        path = self.folder / "poses.txt"
        if not path.exists():
            return np.zeros(0), np.zeros((0, 4, 4))
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        if any(len(row) != 17 for row in rows):
            raise ValueError(f"{path}: every line needs a stamp and 16 numbers of a 4x4 camera-to-world matrix")
        values = np.array(rows, dtype=np.float64).reshape(-1, 17)
        return values[:, 0], values[:, 1:].reshape(-1, 4, 4)

    def _depth_path(self, image: Path) -> Path:
        return self.folder / "depth" / f"{image.stem}.png"

    def _depth(self, image: Path, size: tuple[int, int]) -> np.ndarray | None:
        path = self._depth_path(image)
        if not path.exists():
            return None
        codes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if codes is None or codes.dtype != np.uint16 or codes.ndim != 2:
            raise ValueError(f"{path} is not a 16-bit single-channel PNG")
        depth = np.where(codes > 0, codes / self.depth_scale, np.nan).astype(np.float32)
        return upsampled(depth, _fraction(depth.shape, size))


def _write_image(path: Path, image: np.ndarray, options: list[int]) -> None:
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise OSError(f"{path} could not be encoded")
    path.write_bytes(data.tobytes())


def _fraction(depth: tuple[int, ...], image: tuple[int, ...]) -> int:
    """k, where a depth map of shape `depth` has 1 / k of the image's height and width."""
    k = image[0] // depth[0] if len(depth) == 2 and depth[0] else 0
    if k < 1 or (depth[0] * k, depth[1] * k) != tuple(image):
        raise ValueError(f"depth of shape {depth} is no integer fraction of the image's {tuple(image)}")
    return k


def upsampled(depth: np.ndarray, k: int) -> np.ndarray:
    """Coarse depth (h, w) at k times the size: exact on planes, NaN where its neighbours lie on different surfaces.

    Inverse depth is linear in the pixel on a plane, so it is what gets interpolated (and extrapolated at the border).
    """
    if k == 1:
        return depth
    height, width = depth.shape
    inverse = np.pad(1 / depth.astype(np.float64), 1, mode="reflect", reflect_type="odd")
    fine = cv2.resize(inverse, None, fx=k, fy=k, interpolation=cv2.INTER_LINEAR)
    fine = fine[k : k * (height + 1), k : k * (width + 1)]
    cells = np.stack([inverse[:-1, :-1], inverse[:-1, 1:], inverse[1:, :-1], inverse[1:, 1:]])
    same = (cells.min(axis=0) > 0) & (cells.max(axis=0) < LARGEST_STEP * cells.min(axis=0))
    rows = np.floor((np.arange(k * height) + k + 0.5) / k - 0.5).astype(int)
    columns = np.floor((np.arange(k * width) + k + 0.5) / k - 0.5).astype(int)
    return np.where(same[np.ix_(rows, columns)], 1 / fine, np.nan).astype(np.float32)
