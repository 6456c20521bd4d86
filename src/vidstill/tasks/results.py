"""The results of a classification test, as numbers, as tables for other programs, and as a summary."""

import csv
import io
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np
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

_NUM_WORST_CLASSES = 3  # in the summary
_TITLES = {  # of the numbers in the summary
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "mean class accuracy",
    "calibration_error": "calibration error",
    "mean_average_precision": "mean average precision",
    "hit_at_1": "hit at 1",
}


@dataclass(frozen=True)
class ClassificationResult(ABC):
    """The scores of the videos of a manifest."""

    manifest: Manifest
    classes: tuple[str, ...]  # the model's, in the order of the scores; the manifest may have fewer
    indices: tuple[int, ...]  # the rows of the scored videos in the manifest
    scores: Float[Tensor, "videos classes"]  # the probabilities of the classes
    broken_videos: Mapping[int, str]  # why the other videos could not be scored, by row
    num_training_videos: int = 0  # how many videos of the manifest the model was trained on, as far as its run tells

    @property
    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """The main numbers, in percent."""

    @abstractmethod
    def describe_classes(self) -> list[dict[str, Any]]:
        """Return each class's name and numbers for JSON; shares in percent."""

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers but the scores, for JSON; shares in percent."""
        trained_on = {"training_videos": self.num_training_videos} if self.num_training_videos else {}
        return {
            **self.metrics,
            **trained_on,
            "noun": self.manifest.noun,  # what the summary calls a video
            "videos": len(self.indices),
            "missing": self.manifest.num_missing,  # listed by an official list, but no such file
            "broken_videos": [self.broken_videos[row] for row in sorted(self.broken_videos)],
            "classes": self.describe_classes(),
        }

    def format_scores_csv(self) -> Iterator[bytes]:
        """Return one line per video of the manifest, in its order; a broken video has an error and no scores.

        Several labels are joined by semicolons; the rank is that of the label with the highest score.
        """
        index_of = {row: index for index, row in enumerate(self.indices)}
        header = ["video", "label", "class", "prediction", "correct", "probability", "rank", "error"]

        def list_cells(row: int) -> Sequence[object]:
            labels = self.manifest.rows[row].labels
            names = ";".join(self.classes[label] for label in labels)
            label_cells = [self.manifest.rows.get_name(row), ";".join(map(str, labels)), names]
            if row not in index_of:
                return [*label_cells, *[""] * 4, self.broken_videos[row], *[""] * len(self.classes)]
            scores = self.scores[index_of[row], None]
            best = int(predict_classes(scores))
            ranks = compute_label_ranks(scores.expand(len(labels), -1), torch.tensor(labels, dtype=torch.long)).tolist()
            texts = [f"{score:.6g}" for score in scores[0].tolist()]
            cells = [self.classes[best], int(best in labels), texts[best], min(ranks, default=""), ""]
            return [*label_cells, *cells, *texts]

        yield from format_csv([[*header, *(f"p({name})" for name in self.classes)]])  # p(): a class may be named "rank"
        yield from format_csv(map(list_cells, range(len(self.manifest.rows))))

    @abstractmethod
    def format_classes_csv(self) -> Iterator[bytes]:
        """Return one line per class."""


class SingleLabelResult(ClassificationResult):
    """The result where each video has one label."""

    @cached_property
    def labels(self) -> Int[Tensor, "videos"]:
        return torch.from_numpy(self.manifest.rows.labels[list(self.indices)]).long()

    @cached_property
    def accuracy(self) -> Accuracy:
        return compute_accuracy(self.scores, self.labels)

    @property
    def metrics(self) -> dict[str, float]:
        return {"top1": self.accuracy.top1, "top5": self.accuracy.top5}

    @cached_property
    def confusion_matrix(self) -> Int[Tensor, "classes classes"]:
        """How many videos of each class (rows) were predicted as each class (columns)."""
        num_classes = len(self.classes)
        pairs = self.labels * num_classes + predict_classes(self.scores)
        return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)

    def to_dict(self) -> dict[str, Any]:
        return {
            **super().to_dict(),
            "majority_baseline": self.accuracy.majority_baseline,
            "mean_class_accuracy": self.accuracy.mean_class_accuracy,
            "calibration_error": compute_calibration_error(self.scores, self.labels),
            "negative_log_likelihood": compute_negative_log_likelihood(self.scores, self.labels),
        }

    def describe_classes(self) -> list[dict[str, Any]]:
        """Return each class's numbers; `predicted` is its row of the confusion matrix, the most frequent first."""
        descriptions = []
        for label, row in enumerate(self.confusion_matrix.tolist()):
            accuracy = 100 * row[label] / sum(row) if sum(row) else None
            counts = Counter(dict(zip(self.classes, row, strict=True)))
            predicted = {name: count for name, count in counts.most_common() if count}  # ties: in the classes' order
            values = {"videos": sum(row), "hits": row[label], "accuracy": accuracy, "predicted": predicted}
            descriptions.append({"name": self.classes[label], **values})
        return descriptions

    def format_classes_csv(self) -> Iterator[bytes]:
        """Return one line per class, with its most frequent wrong prediction and the count of that."""
        columns, classes = ["videos", "hits", "accuracy"], self.describe_classes()
        rows = ([*map(each.get, ["name", *columns]), *(_find_top_mistake(each) or ("", 0))] for each in classes)
        return format_csv([["class", *columns, "mistake", "count"], *rows])

    def format_confusion_csv(self) -> Iterator[bytes]:
        """Return the confusion matrix: one line per class, one column per prediction."""
        rows = ([name, *row] for name, row in zip(self.classes, self.confusion_matrix.tolist(), strict=True))
        return format_csv([["class", *self.classes], *rows])


