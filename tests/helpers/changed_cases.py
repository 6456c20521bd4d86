"""Cases of other settings than the stored ones: copies with parts left out, and cases that our own code fills.

A recorded case has a stored one's JSON with other settings, random weights and inputs of the fitting sizes. The very
test function that compares such cases runs on it once, and what it would compare is stored; then it runs on the case as
on any other. The numbers are ours, so this shows what a test asks of a case, and not that ours are right.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from foreign_layout import to_foreign
from reference_cases import Case, StoredTensors
from safetensors.torch import save_file
from torch import Tensor, nn

from vidstill.checkpoints.layouts.rename import RenameRule

NORMS = ("grad_norm_all_parameters", "grad_norm_all_registered_parameters")
Settings = dict[str, Any]
Hold = Callable[..., None]


def hold_whole(hold: Hold, case: Case, *arguments: Any) -> None:
    """Run a test function on a case as pytest does: nothing that is stored may be left out."""
    case.start_test()
    hold(case, *arguments)
    case.check_nothing_was_left_out()


def write_case(folder: Path, case: Case, content: Settings, tensors: Mapping[str, Tensor]) -> Case:
    path = folder / case.method / f"{case.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    save_file(
        {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()},
        path.with_suffix(".safetensors"),
    )
    return Case(path)


def copy_case(folder: Path, case: Case, tensors: Mapping[str, Tensor], *, without: Sequence[str] = ()) -> Case:
    """A copy with these tensors, and without some entries of the JSON."""
    case.leave_to_others()  # it is the copy's that are held
    content = {name: value for name, value in case.json.items() if name not in without}
    return write_case(folder, case, content, tensors)


@dataclass(frozen=True)
class RecordedCase(Case):
    """Stores what it is asked to compare; `path` is of the case whose settings are changed."""

    changes: Settings = field(default_factory=dict)
    draw_inputs: Callable[[Settings], dict[str, Tensor]] = field(default=lambda config: {})

    def record(self, hold: Hold, folder: Path, *arguments: Any) -> Case:
        content = deepcopy(Case(self.path).json)
        for path, value in self.changes.items():
            *parents, name = path.split(".")
            part = content["config"]
            for parent in parents:
                part = part[parent]
            part[name] = value
        for name in ("grad_norms", "losses", "informational", *NORMS):
            content.pop(name, None)
        torch.manual_seed(0)
        self.__dict__["json"] = content
        self.__dict__["tensors"] = StoredTensors(self.draw_inputs(content["config"]))
        hold(self, *arguments)
        return write_case(folder, self, content, self.tensors.data)

    def load(self, module: nn.Module, rules: Sequence[RenameRule], *prefixes: str, **others: Tensor) -> None:
        if self.under(prefixes[0]):  # the second model of the same weights
            super().load(module, rules, *prefixes, **others)
            return
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                is_scale = parameter.ndim == 1 and name.endswith("weight")
                parameter.copy_(0.2 * torch.randn_like(parameter) + (1.0 if is_scale else 0.0))
            for name, tensor in others.items():
                module.get_parameter(name).copy_(tensor)
        own = {name: tensor for name, tensor in module.state_dict().items() if name not in others}
        for name, tensor in to_foreign(own, rules).items():
            prefix = prefixes[-1] if name.startswith("generator_mask_tokens") else prefixes[0]
            self.tensors.data[f"{prefix}/{name}"] = tensor.clone()

    def hold_under(self, prefix: str, results: Mapping[str, Tensor], kind: str, *, whole: bool) -> None:
        self.tensors.data.update({f"{prefix}/{name}": tensor for name, tensor in results.items()})

    def list_under(self, prefix: str, results: Mapping[str, Tensor]) -> list[str]:
        self.hold_under(prefix, results, "", whole=True)
        return []

    def hold_number(self, result: Tensor | float, *path: str | int, kind: str) -> bool:
        value = result.tolist() if isinstance(result, Tensor) else result
        part: Any = self.json
        for step in path[:-1]:
            part = part.setdefault(step, {}) if isinstance(part, dict) else part[step]
        part[path[-1]] = value
        return True

    def _hold(self, result: Tensor, name: str, limits: Mapping[str, float], *, whole: bool) -> None:
        self.tensors.data[name] = result.detach().clone()
