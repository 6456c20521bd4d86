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

from vidstill.data.manifest.manifest import Manifest
from vidstill.tasks.metrics.accuracy import (
    Accuracy,
    compute_accuracy,
    compute_average_precisions,
    compute_calibration_error,
    compute_label_ranks,
    compute_mean_average_precision,
    compute_negative_log_likelihood,
    predict_classes,
)
from vidstill.utils.terminal import format_key_values
from vidstill.utils.text import format_one_line

_NUM_WORST_CLASSES = 3  # classes that are told of


@dataclass(frozen=True)
class ClassificationResult:
    """What a model made of a list of videos.

    Args:
        classes: the model's, in the order of the scores; a list of numbers may know fewer.
        indices: of the scored videos, in the list.
        scores: the probabilities of their classes; where a video may show several, of each class by itself.
        broken_videos: why the other videos could not be scored, by their place in the list.
    """

    manifest: Manifest
    classes: tuple[str, ...]
    indices: tuple[int, ...]
    scores: Float[Tensor, "videos classes"]
    broken_videos: Mapping[int, str]


class SingleLabelResult(ClassificationResult):
    """Where each video shows one class."""

    @cached_property
    def labels(self) -> Int[Tensor, "videos"]:
        return torch.from_numpy(self.manifest.rows.labels[list(self.indices)]).long()

    @cached_property
    def accuracy(self) -> Accuracy:
        return compute_accuracy(self.scores, self.labels)

    @property
    def metrics(self) -> dict[str, float]:
        """What it comes to, in percent."""
        return {"top1": self.accuracy.top1, "top5": self.accuracy.top5}

    @cached_property
    def confusion_matrix(self) -> Int[Tensor, "classes classes"]:
        """How many videos of each class (rows) were taken for which (columns)."""
        classes = len(self.classes)
        pairs = self.labels * classes + predict_classes(self.scores)
        return torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    def to_dict(self) -> dict[str, Any]:
        """Every number but the single scores, as JSON has it; shares in percent.

        A class's `predict_classes` is its row of the confusion matrix: what its videos were taken for, how often.
        """
        videos, hits = self.confusion_matrix.sum(dim=1), self.confusion_matrix.diagonal()
        there = videos > 0
        return {
            **asdict(self.accuracy),
            "mean_class_accuracy": 100 * (hits[there].double() / videos[there]).mean().item(),
            "calibration_error": compute_calibration_error(self.scores, self.labels),
            "negative_log_likelihood": compute_negative_log_likelihood(self.scores, self.labels),
            "missing": self.manifest.num_missing,  # that an official list names and that are not there
            "broken": [self.broken_videos[place] for place in sorted(self.broken_videos)],
            "classes": [self._class_to_dict(number) for number in range(len(self.classes))],
        }

    def _class_to_dict(self, number: int) -> dict[str, Any]:
        row = self.confusion_matrix[number].tolist()
        order = sorted((other for other, count in enumerate(row) if count), key=lambda other: (-row[other], other))
        return {
            "name": self.classes[number],
            "videos": sum(row),
            "hits": row[number],
            "accuracy": 100 * row[number] / sum(row) if sum(row) else None,
            "predicted": {self.classes[other]: row[other] for other in order},
        }

    def format_scores_csv(self) -> Iterator[bytes]:
        """A line for each video of the list, in its order; of one that was not scored, why, and no scores."""
        rows, labels = self.manifest.rows, self.manifest.rows.labels
        rank, guess = compute_label_ranks(self.scores, self.labels).tolist(), predict_classes(self.scores).tolist()
        scored = {place: index for index, place in enumerate(self.indices)}

        def cells(place: int) -> Sequence[object]:
            label = int(labels[place])
            stated = [rows.get_name(place), label, self.classes[label]]
            if place not in scored:
                return [*stated, *[""] * 4, self.broken_videos[place], *[""] * len(self.classes)]
            index = scored[place]
            scores = [f"{score:.6g}" for score in self.scores[index].tolist()]
            best = guess[index]
            return [*stated, self.classes[best], int(best == label), scores[best], rank[index], "", *scores]

        head = ["video", "label", "class", "prediction", "hit", "probability", "rank", "problem"]
        each = (f"p({name})" for name in self.classes)  # so that no class is called as a column
        yield from format_csv([[*head, *each]])
        yield from format_csv(cells(place) for place in range(len(rows)))

    def format_classes_csv(self) -> Iterator[bytes]:
        """Each class with its most frequent mistake, and how often that was made."""
        named = ("name", "videos", "hits", "accuracy")
        found = [self._class_to_dict(number) for number in range(len(self.classes))]
        rows = ([*(each[word] for word in named), *(_find_top_mistake(each) or ("", 0))] for each in found)
        return format_csv([["class", *named[1:], "mistake", "times"], *rows])

    def format_confusion_csv(self) -> Iterator[bytes]:
        """The confusion matrix: a line for each class, a column for each that its videos were taken for."""
        rows = ([name, *row] for name, row in zip(self.classes, self.confusion_matrix.tolist(), strict=True))
        return format_csv([["class", *self.classes], *rows])


