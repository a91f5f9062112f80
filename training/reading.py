"""Recipe files: read into the recipe class of their model's task, or refused with file and field."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from perception.training.lesson import find_lesson
from perception.training.recipe import Recipe

RECIPES = Path(__file__).parent / "recipes"
Part = TypeVar("Part")


def load_recipe(name: str) -> Recipe:
    """The recipe in a YAML file, or the shipped one called `name`.

    Raises:
        ValueError: no such recipe, or one that is not right; the message names file and field.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise ValueError(f"no recipe {name!r}; give a YAML file or one of: {shipped}")
    fields = yaml.safe_load(path.read_text())
    kind: type[Recipe] = Recipe
    if isinstance(fields, dict) and "model" in fields:
        try:
            kind = find_lesson(str(fields["model"])).recipe_class
        except ValueError as error:
            raise ValueError(f"{path}, model: {error}") from error
    return read_fields(kind, fields, str(path))


def read_fields(kind: type[Part], fields: Any, where: str) -> Part:
    """A dataclass from what YAML holds.

    Raises:
        ValueError: no mapping, an unknown or missing field, or one of another type; the message says where.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"{where} must be a mapping of names to values, not {fields!r}")
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"{where} has unknown fields: {', '.join(unknown)}; known: {', '.join(known)}")
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        place = f"{where}, {name}"
        part = _part(hints[name])
        if part and get_origin(hints[name]) is tuple:
            values[name] = tuple(read_fields(part, item, place) for item in value)
        elif part:
            values[name] = read_fields(part, value, place)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
            _check_number(values[name], hints[name], place)
    if missing := [
        name for name, field in known.items() if field.default is dataclasses.MISSING and name not in fields
    ]:
        raise ValueError(f"{where} lacks: {', '.join(missing)}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _part(hint: Any) -> Any:
    """The dataclass that a field is, may be, or holds several of; None for a plain value."""
    return next((kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)), None)


def _check_number(value: Any, kind: Any, place: str) -> None:
    """YAML reads 1e-3 as text; the field's annotation tells that a number is meant."""
    kinds = get_args(kind) if type(None) in get_args(kind) else (kind,)
    if value is None and type(None) in kinds:
        return
    if {int, float} & set(kinds) and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ValueError(f"{place} is {value!r}, and must be a number (YAML wants 1.0e-3, not 1e-3)")
