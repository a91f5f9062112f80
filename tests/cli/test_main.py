"""The command's frame: discovery of subcommands, errors as one sentence, exit status."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from perception.cli import main as module


def _parser_that_runs(run) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--debug", action="store_true")
    parser.set_defaults(run=run)
    return parser


def test_error_is_one_sentence_and_status_1(monkeypatch, capsys) -> None:
    def fail(args) -> int:
        raise ValueError("size 3x3 is not possible")

    monkeypatch.setattr(module, "build_parser", lambda: _parser_that_runs(fail))
    assert module.main([]) == 1
    assert capsys.readouterr().err == "perception: size 3x3 is not possible\n"
    with pytest.raises(ValueError, match="3x3"):
        module.main(["--debug"])


def test_status_of_the_subcommand_is_returned(monkeypatch) -> None:
    monkeypatch.setattr(module, "build_parser", lambda: _parser_that_runs(lambda args: 3))
    assert module.main([]) == 3


def test_without_a_command_the_usage_is_shown(capsys) -> None:
    with pytest.raises(SystemExit) as exit:
        module.main([])
    assert exit.value.code == 2
    assert "usage: perception" in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    heavy = ["torch", "rclpy", "onnx", "onnxruntime", "openvino", "cv2"]
    code = (
        "import sys\nfrom perception.cli.main import build_parser\nbuild_parser()\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_full_disk_is_said_with_what_to_do(monkeypatch, capsys) -> None:
    """What Python says while a file is being written names no file."""

    def fail(args) -> int:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")
        return 0

    monkeypatch.setattr(module, "build_parser", lambda: _parser_that_runs(fail))
    assert module.main([]) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said and "free some space, or write elsewhere" in said
