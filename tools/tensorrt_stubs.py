"""Hold engines/runtimes/tensorrt_runtime.py against the real TensorRT 10 and 11 bindings, without a GPU.

    python3 tools/tensorrt_stubs.py [--folder build/tensorrt]

Only the bindings are on the package registry. They need three native libraries, of which importing calls nothing but
nine entry points; C stubs of these let stubgen inspect the real module, and mypy then checks our file against it. What
was made for a version is kept in the folder and used again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSIONS = ("10.16.1.11", "11.4.0.106")
ROOT = Path(__file__).resolve().parents[1]
CHECKED = "perception.engines.runtimes.tensorrt_runtime"
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
ENTRY_POINTS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getPluginRegistry",
    "getNvOnnxParserVersion",
    "initLibNvInferPlugins",
)
INVALID = "def add_scale_nd"
"""stubgen writes this method with a parameter without a default behind one with a default."""


def make_stubs(version: str, folder: Path) -> Path:
    """Install the bindings of a version below `folder` and write type stubs of them.

    Returns:
        The folder that holds `tensorrt/__init__.pyi`, for MYPYPATH.

    Raises:
        subprocess.CalledProcessError: pip, the C compiler or stubgen failed; their output was printed.
    """
    stubs = folder / version / "stubs"
    if (stubs / "tensorrt" / "__init__.pyi").is_file():
        return stubs
    site, libraries, raw = (folder / version / name for name in ("site", "lib", "raw"))
    package = f"tensorrt-cu13-bindings=={version}"
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(site), package])
    _compile(libraries, version.split(".")[0])
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(site)}
    stubgen = ["from mypy.stubgen import main; main()", "--quiet", "--inspect-mode", "-o", str(raw)]
    _run([sys.executable, "-c", *stubgen, "-m", "tensorrt_bindings.tensorrt"], environment)
    lines = (raw / "tensorrt_bindings" / "tensorrt.pyi").read_text().splitlines(keepends=True)
    (stubs / "tensorrt").mkdir(parents=True, exist_ok=True)
    text = "".join(line for line in lines if INVALID not in line)
    (stubs / "tensorrt" / "__init__.pyi").write_text(f"# mypy: ignore-errors\n__version__: str\n{text}")
    return stubs


def _compile(folder: Path, major: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "stubs.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in ENTRY_POINTS))
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise SystemExit("no C compiler: install gcc (`apt install gcc`)")
    for library in LIBRARIES:
        soname = f"lib{library}.so.{major}"
        _run([compiler, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(folder / soname), str(source)])


def check(version: str, stubs: Path, folder: Path) -> bool:
    """Whether mypy finds nothing wrong with our file against one version's stubs; what it finds is printed."""
    links = ROOT / "build" / "links"
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(folder / version / "cache"), "-m", CHECKED]
    result = subprocess.run(command, cwd=ROOT, env=os.environ | {"MYPYPATH": f"{stubs}:{links}"}, check=False)
    print(f"TensorRT {version}: {'accepted' if result.returncode == 0 else 'REFUSED'}")
    return result.returncode == 0


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, env=environment, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "tensorrt", help="where to work")
    folder = parser.parse_args().folder.resolve()
    results = [check(version, make_stubs(version, folder), folder) for version in VERSIONS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
