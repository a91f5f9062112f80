"""Classes chosen by their names."""

from __future__ import annotations

import numpy as np
import pytest

from perception.tasks.labels import COCO_LABELS, chosen, coco_slots


def names(text: str, labels: tuple[str, ...]) -> list[str]:
    mask = chosen(text, labels)
    assert mask is not None and mask.shape == (len(labels),) and mask.dtype == bool
    return [labels[place] for place in np.flatnonzero(mask)]


@pytest.mark.parametrize("labels", [COCO_LABELS, coco_slots()], ids=["80", "90 with gaps"])
def test_names_are_separated_by_commas_because_they_have_spaces(labels: tuple[str, ...]) -> None:
    assert names("traffic light", labels) == ["traffic light"]
    assert names(" dog,traffic light , person,", labels) == ["person", "traffic light", "dog"]


@pytest.mark.parametrize("text", ["", "  ", " , "])
def test_no_name_means_all(text: str) -> None:
    assert chosen(text, COCO_LABELS) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("person, trafic light", "class 'trafic light' is unknown here; like it are 'traffic light'"),
        ("Person", "class 'Person' is unknown here; like it are 'person'"),
        ("person dog", "class 'person dog' is unknown here; like it are 'person', 'dog', 'hot dog' "),
        ("robot arm", "class 'robot arm' is unknown here; accepted are, separated by commas: person, bicycle"),
    ],
)
def test_an_unknown_name_is_refused_with_those_like_it(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        chosen(text, coco_slots())
    assert str(error.value).startswith(said) and "commas" in str(error.value)


def test_what_is_chosen_cannot_be_changed() -> None:
    mask = chosen("cat", COCO_LABELS)
    assert mask is not None and not mask.flags.writeable
