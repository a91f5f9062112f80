"""Find the files that every kind of installation puts under `share/perception`: configuration and launch files."""

from __future__ import annotations

from pathlib import Path


def share(name: str) -> Path:
    """Return the path of a shared file or folder, such as `config/pipelines/depth_pipeline.yaml`.

    From a checkout (also one installed with `pip install -e` or `colcon build --symlink-install`) it is the file of the
    checkout, so that an edit is seen at once; else it is the one under the prefix that holds this module: a virtual
    environment, a colcon install folder or /opt/ros.

    Raises:
        FileNotFoundError: there is no such file; the message names the folder that was searched.
    """
    path = _root() / name
    if not path.exists():
        raise FileNotFoundError(f"{name!r} is not among the files of perception in {path.parent}.")
    return path


def _root() -> Path:
    here = Path(__file__).resolve()  # through the links of an editable install
    if (here.parents[1] / "package.xml").is_file():
        return here.parents[1]
    for prefix in here.parents:
        if (prefix / "share" / "perception" / "package.xml").is_file():
            return prefix / "share" / "perception"
    raise FileNotFoundError(
        f"share/perception/package.xml lies in no folder above {here}: the installation of perception is incomplete. "
        "Install it again with pip or colcon."
    )
