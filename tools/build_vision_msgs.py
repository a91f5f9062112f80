"""Generate and compile `vision_msgs` into the virtual environment that runs this file.

The ROS 2 wheels on the package index lack vision_msgs, so its interface definitions lie in `vision_msgs/msg/`: the same
fields give the same type hash, so what is built here talks to the nodes of a ROS 2 installation. The wheels make the
virtual environment an ament prefix with the generators and headers that this needs; gcc and g++ come from the system.

Usage: .venv/bin/python tools/build_vision_msgs.py
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path

PACKAGE = "vision_msgs"
SOURCE = Path(__file__).resolve().parent / PACKAGE
PREFIX = Path(sys.prefix)
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
DEPENDENCIES = ("std_msgs", "geometry_msgs", "builtin_interfaces")
TYPE_SUPPORTS = ("rosidl_typesupport_c", "rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c")
RUNTIME_LIBRARIES = (
    "rosidl_runtime_c",
    *TYPE_SUPPORTS,
    "rosidl_typesupport_fastrtps_cpp",
    "fastcdr",
    "rmw",
    "rcutils",
    *(
        f"{name}__{part}"
        for name in DEPENDENCIES
        for part in ("rosidl_generator_c", "rosidl_generator_py", *TYPE_SUPPORTS)
    ),
)
# Sources of each library, relative to the folders that `generate` writes. A library may use those above it.
LIBRARIES = {
    "rosidl_generator_c": "c/msg/detail/*.c",
    "rosidl_typesupport_fastrtps_c": "fastrtps_c/msg/detail/*.cpp",
    "rosidl_typesupport_introspection_c": "introspection_c/msg/detail/*.c",
    "rosidl_typesupport_c": "c/msg/*.cpp",
    "rosidl_generator_py": "py/msg/*_s.c",
}


def generate(output: Path) -> None:
    """Write the C and Python sources of every message under `output`, one folder a generator."""
    os.environ["AMENT_PREFIX_PATH"] = str(PREFIX)
    import rosidl_cli.entry_points
    from rosidl_cli.command.generate.api import generate as rosidl_generate

    def entry_points(group: str, *, specs: Iterable[str] | None = None, **_: object) -> dict[str, EntryPoint]:
        found = {point.name: point for point in importlib.metadata.entry_points(group=group)}
        return found if specs is None else {name: found[name] for name in specs}

    # Two distributions (ros-rosidl-x and rosidl_x) register the same generators, which rosidl_cli's own lookup refuses.
    rosidl_cli.entry_points.get_entry_points = entry_points
    rosidl_generate(
        package_name=PACKAGE,
        interface_files=[f"{SOURCE}:msg/{path.name}" for path in sorted((SOURCE / "msg").glob("*.msg"))],
        include_paths=[str(PREFIX / "share" / name) for name in DEPENDENCIES],
        output_path=output,
        types=["c", "py"],
        typesupports=["c", "fastrtps_c", "introspection_c"],
    )


def include_flags(generated: Path) -> list[str]:
    """Return -I flags for the generated headers, those of the prefix, Python's and NumPy's."""
    import numpy

    folders = [Path(sysconfig.get_path("include")), Path(numpy.get_include()), PREFIX / "include"]
    folders += [folder for folder in (PREFIX / "include").iterdir() if folder.is_dir()]
    for part in ("c", "fastrtps_c", "introspection_c"):
        folder = generated / "include" / part
        folder.mkdir(parents=True)
        (folder / PACKAGE).symlink_to(generated / part)  # the sources say #include "vision_msgs/msg/..."
        folders.append(folder)
    return [f"-I{folder}" for folder in folders]


def run(command: list[str]) -> None:
    """Run a compiler, and show what it said if it failed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}\nvision_msgs could not be compiled (above).")


def compile_all(sources: Iterable[Path], generated: Path) -> None:
    """Compile every source to an object file beside it, on all cores."""
    flags = ["-O1", "-fPIC", "-w", f'-DROS_PACKAGE_NAME="{PACKAGE}"', *include_flags(generated)]

    def compile_one(source: Path) -> None:
        compiler = ["g++", "-std=c++17"] if source.suffix == ".cpp" else ["gcc", "-std=gnu11"]
        run([*compiler, *flags, "-c", str(source), "-o", f"{source}.o"])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, sources))


def link(target: Path, sources: Iterable[Path], own: Iterable[str]) -> None:
    """Link the object files of `sources` against the prefix and the libraries `own` of this package."""
    names = [*(f"{PACKAGE}__{name}" for name in own), *RUNTIME_LIBRARIES]
    objects = [f"{source}.o" for source in sources]
    libraries = [f"-L{PREFIX}/lib", "-Wl,--as-needed", *(f"-l{name}" for name in names)]
    run(["g++", "-shared", "-o", str(target), *objects, *libraries])


def install(generated: Path) -> None:
    """Compile what was generated and put libraries, Python package and ament resources into the prefix."""
    sources = {name: sorted(generated.glob(pattern)) for name, pattern in LIBRARIES.items()}
    extensions = {name: generated / f"py/_{PACKAGE}_s.ep.{name}.c" for name in TYPE_SUPPORTS}
    compile_all([*(path for paths in sources.values() for path in paths), *extensions.values()], generated)
    built: list[str] = []
    for name, paths in sources.items():
        link(PREFIX / "lib" / f"lib{PACKAGE}__{name}.so", paths, built)
        built.append(name)

    package = SITE_PACKAGES / PACKAGE
    shutil.copytree(
        generated / "py/msg", package / "msg", ignore=shutil.ignore_patterns("*.c", "*.o"), dirs_exist_ok=True
    )
    (package / "__init__.py").touch()
    for name, source in extensions.items():
        link(package / f"{PACKAGE}_s__{name}.so", [source], built)

    share = PREFIX / "share" / PACKAGE
    for folder, pattern in ((SOURCE, "msg/*.msg"), (generated / "c", "msg/*.json"), (generated / "c/tmp", "msg/*.idl")):
        for path in folder.glob(pattern):
            (share / "msg").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, share / "msg")
    index = PREFIX / "share/ament_index/resource_index"
    interfaces = sorted(f"msg/{path.name}" for path in (share / "msg").iterdir() if path.suffix in (".idl", ".msg"))
    (index / "rosidl_interfaces" / PACKAGE).write_text("\n".join(interfaces) + "\n")
    (index / "packages" / PACKAGE).touch()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vision_msgs-") as folder:
        generated = Path(folder)
        # The generators name every file they read and write; what went wrong comes as an exception.
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
            generate(generated)
        install(generated)


if __name__ == "__main__":
    main()
