"""How ROS writes names."""

from __future__ import annotations

NAMES = r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*"
"""Pattern of tokens separated by slashes."""
