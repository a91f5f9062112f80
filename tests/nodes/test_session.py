"""A session's own node and the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
from perception.nodes.session import Observer, Session
with Session(Observer, Path(sys.argv[1])) as session:
    print(session.observer.resolve_topic_name("image"))
"""


def test_a_pipelines_arguments_remap_nothing_of_the_observer(ros: None, tmp_path: Path) -> None:
    """`perception bench BAG PIPELINE image:=/eye/image`; ROS takes such words for remappings if it is let."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), "image:=/eye/image"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "/image\n" and "remap" not in done.stderr, done.stderr
