"""What a teacher says of training images, asked once: as they are, and mirrored.

A network that learns sees them moved and recoloured a little; where that changes little of what they show, the teacher
need not be asked of every variation, which would take longer than all else in training a small network.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from perception.engines.store import write_atomically
from perception.training.class_data import STILL, Images, augment
from perception.training.data import stack_images, to_unit

if TYPE_CHECKING:
    from perception.training.classification import Teacher

BATCH = 64


def remembered_logits(teacher: Teacher, images: Images, folder: Path, device: torch.device) -> torch.Tensor:
    """The teacher's logits, float32 (images, 2, its classes) on the CPU, of each image as it is and mirrored.

    They are kept in `folder`, under a name that tells teacher and images, and read from there.
    """
    what = f"{teacher.config.weights_sha256} {images.dataset.name}".encode()
    name = hashlib.sha256(what + np.array(images.chosen, np.int64).tobytes()).hexdigest()[:16]
    path = folder / f"taught-{name}.npy"
    if not path.is_file():
        found = [_asked(teacher, images, first, device) for first in tqdm(range(0, len(images), BATCH), desc="ask")]
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(found))
        write_atomically(path, buffer.getvalue())
    return torch.from_numpy(np.load(path).astype(np.float32))


def _asked(teacher: Teacher, images: Images, first: int, device: torch.device) -> np.ndarray:
    rng = np.random.default_rng(0)  # nothing is drawn of it
    numbers = range(first, min(first + BATCH, len(images)))
    size = teacher.config.input_size
    still = to_unit(stack_images([augment(images[n].rgb, size, STILL, rng, mirror=False) for n in numbers])).to(device)
    return torch.stack([teacher(still), teacher(still.flip(3))], 1).half().cpu().numpy()