def format_classification_result(metrics: Mapping[str, Any]) -> str:
    """A test's numbers, as `Tested.plain` gives them, in a few lines; those that an older test lacks are left out."""
    named = (
        *("top1", "top5", "mean_class_accuracy", "calibration_error"),
        *("mean_average_precision", "best_class_is_there"),
    )
    lines: dict[str, Any] = {
        name.replace("_", " "): f"{round(metrics[name], 2)} %" for name in named if name in metrics
    }
    if "videos" in metrics:
        lines["videos"] = f"{metrics['videos']} scored, {len(metrics['broken'])} broken, {metrics['missing']} missing"
    if "taken" in metrics:
        lines["weights of epoch"] = "{epoch}, chosen by {by} {score:.2f} on {source}".format(**metrics["taken"])
    classes = [each for each in metrics.get("classes", ()) if each["videos"] and "accuracy" in each]
    if len(classes) > 2:
        worst = sorted(classes, key=lambda each: each["accuracy"])[:_NUM_WORST_CLASSES]  # of equal ones, the first
        lines["worst classes"] = "; ".join(map(_format_class, worst))
    return format_key_values(lines)


def _format_class(found: Mapping[str, Any]) -> str:
    mistake = _find_top_mistake(found)
    taken = f", taken for {format_one_line(mistake[0])}" if mistake else ""
    return f"{format_one_line(found['name'])} {found['accuracy']:.1f} of {found['videos']}{taken}"


def _find_top_mistake(found: Mapping[str, Any]) -> tuple[str, int] | None:
    """The class that most of a class's other videos were taken for, and how many; of equal ones the first."""
    return next(((name, count) for name, count in found["predicted"].items() if name != found["name"]), None)


def format_csv(rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """Lines of a table in UTF-8; the bytes of a file's name that are no letters stand there as `\\udcff`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(row)
        yield text.getvalue().encode("utf-8", "backslashreplace")
        text.seek(0)
        text.truncate()


class MultiLabelResult(ClassificationResult):
    """Where a video may show several classes."""

    @cached_property
    def targets(self) -> Bool[Tensor, "videos classes"]:
        return torch.stack([self._get_multi_hot(place) for place in self.indices])

    def _get_multi_hot(self, place: int) -> Bool[Tensor, "classes"]:
        return torch.from_numpy(self.manifest.rows.multi_hot(place, len(self.classes))).bool()

    @cached_property
    def metrics(self) -> dict[str, float]:
        """In percent: the mean over the classes of the average precision; the videos whose best class is theirs."""
        hits = self.targets.gather(1, predict_classes(self.scores)[:, None]).double().mean()
        return {
            "mean_average_precision": compute_mean_average_precision(self.scores, self.targets),
            "best_class_is_there": 100 * hits.item(),
        }

    def to_dict(self) -> dict[str, Any]:
        """Every number but the single scores, as JSON has it; shares in percent."""
        return {
            **self.metrics,
            "videos": len(self.indices),
            "missing": self.manifest.num_missing,  # that an official list names and that are not there
            "broken": [self.broken_videos[place] for place in sorted(self.broken_videos)],
            "classes": self._classes_to_dicts(),
        }

    def _classes_to_dicts(self) -> list[dict[str, Any]]:
        videos = self.targets.sum(dim=0).tolist()
        precisions = (100 * compute_average_precisions(self.scores, self.targets)).tolist()
        return [
            {"name": name, "videos": count, "average_precision": precision if count else None}
            for name, count, precision in zip(self.classes, videos, precisions, strict=True)
        ]

    def format_scores_csv(self) -> Iterator[bytes]:
        """A line for each video of the list, in its order; of one that was not scored, why, and no scores."""
        scored = {place: index for index, place in enumerate(self.indices)}

        def cells(place: int) -> Sequence[object]:
            hot = self._get_multi_hot(place)
            stated = [
                self.manifest.rows.get_name(place),
                ";".join(self.classes[label] for label in hot.nonzero()[:, 0]),
            ]
            if place not in scored:
                return [*stated, *[""] * 3, self.broken_videos[place], *[""] * len(self.classes)]
            own = self.scores[scored[place]]
            best = int(own.argmax())
            texts = [f"{score:.6g}" for score in own.tolist()]
            return [*stated, self.classes[best], int(hot[best]), texts[best], "", *texts]

        head = ["video", "classes", "prediction", "hit", "probability", "problem"]
        yield from format_csv([[*head, *(f"p({name})" for name in self.classes)]])
        yield from format_csv(cells(place) for place in range(len(self.manifest.rows)))

    def format_classes_csv(self) -> Iterator[bytes]:
        """Each class with its average precision."""
        rows = ([each["name"], each["videos"], each["average_precision"]] for each in self._classes_to_dicts())
        return format_csv([["class", "videos", "average_precision"], *rows])
