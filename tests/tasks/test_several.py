"""Videos that may show several classes: the loss, mixed targets, merged scores, and what a test says of them."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_models import CLASSES, ENCODER, built, clips

from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoTable
from vidstill.data.transforms.mixup import MixupCutmix, smooth_labels
from vidstill.tasks.classification import ClassificationTask, ClassifierConfig
from vidstill.tasks.metrics.accuracy import merge_views
from vidstill.tasks.results import MultiLabelResult, format_classification_result

CONFIG = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES, multi_label=True)
CLIP, SEED = clips(4), torch.arange(4)
LABEL = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]).float()


def task(model, *, mixing=None, smoothing=0.0):
    return ClassificationTask(model, mixup=mixing, random_erasing=None, label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_asks_of_every_class_by_itself_whether_it_is_there(smoothing):
    model = built(CONFIG)
    told = LABEL * (1 - smoothing) + smoothing / 2
    there = model(CLIP).sigmoid()
    expected = -(told * there.log() + (1 - told) * (1 - there).log()).mean()
    torch.testing.assert_close(task(model, smoothing=smoothing)(CLIP, LABEL, SEED).loss, expected)


def test_the_loss_starts_at_a_coins_toss():
    torch.manual_seed(0)
    loss = task(CONFIG.build())(CLIP, LABEL, SEED).loss
    assert loss.item() == pytest.approx(math.log(2), abs=1e-3)


def test_all_labels_are_mixed_by_the_share_of_the_pixels():
    mixing = MixupCutmix()
    keep = mixing.draw_pixel_weights(SEED[:1], *CLIP.shape[-2:]).mean()
    mixed, target = mixing.apply(CLIP, LABEL, SEED, CLASSES, 0.1)
    told = 0.05 + 0.9 * LABEL
    torch.testing.assert_close(target, told * keep + told.flip(0) * (1 - keep))
    model = built(CONFIG)
    expected = F.binary_cross_entropy_with_logits(model(mixed), target)
    torch.testing.assert_close(task(model, mixing=mixing, smoothing=0.1)(CLIP, LABEL, SEED).loss, expected)


def test_one_label_is_smoothed_as_before():
    torch.testing.assert_close(smooth_labels(torch.tensor([1]), 4, 0.2), torch.tensor([[0.05, 0.85, 0.05, 0.05]]))


def test_every_class_keeps_a_probability_of_its_own_over_the_views():
    logits = torch.tensor([[4.0, 4.0, -9.0], [0.0, 4.0, -9.0]])
    found = merge_views(logits, multi_label=True)
    torch.testing.assert_close(found, (logits.double().sigmoid()).mean(0))
    assert found.sum() > 1
    torch.testing.assert_close(merge_views(logits), logits.double().softmax(1).mean(0))


def found_in(labels, scores, *, places=None, broken=None) -> MultiLabelResult:
    rows = VideoTable(Path("videos"))
    for number, stated in enumerate(labels):
        rows.append(f"{number}.mp4", stated[0], extra_labels=stated[1:])
    classes = ("bend", "fall", "run")
    listing = Manifest(rows, classes, "made up", Path("videos"), "", multi_label=True)
    places = tuple(range(len(labels))) if places is None else places
    return MultiLabelResult(listing, classes, places, torch.tensor(scores, dtype=torch.float64), broken or {})


def test_a_test_is_worth_its_mean_average_precision():
    # bend is found at ranks 1 and 3 of its 2 videos, fall at 1 of 1, run at 2 of 1
    found = found_in(
        [(0, 1), (2,), (0,), (1,)],
        [[0.9, 0.2, 0.1], [0.8, 0.1, 0.5], [0.7, 0.3, 0.6], [0.1, 0.9, 0.2]],
    )
    bend, fall, run = (1 + 2 / 3) / 2, (1 + 2 / 3) / 2, 1 / 2
    plain = found.to_dict()
    assert [each["average_precision"] for each in plain["classes"]] == pytest.approx(
        [100 * x for x in (bend, fall, run)]
    )
    assert plain["mean_average_precision"] == pytest.approx(100 * (bend + fall + run) / 3)
    assert plain["best_class_is_there"] == 75  # the second is taken for bend
    assert [each["videos"] for each in plain["classes"]] == [2, 2, 1]
    assert "mean average precision" in format_classification_result(plain)


def test_a_class_without_videos_has_no_precision_and_no_part_in_the_mean():
    plain = found_in([(0,), (0, 1)], [[0.9, 0.1, 0.8], [0.8, 0.7, 0.1]]).to_dict()
    assert plain["classes"][2] == {"name": "run", "videos": 0, "average_precision": None}
    assert plain["mean_average_precision"] == pytest.approx(100)


def test_every_video_has_a_line_with_its_classes_and_what_is_broken_says_why():
    found = found_in([(0, 2), (1,)], [[0.2, 0.1, 0.9]], places=(0,), broken={1: "1.mp4 is cut"})
    first, second = csv.DictReader(b"".join(found.format_scores_csv()).decode().splitlines())
    assert (first["classes"], first["prediction"], first["hit"], first["p(run)"]) == ("bend;run", "run", "1", "0.9")
    assert (second["classes"], second["problem"], second["p(run)"]) == ("fall", "1.mp4 is cut", "")
    assert len(b"".join(found.format_classes_csv()).splitlines()) == 4


def test_a_classifier_learns_several_labels_by_heart():
    torch.manual_seed(0)
    learner = task(replace(CONFIG, weight_init="xavier").build())
    optimizer = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    for _ in range(60):
        loss = learner(CLIP, LABEL, SEED).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((learner.model(CLIP) > 0) == LABEL.bool()).all()
