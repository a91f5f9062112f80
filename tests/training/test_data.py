"""Which images are held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed; training needs it")

from perception.training.data import NEIGHBOURS, hold_out


@given(st.integers(50, 500), st.integers(2, 12))
def test_neighbours_are_held_out_together(count: int, parts: int) -> None:
    kept, held = hold_out(count, parts)
    assert sorted(kept + held) == list(range(count)) and not set(kept) & set(held)
    runs = np.split(np.array(held), np.flatnonzero(np.diff(held) > 1) + 1) if held else []
    assert all(len(run) == NEIGHBOURS or run[-1] == count - 1 for run in runs)
    assert len(held) <= count / parts + NEIGHBOURS


def test_too_few_frames_to_hold_some_out_are_refused() -> None:
    assert hold_out(17, 4) == (list(range(16)), [16])
    for count, parts in ((16, 4), (0, 2), (8, 2)):
        with pytest.raises(ValueError, match=f"of {count} frames none are held out.* or more, or lower hold_out"):
            hold_out(count, parts)
