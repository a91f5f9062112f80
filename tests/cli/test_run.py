"""`perception run`: its arguments, and the build before the nodes."""

from __future__ import annotations

import pytest

from perception.cli import main as cli
from perception.cli import run
from perception.nodes.pipeline import load_pipeline


def test_arguments_are_shown_with_default_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "depth_pipeline", "--show-args"]) == 0
    shown = capsys.readouterr().out
    for argument in load_pipeline("depth_pipeline").arguments.values():
        assert f"  {argument.name}\n      {argument.description} (default {argument.default_text!r}" in shown
    assert "one of raw, compressed" in shown


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("threads=2", "argument 'threads=2' is not understood; write name:=value"),
        ("threads:=few", "argument threads:=few must be an integer, such as 0"),
        (
            "respawn:=true",
            "respawn:=true needs a process for each node: use ros2 launch, or Restart= of systemd",
        ),
    ],
)
def test_wrong_arguments_end_with_one_sentence(capsys: pytest.CaptureFixture[str], argument: str, said: str) -> None:
    assert cli.main(["run", "depth_pipeline", argument]) == 1
    assert capsys.readouterr().err == f"perception: {said}\n"


def test_no_node_starts_after_a_build_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr(run.subprocess, "call", lambda command: commands.append(command) or 3)
    assert cli.main(["run", "depth_pipeline", "build:=true", "model:=tiny", "precision:=int8"]) == 3
    (command,) = commands
    assert command[-6:] == ["--if-needed", "tiny", "--target", "auto", "--precision", "int8"]
