"""What a compiled engine depends on of the processor it runs on."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

X86_FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
)
ARM_FEATURES = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2")


@dataclass(frozen=True)
class Device:
    """A processor: its name and what its kernels may use (CPU features, or CUDA's compute capability)."""

    name: str
    capability: str


def cpu(cpuinfo: Path = Path("/proc/cpuinfo"), board: Path = Path("/proc/device-tree/model")) -> Device:
    """This machine's CPU. Only features that inference kernels are chosen by, so that a new kernel changes nothing."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    # x86 names the processor; ARM does not, but device trees name the board ("Raspberry Pi 5 Model B Rev 1.0").
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = model[1].strip() if model else board.read_text().strip("\0\n") if board.is_file() else platform.machine()
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    features = [feature for feature in X86_FEATURES + ARM_FEATURES if feature in present]
    return Device(name, " ".join([platform.machine(), *features]))
