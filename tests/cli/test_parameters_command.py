"""The README's tables are the code's."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed; the nodes' parameters need it")

from perception.cli.main import main
from perception.cli.parameters import BEGIN, END, tables, updated

README = Path(__file__).parents[2] / "README.md"


def test_readme_is_up_to_date() -> None:
    text = README.read_text()
    assert updated(text, tables()) == text, "run: perception parameters --write README.md"


def test_every_node_with_a_main_has_a_table() -> None:
    nodes = Path(__file__).parents[2] / "perception_nodes"
    assert sorted(tables()) == sorted(p.stem for p in nodes.glob("*_node.py") if "def main(" in p.read_text())


def test_only_what_stands_between_the_markers_changes() -> None:
    text = f"before\n{BEGIN.format('a_node')}\nold\n{END}\nafter\n"
    assert updated(text, {"a_node": "new | table"}) == text.replace("old", "new | table")
    with pytest.raises(ValueError, match="no place for b_node"):
        updated(text, {"b_node": "x"})


def test_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parameters"]) == 0
    printed = capsys.readouterr().out
    assert "### depth_node" in printed and "| `max_depth` | double | `10.0` |" in printed
