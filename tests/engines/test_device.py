"""The processor's name and features."""

from __future__ import annotations

from pathlib import Path

from perception.engines.device import cpu


def test_x86_features_are_those_that_kernels_are_chosen_by(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("model name\t: AMD EPYC\nflags\t\t: fpu avx2 fma sse4_2 md_clear avx512_vnni\n")
    found = cpu(tmp_path / "cpuinfo", tmp_path / "none")
    assert found.name == "AMD EPYC"
    assert found.capability.split()[1:] == ["sse4_2", "avx2", "fma", "avx512_vnni"]


def test_arm_takes_its_name_from_the_device_tree(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp crc32\n")
    (tmp_path / "model").write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    found = cpu(tmp_path / "cpuinfo", tmp_path / "model")
    assert found.name == "Raspberry Pi 5 Model B Rev 1.0"
    assert found.capability.split()[1:] == ["asimd", "asimdhp", "asimddp"]
