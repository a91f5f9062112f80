"""LPIPS, how far two images lie apart in the features of a trained network (Zhang et al., CVPR 2018), if somebody gives
that network: nothing of it is shipped.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

HOW = "torch.onnx.export(lpips.LPIPS(net='alex'), ...) of the package lpips, with two images of free sizes"
"""How such a file is made."""


class Lpips:
    """The network as an ONNX file: two inputs float32 (1, 3, H, W), RGB in [-1, 1], of free height and width, and one
    output, the distance.

    Raises:
        ValueError: no such file, or one with other inputs or outputs.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        if not path.is_file():
            raise ValueError(f"{path} does not exist; --lpips names an ONNX file of LPIPS, made by {HOW}")
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self._session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]
        shapes = [tuple(tensor.shape) for tensor in self._session.get_inputs()]
        fixed = any(
            len(shape) != 4 or shape[1] != 3 or any(isinstance(side, int) for side in shape[2:]) for shape in shapes
        )
        if len(shapes) != 2 or fixed or len(self._session.get_outputs()) != 1:
            raise ValueError(
                f"{path} is no LPIPS: its inputs are {', '.join(map(str, shapes))}; expected are two images (1, 3, "
                f"height, width) of free sizes, and one output. It is made by {HOW}"
            )

    def __call__(self, one: np.ndarray, other: np.ndarray) -> float:
        """The distance of two images uint8 RGB (height, width, 3)."""
        given = {name: _signed(image) for name, image in zip(self._inputs, (one, other), strict=True)}
        return float(self._session.run(None, given)[0].reshape(()))


def _signed(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1)
