"""The engine of the nodes above the home level: absolute totals of children in, judgement and own totals out."""