class MultiLabelResult(ClassificationResult):
    """The result where a video may have several labels."""

    @cached_property
    def targets(self) -> Bool[Tensor, "videos classes"]:
        rows = [self.manifest.rows.multi_hot(row, len(self.classes)) for row in self.indices]
        return torch.from_numpy(np.stack(rows)).bool()

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The mean average precision, and the share of videos whose best class is one of theirs; in percent."""
        hits = self.targets.gather(1, predict_classes(self.scores)[:, None]).double().mean()
        return {
            "mean_average_precision": compute_mean_average_precision(self.scores, self.targets),
            "hit_at_1": 100 * hits.item(),
        }

    def to_dict(self) -> dict[str, Any]:
        same_scores = torch.zeros_like(self.scores)  # for every video: each class's precision is its share of them
        baseline = compute_mean_average_precision(same_scores, self.targets)
        return {**super().to_dict(), "constant_score_baseline": baseline}

    def describe_classes(self) -> list[dict[str, Any]]:
        videos = self.targets.sum(dim=0).tolist()
        precisions = (100 * compute_average_precisions(self.scores, self.targets)).tolist()
        return [
            {"name": name, "videos": count, "average_precision": precision if count else None}
            for name, count, precision in zip(self.classes, videos, precisions, strict=True)
        ]

    def format_classes_csv(self) -> Iterator[bytes]:
        """Return one line per class, with its average precision."""
        rows = (list(each.values()) for each in self.describe_classes())
        return format_csv([["class", "videos", "average_precision"], *rows])


def format_classification_result(metrics: Mapping[str, Any]) -> str:
    """Return the numbers of `ClassificationResult.to_dict` as a few lines; what is missing is left out."""
    classes, noun = metrics.get("classes", ()), metrics.get("noun", "video")
    titles = {name: title for name, title in _TITLES.items() if name in metrics}
    if len(classes) <= 5:
        titles.pop("top5", None)  # it is 100 %, whatever the model answers
    lines = {title: f"{metrics[name]:.1f} %" for name, title in titles.items()}
    if "majority_baseline" in metrics:
        most_frequent = max(classes, key=itemgetter("videos"))["name"]
        lines["top-1"] += f" (always answering {_quote(most_frequent)}: {metrics['majority_baseline']:.1f} %)"
    if "constant_score_baseline" in metrics:
        baseline = f"the same scores for every {noun}: {metrics['constant_score_baseline']:.1f} %"
        lines[_TITLES["mean_average_precision"]] += f" ({baseline})"
    if "videos" in metrics:
        num_broken = len(metrics["broken_videos"])
        lines[f"{noun}s"] = f"{metrics['videos']} scored, {num_broken} broken, {metrics['missing']} missing"
    if averaged := metrics.get("ema"):
        lines["averaged weights"] = ", ".join(f"{title} {averaged[name]:.1f} %" for name, title in titles.items())
    if selection := metrics.get("model_selection"):
        lines["checkpoint"] = "epoch {epoch}, selected by {metric} {score:.2f} on {source}".format(**selection)
    mistaken = [each for each in classes if each.get("hits", each["videos"]) < each["videos"]]
    if worst := sorted(mistaken, key=itemgetter("accuracy"))[:_NUM_WORST_CLASSES]:
        lines["worst classes"] = "\n".join(map(_format_class, worst))
    if warnings := list(_iter_warnings(metrics, noun)):
        lines["warning"] = "\n".join(warnings)
    return format_key_values(lines)


def _format_class(description: Mapping[str, Any]) -> str:
    hits, videos = description["hits"], description["videos"]
    text = f"{_quote(description['name'])}: {hits} of {videos} correct ({description['accuracy']:.1f} %)"
    name, count = _find_top_mistake(description) or ("", 0)
    return f"{text}, {'mostly' if 2 * count > videos - hits else 'most often'} predicted {_quote(name)}"


def _iter_warnings(metrics: Mapping[str, Any], noun: str) -> Iterator[str]:
    """Yield what is wrong with a test on training videos, and with a model that answers one class for (nearly) all."""
    if num_trained := metrics.get("training_videos"):
        yield f"the model was trained on {num_trained} of these {noun}s, so the score says nothing about new ones"
    classes = [each for each in metrics.get("classes", ()) if each["videos"]]
    if len(classes) < 2 or "majority_baseline" not in metrics:
        return
    counts = sum((Counter(each["predicted"]) for each in classes), Counter())
    (name, count), total = counts.most_common(1)[0], counts.total()
    share = sum(each["videos"] for each in classes if each["name"] == name)
    if count < total and (count < 0.9 * total or share > 0.8 * count):
        return
    number = f"every {noun}" if count == total else f"{count} of {total} {noun}s"
    yield (
        f"the model answers {_quote(name)} for {number}, and {share} of {total} are of this class; "
        "train longer, try another learning rate, or start from pre-trained weights"
    )


def _quote(name: str) -> str:
    return f'"{format_one_line(name)}"'


def _find_top_mistake(description: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the most frequent wrong prediction of a class and its count."""
    predicted = description["predicted"].items()
    return next(((name, count) for name, count in predicted if name != description["name"]), None)


def format_csv(rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """Return the lines of a table in UTF-8; bytes of a file name that are not text are written as `\\udcff`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(row)
        yield text.getvalue().encode("utf-8", "backslashreplace")
        text.seek(0)
        text.truncate()
