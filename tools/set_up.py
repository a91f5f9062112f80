"""Make the virtual environment that `make demo`, `make test` and `make lint` use. Needs nothing but Python.

Three steps, each done again only when what it depends on has changed: the pinned dependencies, vision_msgs, and the
project itself. Where a ROS 2 is sourced that one is used; elsewhere ROS 2 comes from wheels (x86-64 only).

Usage: python3 tools/set_up.py [FOLDER of the virtual environment, default .venv]
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".venv").absolute()
PYTHON = FOLDER / "bin" / "python3"
LOG = FOLDER / "set_up.log"
STAMP = FOLDER / "set_up.json"
SUPPORTED = ((3, 10), (3, 14))
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
ROS_PREFIXES = [path for path in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if path and path != str(FOLDER)]
ROS_DISTRO = os.environ.get("ROS_DISTRO") or ("2" if ROS_PREFIXES else "")


def preflight() -> str | None:
    """Return a sentence on what this machine lacks, None if it has everything."""
    version = sys.version_info[:2]
    if not SUPPORTED[0] <= version <= SUPPORTED[1]:
        return (
            f"{sys.executable} is Python {version[0]}.{version[1]}, but perception needs 3.10 to 3.14. "
            "Name another one: make setup PYTHON=python3.12"
        )
    if ROS_DISTRO:
        return None
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return (
            f"ROS 2 comes as wheels for Linux on x86-64 only, and this is {platform.system()} on {platform.machine()}. "
            "Install ROS 2 (Humble on JetPack 6 and Ubuntu 22.04, Jazzy on Ubuntu 24.04: https://docs.ros.org), run "
            "'sudo apt install ros-$ROS_DISTRO-vision-msgs ros-$ROS_DISTRO-diagnostic-msgs', then "
            "'source /opt/ros/$ROS_DISTRO/setup.bash' and this command again."
        )
    lacking = [f"apt package {package}" for tool, package in (("gcc", "gcc"), ("g++", "g++")) if not shutil.which(tool)]
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        lacking.append(
            f"the headers of Python {version[0]}.{version[1]} (apt package python{version[0]}.{version[1]}-dev)"
        )
    if lacking:
        return (
            f"vision_msgs is compiled here, which needs {', '.join(lacking)}. Install that and run this command again."
        )
    return None


def main() -> int:
    problem = preflight()
    if problem:
        print(problem, file=sys.stderr)
        return 1
    steps: list[tuple[str, Iterable[object], Callable[[], None]]] = [
        (
            "dependencies",
            (sys.version, ROS_DISTRO, ROS_PREFIXES, *contents("constraints.txt", "setup.cfg")),
            dependencies,
        ),
        ("vision_msgs", contents("tools/build_vision_msgs.py", "tools/vision_msgs/msg/*.msg"), vision_msgs),
        ("project", contents("setup.*", "pyproject.toml", "package.xml", "config/**/*", "launch/*", *NODES), project),
    ]
    done = json.loads(STAMP.read_text()) if STAMP.is_file() else {}
    for number, (name, inputs, step) in enumerate(steps, 1):
        key = hashlib.sha256(repr([*inputs]).encode()).hexdigest()
        if done.get(name) == key:
            continue
        started = time.monotonic()
        print(f"[{number}/{len(steps)}] {name}", flush=True)
        step()
        # What follows depends on this step, and is done again even if it is interrupted now.
        done = {kept: done[kept] for kept, *_ in steps[: number - 1]} | {name: key}
        STAMP.write_text(json.dumps(done))
        print(f"      {time.monotonic() - started:.0f} s", flush=True)
    return 0


# An executable is installed for each node, so a new node means a new installation.
NODES = ("tools/node_executable", "perception_nodes/*_node.py")


def contents(*patterns: str) -> Iterator[tuple[str, bytes]]:
    """Return name and content of every file of the repository that matches."""
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()):
        yield str(path.relative_to(ROOT)), path.read_bytes()


def dependencies() -> None:
    """Create the virtual environment and install every pinned dependency."""
    # --clear: packages of another Python, or of the time before a ROS 2 was sourced, must not stay.
    venv.EnvBuilder(system_site_packages=bool(ROS_DISTRO), clear=True, symlinks=True, with_pip=True).create(FOLDER)
    wanted, pins = requirements(), (ROOT / "constraints.txt").read_text().splitlines()
    if ROS_DISTRO:
        wanted, pins = leave_to_ros(wanted, pins)
    constraints = FOLDER / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n")
    install = ["install", "-c", str(constraints)]
    torch = next(line for line in pins if line.startswith("torch==")) + "+cpu"
    # Only where the configured indexes do not have it: asking one that cannot be reached takes long.
    known = subprocess.run(
        [str(PYTHON), "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", torch],
        capture_output=True,
        check=False,
    )
    pip(*install, torch, *(["--extra-index-url", TORCH_INDEX, "--retries", "2"] if known.returncode else []))
    pip(*install, "setuptools", "wheel", *wanted)


def requirements() -> list[str]:
    """Return what setup.cfg asks for, in all of its groups."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    groups = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    return [line for group in groups for line in group.splitlines() if line and not line.startswith(("#", "torch"))]


