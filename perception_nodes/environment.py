"""The process environment that ROS 2 and Fast DDS read when a node starts."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from perception.tasks.resources import share

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")  # Fast DDS 2.14 on, and before
SEGMENT_VARIABLE = "PERCEPTION_SHM_BYTES"
SEGMENT_LIMITS = (1 << 20, (1 << 32) - 1)  # one image at least; Fast DDS holds the size in 32 bits

log = logging.getLogger("perception")


def prepare(segment_bytes: int | None = None) -> None:
    """Set what the user left unset; call it before `rclpy.init`.

    AMENT_PREFIX_PATH becomes the virtual environment if that holds the ROS 2 wheels. Fast DDS gets the profile of
    `config/fastdds.xml`, whose shared-memory segment is `segment_bytes` (default: the variable PERCEPTION_SHM_BYTES,
    else as in the file), and sends from a thread of its own. What the user set stays, another middleware gets nothing.
    Limits of this machine that make the profile less effective are logged.

    Raises:
        ValueError: the size of the segment is no number of bytes from 1 MiB to 4 GiB - 1.
    """
    if (Path(sys.prefix) / "share/ament_index/resource_index/packages/rclpy").is_file():
        os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    middleware = os.environ.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp"
    if "fastrtps" not in middleware:
        log.warning(
            "perception has no profile for %s: give it shared memory or socket buffers of 4 MiB yourself, else "
            "best-effort images of 640x480 and more get lost.",
            middleware,
        )
        return
    # A thread of the middleware sends images to their readers: `publish` does not hold the interpreter for it, and a
    # reader that stands still, to which Fast DDS takes 7 ms to send a 640x480 depth map, does not hold up the node.
    os.environ.setdefault("RMW_FASTRTPS_PUBLICATION_MODE", "ASYNCHRONOUS")
    if any(os.environ.get(variable) for variable in PROFILE_VARIABLES):
        return
    profile = _profile(segment_bytes if segment_bytes is not None else os.environ.get(SEGMENT_VARIABLE))
    for variable in PROFILE_VARIABLES:
        os.environ[variable] = str(profile)
    for notice in preflight(profile):
        log.warning("%s", notice)


def preflight(profile: Path, proc: Path = Path("/proc/sys/net/core"), shm: Path = Path("/dev/shm")) -> list[str]:
    """Return one sentence for each limit of this machine that is below what a Fast DDS `profile` asks for."""
    notices = []
    wanted = {"rmem_max": _number("receiveBufferSize", profile), "wmem_max": _number("sendBufferSize", profile)}
    # A container without the host's network does not see these files.
    found = {name: int((proc / name).read_text()) for name in wanted if (proc / name).is_file()}
    low = [name for name in found if found[name] < wanted[name]]
    if low:
        limits = ", ".join(f"net.core.{name} is {found[name]}" for name in low)
        command = " ".join(f"net.core.{name}={wanted[name]}" for name in low)
        notices.append(
            f"{limits}: the kernel cuts UDP buffers to that, and images that come from another machine get lost. "
            f"Raise it with: sudo sysctl -w {command}"
        )
    segment = _number("segment_size", profile)
    free = shutil.disk_usage(shm).free if shm.is_dir() else 0
    if free < segment:
        notices.append(
            f"{shm} has {free >> 20} MiB free, and each node asks for {segment >> 20} MiB of it: images go over UDP. "
            f"Start the container with --shm-size=512m, or set {SEGMENT_VARIABLE} to fewer bytes (4 images at least)."
        )
    return notices


def _profile(segment: int | str | None) -> Path:
    """Return the shipped profile, or a copy of it with another segment size."""
    shipped = share("config/fastdds.xml")
    if segment is None or segment == "":
        return shipped
    size = int(segment) if str(segment).isdecimal() else 0
    if not SEGMENT_LIMITS[0] <= size <= SEGMENT_LIMITS[1]:
        raise ValueError(
            f"The shared-memory segment ({SEGMENT_VARIABLE}) is {segment!r}, "
            f"but must be a number of bytes from {SEGMENT_LIMITS[0]} to {SEGMENT_LIMITS[1]}."
        )
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), f"perception-{os.getuid()}")
    copy = folder / f"fastdds-{size}.xml"
    unfinished = folder / f"{copy.name}.{os.getpid()}"  # several nodes start at once
    text = shipped.read_text()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished.write_text(re.sub(r"(?<=<segment_size>)\d+(?=</segment_size>)", str(size), text))
        unfinished.replace(copy)
    except OSError as error:  # a full disk is no reason to be blind
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        log.warning(
            "%s cannot be written (%s): the shipped profile is used, without regard to %s. Free some space, or let "
            "XDG_RUNTIME_DIR name another folder.", copy, error, SEGMENT_VARIABLE,
        )  # fmt: skip
        return shipped
    return copy


def _number(tag: str, profile: Path) -> int:
    """Return the number in the first <tag> of a profile, 0 if it has none."""
    match = re.search(rf"<{tag}>(\d+)</{tag}>", profile.read_text())
    return int(match.group(1)) if match else 0
