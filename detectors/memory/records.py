"""The greatest amount a team has come to before: what a running amount of money is held against."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from spendbrake.detectors.memory.stored import State

BLOCK_S = 21_600.0
ADMIT_BLOCKS = 4
"""Blocks that pass before an amount counts as usual: a trouble of today is not its own excuse."""
FADE = 0.5 ** (1.0 / (ADMIT_BLOCKS * 21))
"""What is left of a record after a block: half of it after three weeks."""
TOLD_S = 2 * 86_400.0
"""For so long an amount that was told must be passed, too."""
MAX_SUBJECTS = 96


class Record:
    """Greatest amount so far of one subject, in blocks of six hours, admitted after a day."""

    __slots__ = ("blocks", "old", "told", "told_at")

    def __init__(self) -> None:
        self.blocks: list[list[float]] = []
        self.old = self.told = self.told_at = 0.0

    def reference(self, now: float) -> float:
        """Return what an amount must be more than to be news: of its first day, the blocks that are over."""
        usual = self.old or max((peak for _, peak in self.blocks[:-1]), default=0.0)
        return max(usual, self.told) if now - self.told_at < TOLD_S else usual

    def admit(self, amount: float, now: float) -> None:
        """Take an amount for usual, from a day on."""
        block, blocks = now // BLOCK_S, self.blocks
        if blocks and (last := blocks[-1])[0] >= block:
            if amount > last[1]:
                last[1] = amount
            return
        blocks.append([block, amount])
        while blocks[0][0] < block - ADMIT_BLOCKS:
            self.old = max(self.old * FADE, blocks.pop(0)[1])


class Records:
    """Records of the subjects of one detector; the longest silent makes room."""

    def __init__(self) -> None:
        self._of: dict[str, Record] = {}

    def of(self, subject: str) -> Record:
        """Return the record of a subject."""
        record = self._of.get(subject)
        if record is None:
            record = self._of[subject] = Record()
            if len(self._of) > MAX_SUBJECTS:
                del self._of[next(iter(self._of))]
        else:
            self._of[subject] = self._of.pop(subject)
        return record

    def to_state(self) -> State:
        """Return the records in the order of their use: names, how many blocks each has, and all figures in a row."""
        kept = self._of.values()
        if not kept:
            return {}
        figures = [v for r in kept for v in (r.old, r.told, r.told_at, *(v for pair in r.blocks for v in pair))]
        return {
            "names": list(self._of),
            "blocks": [len(r.blocks) for r in kept],
            "figures": np.array(figures, np.float64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Records":
        """Return the records that `state` describes."""
        records = cls()
        if not state:
            return records
        figures = iter(state["figures"].tolist())
        for name, n in zip(state["names"], state["blocks"], strict=True):
            record = records._of[name] = Record()
            record.old, record.told, record.told_at = next(figures), next(figures), next(figures)
            record.blocks = [[next(figures), next(figures)] for _ in range(n)]
        return records
