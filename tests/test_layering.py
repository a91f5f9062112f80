"""DESIGN 2 and 9 as tests: who may import whom, and how long a file or a function may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "tasks": set[str](),
    "models": {"tasks"},
    "engines": {"tasks"},
    "evaluation": {"tasks", "engines"},
    "training": {"tasks", "models", "engines", "evaluation"},
    "nodes": {"tasks", "engines", "evaluation"},
    "cli": {"tasks", "models", "engines", "evaluation", "training", "nodes"},
}
# The one file that may import models, since it exports them; what else is in engines imports it when it is needed.
EXPORTER = "engines/export.py"
HEAVY_PARTS = {  # package: where it may be imported
    "torch": ("models/", "training/", "cli/", EXPORTER, "engines/runtimes/torch"),
    "rclpy": ("perception_nodes/",),
    "sensor_msgs": ("perception_nodes/",),
    "launch": ("launch/", "perception_nodes/launch"),
    "launch_ros": ("launch/", "perception_nodes/launch"),
}
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def folder_of(part: str) -> Path:
    return ROOT / ("perception_nodes" if part == "nodes" else part)


def sources() -> list[Path]:
    return sorted(path for part in MAY_IMPORT for path in folder_of(part).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything that these nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide which part is meant"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def at_import_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a module without the bodies of its functions and without what only type checkers see."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from at_import_time(child)


def test_there_is_something_to_check() -> None:
    assert {path.parts[len(ROOT.parts)] for path in sources()} == {folder_of(part).name for part in MAY_IMPORT}


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_imports_follow_the_layers(path: Path) -> None:
    part = next(part for part in MAY_IMPORT if folder_of(part) in path.parents)
    allowed = MAY_IMPORT[part] | {part} | ({"models"} if name_of(path) == EXPORTER else set())
    wrong = []
    for line, name in imports(ast.walk(ast.parse(path.read_text()))):
        top, *below = name.split(".")
        ours = top in {*MAY_IMPORT, "perception_nodes"}
        if ours or (top == "perception" and below[0] not in allowed):
            wrong.append(
                f"{name_of(path)}:{line} imports {name}; {part} may import {sorted(allowed)} as perception.<part>"
            )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_heavy_packages_stay_in_their_places(path: Path) -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {name}"
        for line, name in imports(ast.walk(ast.parse(path.read_text())))
        if name.split(".")[0] in HEAVY_PARTS and not name_of(path).startswith(HEAVY_PARTS[name.split(".")[0]])
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sorted(folder_of("cli").glob("*.py")), ids=name_of)
def test_a_subcommand_imports_what_is_heavy_when_it_runs(path: Path) -> None:
    heavy = ("perception.engines", "perception.models", "perception.nodes", "perception.training", "torch", "rclpy")
    wrong = [
        f"{name_of(path)}:{line} imports {name} when it is imported"
        for line, name in imports(at_import_time(ast.parse(path.read_text())))
        if name.startswith(heavy)
    ]
    assert not wrong, "\n".join(wrong)


NODES = [
    f"nodes.{name}_node" for name in ("depth", "detection", "enhancement", "segmentation", "vit_fusion", "vit_worker")
]


@pytest.mark.parametrize("module", ["engines", "evaluation", *NODES])
def test_a_robot_loads_neither_torch_nor_models(module: str) -> None:
    if module.startswith("nodes"):
        pytest.importorskip("rclpy", reason="no ROS 2: neither sourced nor installed by tools/set_up.py")
    code = f"import sys, perception.{module}; print(sorted({{'torch', 'perception.models'}} & set(sys.modules)))"
    # From the root folder: the working folder comes first on the path, and its `models` must not be what is found.
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("path", [*sources(), *ROOT.glob("launch/*.py"), *ROOT.glob("tools/*.py")], ids=name_of)
def test_a_file_and_a_function_can_be_read_in_one_sitting(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE, f"split {name_of(path)}"
    long = [
        f"{name_of(path)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]
    assert not long, "\n".join(long)
