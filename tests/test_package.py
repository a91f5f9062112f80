"""What an installation must bring, tried with pip and, where it is there, with colcon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perception.tasks.resources import share

ROOT = Path(__file__).resolve().parents[1]
NODES = [
    f"{name}_node"
    for name in (
        "depth",
        "detection",
        "enhancement",
        "image_source",
        "segmentation",
        "view_synthesis",
        "vit_fusion",
        "vit_worker",
    )  # fmt: skip
]
SHARED = sorted(
    str(path.relative_to(ROOT))
    for folder in ("launch", "config", "tools/vision_msgs")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.suffix != ".pyc"
)
WAYS = {
    "install": [],
    "editable": ["--editable"],
    "strict editable": ["--config-settings", "editable_mode=strict", "--editable"],
}


def run(command: list[str], cwd: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what is installed, with nodes that only tell where they were started from and with what."""
    skipped = shutil.ignore_patterns(
        ".*", "build", "install", "log", "out", "tests", "__pycache__", "*.egg-info", "weights"
    )
    shutil.copytree(ROOT, tmp_path / "checkout", ignore=skipped)
    for node in NODES:
        text = "import sys\n\n\ndef main() -> int:\n    print(__name__, *sys.argv[1:])\n    return 3\n"
        (tmp_path / "checkout/perception_nodes" / f"{node}.py").write_text(text)
    (tmp_path / "checkout/perception_nodes/__init__.py").write_text("")
    return tmp_path / "checkout"


def check_prefix(prefix: Path, environment: dict[str, str] | None = None) -> None:
    """Assert that the prefix has the nodes, which start, the command, the shared files and the ament index."""
    assert NODES and sorted(path.name for path in (prefix / "lib/perception").iterdir()) == NODES
    for node in NODES:
        command = [str(prefix / "lib/perception" / node), "--ros-args", "-r", "image:=a b"]
        started = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
        assert started.stdout == f"perception.nodes.{node} --ros-args -r image:=a b\n", started.stderr
        assert started.returncode == 3
    assert os.access(prefix / "bin/perception", os.X_OK)
    for name in ("package.xml", *SHARED):
        assert (prefix / "share/perception" / name).read_bytes() == (ROOT / name).read_bytes()
    assert (prefix / "share/ament_index/resource_index/packages/perception").is_file()


# Finds the parts without importing them, since colcon's Python need not have what they import.
WHERE_SHARED = """
import importlib.util, pathlib, runpy
tasks, training = (
    pathlib.Path(importlib.util.find_spec(f"perception.{part}").origin).parent for part in ("tasks", "training")
)
assert list((training / "recipes").iterdir())
for name in ("models", "tasks", "engines", "nodes", "cli"):
    assert importlib.util.find_spec(name) is None, f"{name} is visible as a top-level package"
print(runpy.run_path(tasks / "resources.py")["share"]("config"))
"""


@pytest.mark.parametrize("way", WAYS)
def test_pip_installs(way: str, checkout: Path, tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="the virtual environment has no setuptools to build with")
    prefix = tmp_path / "prefix"
    run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(prefix)], tmp_path)
    site = next((prefix / "lib").glob("python3*/site-packages"))
    # This interpreter's packages, without the finder of the perception that is installed there: it would answer first.
    packages = [path for path in map(Path, sys.path) if path.name in ("site-packages", "dist-packages")]
    (site / "outer.pth").write_text("\n".join(map(str, packages)) + "\n")
    python = str(prefix / "bin/python3")
    pip = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--ignore-installed",
    ]
    run([*pip, *WAYS[way], str(checkout)], tmp_path)
    check_prefix(prefix)
    shared = prefix / "share/perception" if way == "install" else checkout
    assert run([python, "-c", WHERE_SHARED], Path("/")) == f"{shared / 'config'}\n"


@pytest.mark.parametrize("options", [[], ["--symlink-install"]], ids=["copied", "linked"])
def test_colcon_installs(options: list[str], checkout: Path, tmp_path: Path) -> None:
    colcon = shutil.which("colcon", path="/usr/bin:/usr/local/bin")
    if colcon is None:
        pytest.skip("colcon is not installed (apt install colcon python3-colcon-ros)")
    # colcon works with the system's Python, not with that of a virtual environment.
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    workspace = tmp_path / "workspace"
    source = workspace / "src/perception"
    source.parent.mkdir(parents=True)
    checkout.rename(source)
    run([colcon, "build", *options], workspace, environment)
    prefix = workspace / "install/perception"
    lines = run(["sh", "-c", f". {workspace}/install/setup.sh; env"], workspace, environment).splitlines()
    sourced = dict(line.split("=", 1) for line in lines if "=" in line)
    assert sourced["AMENT_PREFIX_PATH"].split(":")[0] == str(prefix)
    check_prefix(prefix, sourced)
    shared = source if options else prefix / "share/perception"
    assert run(["python3", "-c", WHERE_SHARED], Path("/"), sourced) == f"{shared / 'config'}\n"


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"'config/no\.yaml' is not among the files of perception in .*/config"):
        share("config/no.yaml")
