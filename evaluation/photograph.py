"""Turns radiance into what a small camera delivers: exposure, lens, sensor noise, white balance and tone curve."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from perception.evaluation.room_style import Draw
from perception.tasks.image import to_signal


@dataclass(frozen=True)
class Sensor:
    """A camera's settings. `target` is the exposed log-mean, `shot` and `read` the noise deviation at full scale and
    in the dark, `blur` in pixels, `vignette` the loss of light in the corners, `balance` gains of R, G and B."""

    target: float
    shot: float
    read: float
    blur: float
    vignette: float
    balance: np.ndarray
    contrast: float

    @classmethod
    def drawn(cls, draw: Draw) -> Sensor:
        """Settings as cheap cameras have them."""
        warm = draw.uniform(-0.14, 0.12)
        return cls(
            target=draw.uniform(0.14, 0.34),
            shot=draw.uniform(0.004, 0.03),
            read=draw.uniform(0.001, 0.008),
            blur=draw.uniform(0.25, 0.7),
            vignette=draw.uniform(0.0, 0.3),
            balance=np.array([1 + warm, 1 + draw.uniform(-0.03, 0.02), 1 - warm], dtype=np.float32),
            contrast=draw.uniform(0.95, 1.2),
        )

    def gain(self, radiance: np.ndarray) -> float:
        """The automatic exposure for radiance (H, W, 3)."""
        luminance = radiance @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
        return float(self.target / np.exp(np.mean(np.log(luminance + 1e-2))))

    def develop(self, radiance: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
        """uint8 RGB (H, W, 3) of radiance (H, W, 3) at an exposure."""
        height, width = radiance.shape[:2]
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        light = radiance * (gain * (1 - self.vignette * (x * x + y * y) / 2))[..., None].astype(np.float32)
        light = cv2.GaussianBlur(light * self.balance, (0, 0), self.blur)
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        light = light + noise * np.sqrt(self.shot**2 * np.minimum(light, 1) + self.read**2)
        knee = np.float32(0.7)
        over = np.maximum(light - knee, 0)
        light = np.clip(np.minimum(light, knee) + (1 - knee) * (1 - np.exp(-over / (1 - knee))), 0, 1)
        signal = to_signal(light)
        signal = signal + (self.contrast - 1) * (signal - 0.5) * 4 * signal * (1 - signal)
        return np.clip(np.round(signal * 255), 0, 255).astype(np.uint8)
