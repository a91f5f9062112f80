"""What is freed stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from perception.tasks.memory import keep_freed_memory

COUNT = """
import resource, sys
import numpy as np
from perception.tasks.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def frame():
    images = [np.ones((480, 640, 3), np.float32) for _ in range(4)]
frame(), frame()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    frame()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_frames_after_the_first_take_no_new_pages() -> None:
    if not keep_freed_memory():
        pytest.skip("this C library has no mallopt")
    kept, usual = (
        int(subprocess.run([sys.executable, "-c", COUNT, mode], check=True, capture_output=True, text=True).stdout)
        for mode in ("kept", "usual")
    )
    assert kept < 100 < usual
