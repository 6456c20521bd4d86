"""Masks, merged views and the start of a fine-tuning hold the tables made with the authors' code."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from foreign_layout import to_foreign
from mask_structure import assert_each_token_once, count_visible_by_step, get_patches, mark_visible
from reference_cases import Case, cases

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.rename import build_classifier_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.checkpoints.load import init_encoder
from vidstill.methods.common.masking import Mask, NestedTubeMask, RandomMask, TubeMask
from vidstill.methods.maskagain import ContextMask
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
        for hidden, more, encoded in zip(
            mask.masked.tolist(), mask.teacher_only.tolist(), mask.visible.tolist(), strict=True
        ):
            assert set(more) <= set(hidden)
            assert set(hidden) | set(encoded) == set(range(grid.num_tokens))
            assert not set(hidden) & set(encoded)


@pytest.mark.parametrize("case", cases(method="videomae", kind="table", name="multi_view_merge"))
def test_views_are_merged_as_the_authors_merge_them(case: Case) -> None:
    limits = case.json["tolerance"]
    scores = []
    for video in case.json["videos"]:
        score = merge_views(torch.tensor([view["logits"] for view in video["views"]], dtype=torch.float64))
        assert score.tolist() == pytest.approx(video["mean_probabilities"], rel=limits["rtol"], abs=limits["atol"])
        assert score.argmax().item() == video["prediction"]
        scores.append(score)
    output = compute_accuracy(torch.stack(scores), torch.tensor([video["label"] for video in case.json["videos"]]))
    assert output.top1 == pytest.approx(case.json["top1"])
    assert output.top5 == pytest.approx(case.json["top5"])
    assert output.videos == len(scores)


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
    unchanged = {name for name, tensor in after.items() if torch.equal(tensor, before[name])}
    assert moved == set(case.json["taken_over"])
    assert unchanged == set(case.json["fresh"])
    assert moved | unchanged == set(after)


# ---- Masks of MVD, MaskAgain and the masked autoencoders ------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A row of a table: a kind of mask, its settings, how much it hides, and examples drawn by the authors' code."""

    fields: dict[str, Any]

    @property
    def grid(self) -> Grid:
        return Grid(*self.fields["token_grid_thw"])

    def draw_own(self) -> Mask:
        ratio = self.fields["mask_ratio"]
        drawers = {
            "tube": lambda: TubeMask(ratio=ratio),
            "random": lambda: RandomMask(ratio=ratio, round_down="masked"),
            "time": lambda: ContextMask(ratio=ratio, context_ratio=self.fields["context_ratio"]),
        }
        return drawers[self.fields["kind"]]().draw(SEEDS, self.grid)

    def list_stored(self) -> list[Mask]:
        everything = set(range(self.grid.num_tokens))
        hidden = [example["masked_positions"] for example in self.fields["examples"]]
        return [Mask(torch.tensor([sorted(everything - set(h))]), torch.tensor([h])) for h in hidden]

    def hold(self, mask: Mask) -> None:
        """A mask has the table's count and the structure of its kind."""
        assert_each_token_once(mask, self.grid)
        assert mask.masked.shape[1] == self.fields["masked_total"]
        if self.fields["kind"] == "tube":
            get_patches(mask.masked, self.grid)
        if self.fields["kind"] == "time":
            slots = int(self.grid.t * self.fields["context_ratio"])  # whole ones in every row
            assert (count_visible_by_step(mask, self.grid)[:, :slots] == self.grid.h * self.grid.w).all()


def rows(method: str) -> list[Any]:
    """A parameter for each row of the method's table; a skipped one where the table is not here."""
    output = []
    for param in cases(method=method, kind="table", name="masks"):
        (case,) = param.values
        if case is None:
            output.append(param)
        else:
            for row in map(Row, case.json["rows"]):
                output.append(pytest.param(row, id=f"{param.id}-{row.fields['kind']}-{row.grid.num_tokens}"))
    return output


@pytest.mark.parametrize("row", [*rows("mvd"), *rows("maskagain")])
def test_masks_have_the_authors_counts_and_structure(row: Row) -> None:
    for mask in (row.draw_own(), *row.list_stored()):
        row.hold(mask)


@pytest.mark.parametrize("row", [*rows("mvd"), *rows("maskagain")])
def test_only_tubes_hide_the_same_places_in_every_slot(row: Row) -> None:
    def is_same(mask: Mask) -> torch.Tensor:
        slots = mark_visible(mask, row.grid)
        return (slots == slots[:, :1]).flatten(1).all(dim=1)

    if row.fields["kind"] == "tube":
        assert all(is_same(mask).all() for mask in (row.draw_own(), *row.list_stored()))
    elif row.grid.t > 1 and row.fields["masked_total"]:
        assert not is_same(row.draw_own()).all()  # in small grids, chance may hide the same in some


FORWARD = [
    *cases(kind="pretrain_forward", method="image_mae"),
    *cases(kind="pretrain_forward", method="st_mae"),
    *cases(kind="distillation_forward", method="dmae"),
]


@pytest.mark.parametrize("case", FORWARD)
def test_a_random_mask_keeps_as_many_tokens_as_the_authors_masked_autoencoder(case: Case) -> None:
    case.leave_to_others()
    clips, tokens = case.tensors["mask/noise"].shape
    mask = RandomMask(ratio=case.json["config"]["mask_ratio"]).draw(SEEDS[:clips], Grid(1, 1, tokens))
    assert mask.visible.shape == (clips, case.json["config"]["len_keep"])
