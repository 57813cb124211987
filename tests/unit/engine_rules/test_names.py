"""Texts are found in whole arrays as a dict finds them one by one."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spendbrake.streams.engine.rules.names import UNKNOWN, Names

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=60)


@given(st.lists(TEXTS, max_size=8))
def test_arrays_and_lists_find_what_a_dict_finds(batches: list[list[str]]) -> None:
    names, known = Names(), dict[str, int]()
    for texts in batches:
        expected = [known.get(text, UNKNOWN) for text in texts]
        for _ in range(3):  # the table is made anew once it has missed often
            assert names.find(pa.array(texts, pa.string())).tolist() == expected
            assert names.find(texts).tolist() == expected
        for text in texts:
            if text not in known:
                names[text] = known[text] = 7 * len(known)


@pytest.mark.parametrize("n", [1, 5_000])
def test_texts_that_share_a_cell_are_told_apart(n: int) -> None:
    names, texts = Names(), [f"key-{i}" for i in range(n)]
    for number, text in enumerate(texts):
        names[text] = number
    asked = pa.array([*texts, "key--1"])
    for _ in range(3):
        assert names.find(asked).tolist() == [*range(n), UNKNOWN]
