"""Finds the numbers made with the authors' code: cases of a folder, read once, as pytest parameters `method/case`."""

import json
from collections import UserDict
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

RESULTS = ("out/", "target/", "loss", "grad", "const/", "after/", "final/")
"""How the names of the tensors begin that some test must hold; the others are read."""


class StoredTensors(UserDict[str, Tensor]):
    """The tensors of a case; remembers which of them were read."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        super().__init__(tensors)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return self.data[name]


@dataclass(frozen=True)
class Case:
    """One case: `<method>/<name>.json`, and the tensors beside it; what it does not store, it does not ask for."""

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
    def tensors(self) -> StoredTensors:
        return StoredTensors(load_file(self.path.with_suffix(".safetensors")))

    @cached_property
    def held(self) -> set[str]:
        """The results, and `losses/…` of the JSON, that were compared since the test began."""
        return set()

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors named `prefix/…`, without the prefix."""
        names = [name for name in self.tensors.data if name.startswith(prefix + "/")]
        return {name.removeprefix(prefix + "/"): self.tensors[name] for name in names}

    def translate(self, foreign: Mapping[str, Tensor], rules: Sequence[RenameRule]) -> dict[str, Tensor]:
        """Return stored weights under our names."""
        return translate_state_dict(foreign, rules)

    def load(self, module: nn.Module, rules: Sequence[RenameRule], *prefixes: str, **others: Tensor) -> None:
        """Load the weights that are stored under these prefixes, and others under our names, into a module."""
        foreign = {name: tensor for prefix in prefixes for name, tensor in self.under(prefix).items()}
        load_state_dict_strict(module, others | self.translate(foreign, rules), self.name)

    # ---- Comparisons: each holds a result if it is stored ----

    def hold(self, result: Tensor, name: str, kind: str = "outputs") -> None:
        """Our tensor equals the stored one: max|a-b| <= atol + rtol·max|b| (the case's own tolerance)."""
        self._hold(result, name, self._limits(kind), whole=True)

    def hold_each(self, result: Tensor, name: str, kind: str) -> None:
        """Each of our elements is near its own: |a-b| <= atol + rtol·|b|."""
        self._hold(result, name, self._limits(kind), whole=False)

    def hold_table(self, result: Tensor, name: str) -> None:
        """A computed table: made in float64 and stored in float32, for which cases state no tolerance."""
        self._hold(result, name, {"rtol": 0.0, "atol": 1e-6}, whole=True)

    def hold_under(self, prefix: str, results: Mapping[str, Tensor], kind: str, *, whole: bool) -> None:
        """Every tensor that is stored under the prefix is one of ours."""
        for name in self.list_under(prefix, results):
            self._hold(results[name], f"{prefix}/{name}", self._limits(kind), whole=whole)

    def list_under(self, prefix: str, results: Mapping[str, Tensor]) -> list[str]:
        """Those of our results that are stored under the prefix: all that are stored, but for missing gradients."""
        names = set(self.under(prefix))
        without = set(self.json.get("parameters_without_gradient") or ()) if prefix.startswith("grad") else set()
        assert names - without <= results.keys(), f"{prefix}/{names - without - results.keys()}: ours has none"
        self.held.update(f"{prefix}/{name}" for name in names)
        return sorted(names - without)

    def hold_loss(self, result: Tensor, name: str) -> None:
        """A loss equals the stored one: of the tensors and of the JSON, wherever it stands (`step.0` is `step_0`)."""
        kind, in_json = "losses" if "losses" in self.json["tolerance"] else "loss", name.replace(".", "_")
        self._hold(result.detach(), f"loss/{name}", self._limits(kind), whole=True)
        if self.hold_number(result.detach(), "losses", *in_json.split("/"), kind=kind):
            self.held.add(f"losses/{in_json}")

    def hold_number(self, result: Tensor | float, *path: str | int, kind: str) -> bool:
        """What stands in the JSON at a path of names and indices, if something does, equals ours."""
        stored: Any = self.json
        for step in path:
            has = step in stored if isinstance(stored, dict) else isinstance(stored, list) and step < len(stored)
            stored = stored[step] if has else None
        if stored is not None:
            numbers = (torch.as_tensor(number, dtype=torch.float64) for number in (result, stored))
            _compare(*numbers, str(path), self._limits(kind), whole=False)
        return stored is not None

    def _limits(self, kind: str) -> dict[str, float]:
        return self.json["tolerance"][kind]

    def _hold(self, result: Tensor, name: str, limits: Mapping[str, float], *, whole: bool) -> None:
        if name in self.tensors:
            self.held.add(name)
            _compare(result, self.tensors[name], name, limits, whole=whole)

    # ---- Nothing is left out ----

    def start_test(self) -> None:
        self.held.clear()
        if self.path.with_suffix(".safetensors").exists():
            self.tensors.read.clear()

    def leave_to_others(self, *prefixes: str) -> None:
        """The results of these names (no name: all) are another test's."""
        self.held.update(name for name in self.list_stored() if name.startswith(prefixes or ""))

    def list_stored(self) -> list[str]:
        """The names of all tensors, and of the JSON's losses."""
        tensors = self.tensors.data if self.path.with_suffix(".safetensors").exists() else {}
        return [*tensors, *_list_leaves(self.json.get("losses") or {}, "losses/")]

    def check_nothing_was_left_out(self) -> None:
        """Every stored result was held since the test began, and every other tensor was read.

        So were the JSON's losses, if one of them was; some kinds of cases state there what they state elsewhere.
        """
        left = [name for name in self.list_stored() if name not in self.held]
        if not any(name.startswith("losses/") for name in self.held):
            left = [name for name in left if not name.startswith("losses/")]
        left = [name for name in left if name.startswith(RESULTS) or name not in self.tensors.read]
        assert not left, f"{self.method}/{self.name} stores {left}, which this test does not hold"


def _compare(result: Tensor, reference: Tensor, name: str, limits: Mapping[str, float], *, whole: bool) -> None:
    assert result.shape == reference.shape, f"{name}: {result.shape}, the reference has {reference.shape}"
    apart, size = (result.double() - reference.double()).abs(), reference.double().abs()
    bound = limits["atol"] + limits["rtol"] * (size.max() if whole else size)
    assert (apart <= bound).all(), f"{name}: {(apart - bound).max().item():.3g} beyond the limit"


def _list_leaves(values: Mapping[str, Any], prefix: str) -> list[str]:
    nested = [
        _list_leaves(value, f"{prefix}{name}/") if isinstance(value, dict) else [prefix + name]
        for name, value in values.items()
    ]
    return [name for names in nested for name in names]


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
