"""The masks of MVD, MaskAgain and the masked autoencoders have the counts and the structure of the authors' own."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from mask_structure import assert_each_token_once, count_visible_by_step, get_patches, mark_visible
from reference_cases import Case, cases

from vidstill.methods.common.masking import Mask, RandomMask, TubeMask
from vidstill.methods.maskagain import ContextMask
from vidstill.utils.types import Grid

pytestmark = pytest.mark.reference

SEEDS = torch.arange(64)


@dataclass(frozen=True)
class Row:
    """A row of a table: a kind of mask, its settings, how much it hides, and examples drawn by the authors' code."""

    fields: dict[str, Any]

    @property
    def grid(self) -> Grid:
        return Grid(*self.fields["token_grid_thw"])

    def ours(self) -> Mask:
        ratio = self.fields["mask_ratio"]
        drawers = {
            "tube": lambda: TubeMask(ratio=ratio),
            "random": lambda: RandomMask(ratio=ratio, round_down="masked"),
            "time": lambda: ContextMask(ratio=ratio, context_ratio=self.fields["context_ratio"]),
        }
        return drawers[self.fields["kind"]]().draw(SEEDS, self.grid)

    def theirs(self) -> list[Mask]:
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
    found = []
    for param in cases(method=method, kind="table", name="masks"):
        (case,) = param.values
        if case is None:
            found.append(param)
        else:
            for row in map(Row, case.json["rows"]):
                found.append(pytest.param(row, id=f"{param.id}-{row.fields['kind']}-{row.grid.num_tokens}"))
    return found


@pytest.mark.parametrize("row", [*rows("mvd"), *rows("maskagain")])
def test_masks_have_the_authors_counts_and_structure(row: Row) -> None:
    for mask in (row.ours(), *row.theirs()):
        row.hold(mask)


@pytest.mark.parametrize("row", [*rows("mvd"), *rows("maskagain")])
def test_only_tubes_hide_the_same_places_in_every_slot(row: Row) -> None:
    def alike(mask: Mask) -> torch.Tensor:
        slots = mark_visible(mask, row.grid)
        return (slots == slots[:, :1]).flatten(1).all(dim=1)

    if row.fields["kind"] == "tube":
        assert all(alike(mask).all() for mask in (row.ours(), *row.theirs()))
    elif row.grid.t > 1 and row.fields["masked_total"]:
        assert not alike(row.ours()).all()  # in small grids, chance may hide the same in some


FORWARD = [
    *cases(kind="pretrain_forward", method="image_mae"),
    *cases(kind="pretrain_forward", method="st_mae"),
    *cases(kind="distillation_forward", method="dmae"),
]


@pytest.mark.parametrize("case", FORWARD)
def test_a_random_mask_keeps_as_many_tokens_as_the_authors_masked_autoencoder(case: Case) -> None:
    clips, tokens = case.tensors["mask/noise"].shape
    mask = RandomMask(ratio=case.json["config"]["mask_ratio"]).draw(SEEDS[:clips], Grid(1, 1, tokens))
    assert mask.visible.shape == case.tensors["mask/ids_keep"].shape
    assert mask.masked.shape[1] == case.tensors["mask/mask"][0].sum()
