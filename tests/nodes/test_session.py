"""A session's own node and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perception.nodes.session import isolate

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


@pytest.mark.parametrize("taken", ["", "0", "7", "own", "101", "many"])
def test_a_domain_of_its_own_whatever_is_set(taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The robot's may be exported, and may be the one that would have been taken."""
    own = 1 + os.getpid() % 99
    taken = str(own) if taken == "own" else taken
    monkeypatch.setenv("ROS_DOMAIN_ID", taken)  # so that it is restored
    isolate()
    domain = os.environ["ROS_DOMAIN_ID"]
    assert domain != taken and 1 <= int(domain) <= 100
    assert int(domain) == own or taken == str(own)
