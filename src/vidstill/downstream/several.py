"""A test's findings where a video may show several classes, each scored by itself; the names as in `tested`."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from vidstill.downstream.accuracy import average_precisions, mean_average_precision, predicted
from vidstill.downstream.tested import Findings, csv_lines


class SeveralTested(Findings):
    """Where a video may show several classes."""

    @cached_property
    def targets(self) -> Bool[Tensor, "videos classes"]:
        return torch.stack([self._hot(place) for place in self.places])

    def _hot(self, place: int) -> Bool[Tensor, "classes"]:
        return torch.from_numpy(self.listing.rows.hot(place, len(self.classes))).bool()

    @cached_property
    def score(self) -> dict[str, float]:
        """In percent: the mean over the classes of the average precision; the videos whose best class is theirs."""
        hits = self.targets.gather(1, predicted(self.scores)[:, None]).double().mean()
        return {
            "mean_average_precision": mean_average_precision(self.scores, self.targets),
            "best_class_is_there": 100 * hits.item(),
        }

    def plain(self) -> dict[str, Any]:
        """Every number but the single scores, as JSON has it; shares in percent."""
        return {
            **self.score,
            "videos": len(self.places),
            "missing": self.listing.missing,  # that an official list names and that are not there
            "broken": [self.broken[place] for place in sorted(self.broken)],
            "classes": self._classes(),
        }

    def _classes(self) -> list[dict[str, Any]]:
        videos = self.targets.sum(dim=0).tolist()
        precisions = (100 * average_precisions(self.scores, self.targets)).tolist()
        return [
            {"name": name, "videos": count, "average_precision": precision if count else None}
            for name, count, precision in zip(self.classes, videos, precisions, strict=True)
        ]

    def scores_csv(self) -> Iterator[bytes]:
        """A line for each video of the list, in its order; of one that was not scored, why, and no scores."""
        scored = {place: index for index, place in enumerate(self.places)}

        def cells(place: int) -> Sequence[object]:
            hot = self._hot(place)
            stated = [self.listing.rows.name(place), ";".join(self.classes[label] for label in hot.nonzero()[:, 0])]
            if place not in scored:
                return [*stated, *[""] * 3, self.broken[place], *[""] * len(self.classes)]
            own = self.scores[scored[place]]
            best = int(own.argmax())
            texts = [f"{score:.6g}" for score in own.tolist()]
            return [*stated, self.classes[best], int(hot[best]), texts[best], "", *texts]

        head = ["video", "classes", "prediction", "hit", "probability", "problem"]
        yield from csv_lines([[*head, *(f"p({name})" for name in self.classes)]])
        yield from csv_lines(cells(place) for place in range(len(self.listing.rows)))

    def classes_csv(self) -> Iterator[bytes]:
        """Each class with its average precision."""
        rows = ([each["name"], each["videos"], each["average_precision"]] for each in self._classes())
        return csv_lines([["class", "videos", "average_precision"], *rows])
