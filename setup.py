"""Installs the folders of this repository as the namespace package `perception`, through pip and through colcon.

Name, dependencies and the command `perception` are in setup.cfg; the version is the one of package.xml.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

from setuptools import Distribution, setup

ROOT = Path(__file__).resolve().parent
# A top-level package called `models` on a sourced shell's PYTHONPATH would break other people's robots.
FOLDERS = {
    "perception.tasks": "tasks",
    "perception.models": "models",
    "perception.engines": "engines",
    "perception.evaluation": "evaluation",
    "perception.training": "training",
    "perception.nodes": "perception_nodes",
    "perception.cli": "cli",
}

# Interface definitions too: by them bags with vision_msgs are written where no ROS is.
SHARED = ("launch", "config", "clip", "tools/vision_msgs")


class PerceptionDistribution(Distribution):
    """Lets `pip install -e` install `data_files` too."""

    def has_data(self) -> bool:
        # setuptools' editable_wheel (64 to 84 at least) asks for this name, while Distribution has only has_data_files.
        return True


def linked_folders() -> dict[str, str]:
    """Link `perception/<part>` into the working folder, from which `colcon build --symlink-install` then imports."""
    links = {}
    for name, folder in FOLDERS.items():
        link = Path(*name.split("."))
        if link.resolve() != ROOT / folder:
            link.unlink(missing_ok=True)
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(ROOT / folder)
        links[name] = str(link)
    return links


def packages(folders: dict[str, str]) -> dict[str, str]:
    """Return import name to folder for every folder below `folders` that has an `__init__.py`."""
    return {
        ".".join([name, *init.parent.relative_to(folder).parts]): str(init.parent)
        for name, folder in folders.items()
        for init in Path(folder).rglob("__init__.py")
    }


def files_below(folder: str) -> list[Path]:
    """Return what is shipped of a folder of the repository, except Python's own caches."""
    return sorted(path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")


def package_data() -> dict[str, list[str]]:
    """Return the files of each part that are not modules: weights, recipes, clips."""
    return {
        name: [str(path.relative_to(ROOT / folder)) for path in files_below(folder) if path.suffix != ".py"]
        for name, folder in FOLDERS.items()
    }


def node_executables() -> list[str]:
    """Write one executable for each `perception_nodes/*_node.py`, and return their paths."""
    target = Path("build", "executables")
    target.mkdir(parents=True, exist_ok=True)
    modules = (ROOT / "perception_nodes").glob("*_node.py")
    nodes = sorted(path.stem for path in modules if "def main(" in path.read_text())  # the others are bases
    return [str(shutil.copy(ROOT / "tools" / "node_executable", target / node)) for node in nodes]


def data_files() -> list[tuple[str, list[str]]]:
    """Return what goes where under the prefix: the ament index, share/perception and lib/perception."""
    shared = [path.relative_to(ROOT) for folder in SHARED for path in files_below(folder)]
    return [
        ("share/ament_index/resource_index/packages", ["resource/perception"]),
        ("share/perception", ["package.xml"]),
        *((f"share/perception/{path.parent}", [str(path)]) for path in shared),
        # `ros2 run` and launch's Node(package=...) look here. Not console scripts: pip puts those into bin.
        ("lib/perception", node_executables()),
    ]


package_folders = packages(FOLDERS if Path.cwd() == ROOT else linked_folders())
setup(
    distclass=PerceptionDistribution,
    python_requires=">=3.10",  # in setup.cfg it becomes an object that colcon cannot read
    version=ElementTree.parse(ROOT / "package.xml").findtext("version"),
    packages=sorted(package_folders),
    package_dir=package_folders,
    package_data=package_data(),
    data_files=data_files(),
)
