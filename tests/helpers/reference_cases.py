"""Finds the numbers made with the authors' code: cases of a folder, read once, as pytest parameters `method/case`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_layout import translate_state_dict
from paths import COMMITTED, REFERENCE
from safetensors.torch import load_file
from torch import Tensor, nn

from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.checkpoints.load import load_state_dict_strict


@dataclass(frozen=True)
class Case:
    """One case: `<method>/<name>.json`, and the tensors beside it."""

    path: Path

    @property
    def method(self) -> str:
        return self.path.parent.name

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def json(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.path.with_suffix(".safetensors"))

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors named `prefix/…`, without the prefix."""
        return {name.removeprefix(prefix + "/"): t for name, t in self.tensors.items() if name.startswith(prefix + "/")}

    def translate(self, foreign: Mapping[str, Tensor], rules: Sequence[RenameRule]) -> dict[str, Tensor]:
        """Return stored weights under our names."""
        return translate_state_dict(foreign, rules)

    def load(self, module: nn.Module, rules: Sequence[RenameRule], *prefixes: str, **others: Tensor) -> None:
        """Load the weights that are stored under these prefixes, and others under our names, into a module."""
        foreign = {name: tensor for prefix in prefixes for name, tensor in self.under(prefix).items()}
        load_state_dict_strict(module, others | self.translate(foreign, rules), self.name)

    def hold(self, result: Tensor, name: str, kind: str = "outputs") -> None:
        """Our tensor equals the stored one: max|a-b| <= atol + rtol·max|b| (the case's own tolerance)."""
        self.hold_value(result, self.tensors[name], name, kind)

    def hold_value(self, result: Tensor, reference: Tensor, name: str, kind: str = "outputs") -> None:
        limits = self.json["tolerance"][kind]
        assert result.shape == reference.shape, f"{name}: {result.shape}, the reference has {reference.shape}"
        apart = (result.double() - reference.double()).abs().max().item()
        bound = limits["atol"] + limits["rtol"] * reference.double().abs().max().item()
        assert apart <= bound, f"{name}: {apart:.3g} apart, the limit is {bound:.3g}"

    def hold_each(self, result: Tensor, reference: Tensor | str, kind: str) -> None:
        """Each of our elements is near its own: |a-b| <= atol + rtol·|b|; a string names a tensor of the case."""
        name = reference if isinstance(reference, str) else kind
        reference = self.tensors[reference] if isinstance(reference, str) else reference
        limits = self.json["tolerance"][kind]
        assert result.shape == reference.shape, f"{name}: {result.shape}, the reference has {reference.shape}"
        apart = (result.double() - reference.double()).abs()
        bound = limits["atol"] + limits["rtol"] * reference.double().abs()
        assert (apart <= bound).all(), f"{name}: {(apart - bound).max().item():.3g} beyond the limit of an element"

    def hold_number(self, result: float, reference: float, name: str, kind: str = "losses") -> None:
        numbers = (torch.tensor(number, dtype=torch.float64) for number in (result, reference))
        self.hold_value(*numbers, name, kind)


@cache
def load_cases() -> Mapping[str, Case]:
    """Every case of the reference folder, and those that this repository keeps."""
    cases = {}
    for prefix, root in (("committed/", COMMITTED), ("", REFERENCE)):
        for path in sorted(root.glob("*/*.json")):
            cases[f"{prefix}{path.parent.name}/{path.stem}"] = Case(path)
    return cases


SELECTED: set[str] = set()
"""The cases that some test was given."""


def cases(*, kind: str, method: str | None = None, name: str | None = None) -> list[Any]:
    """The cases of a kind as parameters, tables by what their names begin with; a skipped one if there are none."""
    parameters = [
        pytest.param(case, id=key)
        for key, case in load_cases().items()
        if (method is None or case.method == method)
        and (name is None or case.name.startswith(name))
        and case.json["kind"] == kind
    ]
    SELECTED.update(str(parameter.id) for parameter in parameters)
    if not parameters:
        name_of_case = "/".join(filter(None, (method, name or kind)))
        reason = f"no case {name_of_case} in {REFERENCE}: set VIDSTILL_REFERENCE to a folder of reference cases"
        parameters = [pytest.param(None, id=f"{name_of_case} is not here", marks=pytest.mark.skip(reason=reason))]
    return parameters
