"""Masks, merged views and the start of a fine-tuning hold the tables made with the authors' code."""

from dataclasses import replace

import pytest
import torch
from foreign_layout import to_foreign
from mask_structure import get_patches
from reference_cases import Case, cases

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.rename import build_classifier_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.checkpoints.load import init_encoder
from vidstill.methods.common.masking import NestedTubeMask, TubeMask
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.tasks.metrics.accuracy import compute_accuracy, merge_views
from vidstill.utils.types import Grid

pytestmark = pytest.mark.reference

SEEDS = torch.arange(64)
ENCODER = ViTConfig(dim=24, depth=2, heads=2, tubelet=(2, 4, 4))


@pytest.mark.parametrize("case", cases(method="videomae", kind="table", name="tube_masks"))
def test_tube_masks_have_the_authors_counts_and_structure(case: Case) -> None:
    for row in case.json["rows"]:
        grid = Grid(*row["token_grid_thw"])
        mask = TubeMask(ratio=row["mask_ratio"]).draw(SEEDS, grid)
        masked, visible = get_patches(mask.masked, grid), get_patches(mask.visible, grid)
        assert masked.shape[1] == row["masked_per_frame"]
        assert visible.shape[1] == row["visible_per_frame"]
        assert mask.masked.shape[1] == row["masked_total"]
        assert row["identical_in_every_frame"]
        both = torch.cat([masked, visible], dim=1).sort(dim=1).values
        assert (both == torch.arange(row["tokens_per_frame"])).all()


@pytest.mark.parametrize("case", cases(method="amd", kind="table", name="masks"))
def test_nested_masks_have_the_authors_counts_and_structure(case: Case) -> None:
    for row in case.json["rows"]:
        grid = Grid(*row["token_grid_thw"])
        ratios = {"student_ratio": row["mask_ratio_student"], "teacher_ratio": row["mask_ratio_teacher"]}
        mask = NestedTubeMask(**ratios).draw(SEEDS, grid)
        masked, extra = get_patches(mask.masked, grid), get_patches(mask.teacher_only, grid)
        assert masked.shape[1] == row["student_masked_per_frame"]
        assert extra.shape[1] == row["only_teacher_sees_per_frame"]
        assert grid.h * grid.w - mask.teacher_visible.shape[1] // grid.t == row["teacher_masked_per_frame"]
        for hidden, more, seen in zip(
            mask.masked.tolist(), mask.teacher_only.tolist(), mask.visible.tolist(), strict=True
        ):
            assert set(more) <= set(hidden)
            assert set(hidden) | set(seen) == set(range(grid.num_tokens))
            assert not set(hidden) & set(seen)


@pytest.mark.parametrize("case", cases(method="videomae", kind="table", name="multi_view_merge"))
def test_views_are_merged_as_the_authors_merge_them(case: Case) -> None:
    limits = case.json["tolerance"]
    scores = []
    for video in case.json["videos"]:
        score = merge_views(torch.tensor([view["logits"] for view in video["views"]], dtype=torch.float64))
        assert score.tolist() == pytest.approx(video["mean_probabilities"], rel=limits["rtol"], abs=limits["atol"])
        assert score.argmax().item() == video["prediction"]
        scores.append(score)
    found = compute_accuracy(torch.stack(scores), torch.tensor([video["label"] for video in case.json["videos"]]))
    assert found.top1 == pytest.approx(case.json["top1"])
    assert found.top5 == pytest.approx(case.json["top5"])
    assert found.videos == len(scores)


@pytest.mark.parametrize("case", cases(method="videomae", kind="table", name="finetune_init_keys"))
def test_a_fine_tuning_takes_over_what_the_authors_takes_over(case: Case) -> None:
    def depth(names: list[str]) -> int:
        return len({name.split(".")[-3] for name in names if name.endswith(".norm1.weight")})

    scaled = any("gamma_1" in name for name in case.json["taken_over"])
    encoder = replace(ENCODER, depth=depth(case.json["taken_over"]), layer_scale=0.1 if scaled else 0.0)
    decoder = DecoderConfig(dim=16, depth=depth(case.json["ignored"]), heads=2, layer_scale=encoder.layer_scale)
    file = to_foreign(
        VideoMAEConfig(encoder=encoder, decoder=decoder).build().state_dict(), build_videomae_rules(encoder)
    )
    file = {name: torch.full_like(tensor, 7.0) for name, tensor in file.items()}  # a number that no start has
    in_file = {name.removeprefix("encoder.") for name in file}
    assert in_file == {*case.json["taken_over"], *case.json["ignored"]}

    model = ClassifierConfig(encoder=encoder, num_classes=5).build()
    before = to_foreign({n: t.clone() for n, t in model.state_dict().items()}, build_classifier_rules(encoder))
    init_encoder(model.encoder, import_checkpoint(Checkpoint(file), encoder)[0], encoder)
    after = to_foreign(model.state_dict(), build_classifier_rules(encoder))
    moved = {name for name, tensor in after.items() if (tensor == 7.0).all()}
    kept = {name for name, tensor in after.items() if torch.equal(tensor, before[name])}
    assert moved == set(case.json["taken_over"])
    assert kept == set(case.json["fresh"])
    assert moved | kept == set(after)
