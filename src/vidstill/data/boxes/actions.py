"""The actions of a data set of boxes: their numbers, names, and which of them a score counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Actions:
    """What a person in a box may do.

    Args:
        names: by number, ascending; AVA's numbers are 1 to 80.
        evaluated: the numbers that a score counts; AVA's are 60 of them.
    """

    names: Mapping[int, str]
    evaluated: frozenset[int]

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """By place: the order of a model's scores."""
        return tuple(self.names)

    @cached_property
    def places(self) -> Mapping[int, int]:
        """By number."""
        return {number: place for place, number in enumerate(self.names)}
