"""A test's findings: as numbers, as tables for other programs, and in a few lines for people."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vidstill.data.manifest.manifest import Listing
from vidstill.tasks.metrics.accuracy import (
    Accuracy,
    accuracy,
    average_precisions,
    calibration_error,
    mean_average_precision,
    negative_log_likelihood,
    predicted,
    ranks,
)
from vidstill.utils.terminal import aligned
from vidstill.utils.text import one_line

_WORST = 3  # classes that are told of


@dataclass(frozen=True)
class Findings:
    """What a model made of a list of videos.

    Args:
        classes: the model's, in the order of the scores; a list of numbers may know fewer.
        places: of the scored videos, in the list.
        scores: the probabilities of their classes; where a video may show several, of each class by itself.
        broken: why the other videos could not be scored, by their place in the list.
    """

    listing: Listing
    classes: tuple[str, ...]
    places: tuple[int, ...]
    scores: Float[Tensor, "videos classes"]
    broken: Mapping[int, str]


class Tested(Findings):
    """Where each video shows one class."""

    @cached_property
    def labels(self) -> Int[Tensor, "videos"]:
        return torch.from_numpy(self.listing.rows.labels[list(self.places)]).long()

    @cached_property
    def accuracy(self) -> Accuracy:
        return accuracy(self.scores, self.labels)

    @property
    def score(self) -> dict[str, float]:
        """What it comes to, in percent."""
        return {"top1": self.accuracy.top1, "top5": self.accuracy.top5}

    @cached_property
    def confusion(self) -> Int[Tensor, "classes classes"]:
        """How many videos of each class (rows) were taken for which (columns)."""
        classes = len(self.classes)
        pairs = self.labels * classes + predicted(self.scores)
        return torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def plain(self) -> dict[str, Any]:
        """Every number but the single scores, as JSON has it; shares in percent.

        A class's `predicted` is its row of the confusion matrix: what its videos were taken for, how often.
        """
        videos, hits = self.confusion.sum(dim=1), self.confusion.diagonal()
        there = videos > 0
        return {
            **asdict(self.accuracy),
            "mean_class_accuracy": 100 * (hits[there].double() / videos[there]).mean().item(),
            "calibration_error": calibration_error(self.scores, self.labels),
            "negative_log_likelihood": negative_log_likelihood(self.scores, self.labels),
            "missing": self.listing.missing,  # that an official list names and that are not there
            "broken": [self.broken[place] for place in sorted(self.broken)],
            "classes": [self._class(number) for number in range(len(self.classes))],
        }

    def _class(self, number: int) -> dict[str, Any]:
        row = self.confusion[number].tolist()
        order = sorted((other for other, count in enumerate(row) if count), key=lambda other: (-row[other], other))
        return {
            "name": self.classes[number],
            "videos": sum(row),
            "hits": row[number],
            "accuracy": 100 * row[number] / sum(row) if sum(row) else None,
            "predicted": {self.classes[other]: row[other] for other in order},
        }

    def scores_csv(self) -> Iterator[bytes]:
        """A line for each video of the list, in its order; of one that was not scored, why, and no scores."""
        rows, labels = self.listing.rows, self.listing.rows.labels
        rank, guess = ranks(self.scores, self.labels).tolist(), predicted(self.scores).tolist()
        scored = {place: index for index, place in enumerate(self.places)}

        def cells(place: int) -> Sequence[object]:
            label = int(labels[place])
            stated = [rows.name(place), label, self.classes[label]]
            if place not in scored:
                return [*stated, *[""] * 4, self.broken[place], *[""] * len(self.classes)]
            index = scored[place]
            scores = [f"{score:.6g}" for score in self.scores[index].tolist()]
            best = guess[index]
            return [*stated, self.classes[best], int(best == label), scores[best], rank[index], "", *scores]

        head = ["video", "label", "class", "prediction", "hit", "probability", "rank", "problem"]
        each = (f"p({name})" for name in self.classes)  # so that no class is called as a column
        yield from csv_lines([[*head, *each]])
        yield from csv_lines(cells(place) for place in range(len(rows)))

    def classes_csv(self) -> Iterator[bytes]:
        """Each class with its most frequent mistake, and how often that was made."""
        named = ("name", "videos", "hits", "accuracy")
        found = [self._class(number) for number in range(len(self.classes))]
        rows = ([*(each[word] for word in named), *(_mistake(each) or ("", 0))] for each in found)
        return csv_lines([["class", *named[1:], "mistake", "times"], *rows])

    def confusion_csv(self) -> Iterator[bytes]:
        """The confusion matrix: a line for each class, a column for each that its videos were taken for."""
        rows = ([name, *row] for name, row in zip(self.classes, self.confusion.tolist(), strict=True))
        return csv_lines([["class", *self.classes], *rows])


def in_words(found: Mapping[str, Any]) -> str:
    """A test's numbers, as `Tested.plain` gives them, in a few lines; those that an older test lacks are left out."""
    named = (
        *("top1", "top5", "mean_class_accuracy", "calibration_error"),
        *("mean_average_precision", "best_class_is_there"),
    )
    lines: dict[str, Any] = {name.replace("_", " "): f"{round(found[name], 2)} %" for name in named if name in found}
    if "videos" in found:
        lines["videos"] = f"{found['videos']} scored, {len(found['broken'])} broken, {found['missing']} missing"
    if "taken" in found:
        lines["weights of epoch"] = "{epoch}, chosen by {by} {score:.2f} on {source}".format(**found["taken"])
    classes = [each for each in found.get("classes", ()) if each["videos"] and "accuracy" in each]
    if len(classes) > 2:
        worst = sorted(classes, key=lambda each: each["accuracy"])[:_WORST]  # of equal ones, the first
        lines["worst classes"] = "; ".join(map(_in_words, worst))
    return aligned(lines)


def _in_words(found: Mapping[str, Any]) -> str:
    mistake = _mistake(found)
    taken = f", taken for {one_line(mistake[0])}" if mistake else ""
    return f"{one_line(found['name'])} {found['accuracy']:.1f} of {found['videos']}{taken}"


def _mistake(found: Mapping[str, Any]) -> tuple[str, int] | None:
    """The class that most of a class's other videos were taken for, and how many; of equal ones the first."""
    return next(((name, count) for name, count in found["predicted"].items() if name != found["name"]), None)


def csv_lines(rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """Lines of a table in UTF-8; the bytes of a file's name that are no letters stand there as `\\udcff`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(row)
        yield text.getvalue().encode("utf-8", "backslashreplace")
        text.seek(0)
        text.truncate()


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
