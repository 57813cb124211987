"""Numbers of texts, found for a whole batch at once. What a number stands for it does not know.

A dict of 40,000 texts costs 0.8 us a look: five lines of memory that are not in any cache, one after the other. Here
those of a whole batch are asked for together, at a third of it.
"""

from itertools import repeat
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from spendbrake.streams.engine.intake.columns import Part
from spendbrake.streams.engine.intake.texts import hashes

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
Texts: TypeAlias = list[str] | pa.StringArray

UNKNOWN = -1
SPARSE = 8
"""Cells of a table for each text: one in sixteen finds its cell taken."""
TABLES = 2


def owner_texts(part: Part) -> Texts:
    """Return the owner text of each event."""
    if isinstance(part.owners, list):
        return list(map(part.owners.__getitem__, part.owner.tolist()))
    return part.owners.take(pa.array(part.owner))


class Names:
    """Texts and their numbers.

    Tables by hash propose a text that is known, and the two texts are compared: hashes that clash cost time, nothing
    else. The first table has what fits into it, the second the most of what found its cell taken there. The dict has
    them all; it is asked for what the tables do not find.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._missed = 0
        self._renew()

    def __setitem__(self, text: str, number: int) -> None:
        self._numbers[text] = number

    def get(self, text: str) -> int | None:
        """Return the number of one text."""
        return self._numbers.get(text)

    def find(self, texts: Texts) -> I64:
        """Return the number of each text, `UNKNOWN` of those that have none."""
        if isinstance(texts, list):
            return np.fromiter(map(self._numbers.get, texts, repeat(UNKNOWN)), np.int64, len(texts))
        hashed = hashes(texts)
        found = self._proposed(0, hashed, texts)
        missed = np.flatnonzero(found == UNKNOWN)
        if len(missed):
            texts = texts.take(pa.array(missed))
            found[missed] = again = self._proposed(1, hashed[missed], texts)
            self._ask(found, missed, np.flatnonzero(again == UNKNOWN), texts)
        return found

    def _proposed(self, table: int, hashed: U64, texts: pa.StringArray) -> I64:
        """Return the number of each text that one of the tables finds."""
        place = self._tables[table][_cells(self._tables[table], table, hashed)]
        same = pc.equal(self._texts.take(pa.array(place)), texts).to_numpy(zero_copy_only=False)
        return np.where(same, self._of_place[place], UNKNOWN)

    def _ask(self, found: I64, missed: I64, rest: I64, texts: pa.StringArray) -> None:
        """Ask the dict for the `rest` of the texts that the first table has `missed`."""
        if not len(rest):
            return
        asked = texts.take(pa.array(rest)).to_pylist()
        found[missed[rest]] = [self._numbers.get(text, UNKNOWN) for text in asked]
        self._missed += len(rest)
        if self._missed > len(self._numbers) >= len(self._texts):
            self._renew()

    def _renew(self) -> None:
        """Put all texts into the tables: some are new, and have been asked for as often as this costs."""
        self._missed = 0
        self._texts = pa.array(["", *self._numbers], pa.string())  # the place of no text is the first
        self._of_place = np.array([UNKNOWN, *self._numbers.values()], np.int64)
        hashed, left = hashes(self._texts), np.arange(1, len(self._texts))
        self._tables = []
        for number in range(TABLES):
            table = np.zeros(1 << (SPARSE * (len(left) + 1)).bit_length(), np.int32)
            cells = _cells(table, number, hashed[left])
            table[cells] = left
            left = left[table[cells] != left]
            self._tables.append(table)


def _cells(table: NDArray[np.int32], number: int, hashed: U64) -> I64:
    """Return the cell of each hash, by bits of its own for each table."""
    return ((hashed >> np.uint64(32 * number)) & np.uint64(len(table) - 1)).view(np.int64)