def leave_to_ros(wanted: list[str], pins: list[str]) -> tuple[list[str], list[str]]:
    """Drop ROS 2, and what the sourced ROS 2 was compiled against: NumPy and OpenCV stay those of the system."""
    if not imports("rclpy", sys.executable):
        raise SystemExit(
            f"A ROS 2 is sourced, but {sys.executable} cannot import its rclpy. "
            "Name the Python that ROS 2 was made for: make setup PYTHON=/usr/bin/python3"
        )
    numpy = run([sys.executable, "-c", "import numpy; print(numpy.__version__)"]).strip()
    has_opencv = imports("cv2", sys.executable)
    kept = [line for line in wanted if not line.startswith("ros-") and not (has_opencv and line.startswith("opencv"))]
    # A newer NumPy of the same major version can read what was compiled with the older one, another cannot. The pinned
    # ml-dtypes (of onnx) and contourpy (of matplotlib) ask for NumPy 2.
    limit = f"numpy<{int(numpy.split('.')[0]) + 1}"
    return kept, [line for line in pins if not re.match(r"numpy\b|opencv|ml-dtypes|contourpy", line)] + [limit]


def imports(module: str, python: str) -> bool:
    """Return whether an interpreter can import a module."""
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def vision_msgs() -> None:
    """Build vision_msgs, or say how to install it beside a sourced ROS 2."""
    if imports("vision_msgs.msg", str(PYTHON)):
        return
    if ROS_DISTRO:
        raise SystemExit(
            f"vision_msgs is missing: sudo apt install ros-{ROS_DISTRO}-vision-msgs, then this command again."
        )
    run([str(PYTHON), str(ROOT / "tools/build_vision_msgs.py")])


def project() -> None:
    """Install the project itself in place, from files that are already here."""
    pip("install", "--no-deps", "--no-build-isolation", "--no-index", "-e", str(ROOT))


def pip(*arguments: str) -> None:
    """Run pip; show what it downloads, and keep all it says in the log."""
    print(f"      pip {' '.join(arguments[:6])}{' ...' if len(arguments) > 6 else ''}", flush=True)
    command = [str(PYTHON), "-m", "pip", *arguments, "--disable-pip-version-check", "--progress-bar", "off"]
    run(
        command,
        show=re.compile(r"\s*(Downloading \S+ \(.* [MG]B\)|Installing collected packages|Successfully built \S+)"),
    )


def run(command: list[str], show: re.Pattern[str] | None = None) -> str:
    """Run a command and return its output; end with the tail of it if the command fails."""
    lines = []
    with (
        LOG.open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as process,
    ):
        assert process.stdout
        for line in process.stdout:
            log.write(line)
            lines.append(line)
            match = show.match(line) if show else None
            if match:
                print(f"      {match.group(1)}", flush=True)
    if process.returncode:
        tail = "".join(line for line in lines if not line.startswith("WARNING"))[-4000:]
        raise SystemExit(f"{tail}\nThis failed: {' '.join(command)}\nAll of its output is in {LOG}.")
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
