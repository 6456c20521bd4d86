"""The yardstick does the same work: with the same weights and mask, its loss and gradients are those of our methods."""

import re
from dataclasses import replace

import pytest
import torch
from tiny_models import AMD, CLASSES, DMAE, ENCODER, GRID, IMAGEMAE, MASKAGAIN, METHODS, MVD, VIDEOMAE, only

from vidstill.bench.eager.methods import build_eager, explain_missing_eager
from vidstill.methods.common.teacher import list_teachers
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD
from vidstill.tasks.classification import ClassificationTask, ClassifierConfig

WIDE = replace(MASKAGAIN, teacher=replace(MASKAGAIN.teacher, model=replace(MASKAGAIN.teacher.model, dim=32)))
CONFIGS = {"videomae": VIDEOMAE, "mvd": MVD, "amd": AMD, "maskagain": MASKAGAIN, "maskagain_projected": WIDE}
CLASSIFIER = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES, head_init_scale=1.0, weight_init="xavier")

# our names, and those of the yardstick
_NAMES = [
    (r"^encoder\.norm\.", "norm."),
    (r"^decoder\.embed\.", "embed."),
    (r"^decoder\.norm\.", "head.0."),
    (r"^decoder\.head\.", "head.1."),
    (r"^decoders\.(\w+)\.embed\.", r"embeds.\1."),
    (r"^decoders\.(\w+)\.norm\.", r"heads.\1.0."),
    (r"^decoders\.(\w+)\.head\.", r"heads.\1.1."),
    (r"\.trunk\.", "."),
    (r"^model\.encoder\.", "encoder."),
    (r"^model\.norm\.", "head.0."),
    (r"^model\.head\.", "head.1."),
]


def name_of(name: str) -> str:
    for pattern, words in _NAMES:
        name = re.sub(pattern, words, name)
    return name


def take_names(ours: torch.nn.Module, tensors: dict) -> dict:
    """Return tensors of our task by the yardstick's names."""
    layers = [str(layer) for layer, _ in getattr(ours.config, "layer_pairs", ())] if hasattr(ours, "config") else []
    names = {re.sub(r"^projections\.(\d+)\.", lambda m: f"projections.{layers.index(m[1])}.", n): n for n in tensors}
    return {name_of(name): tensors[original] for name, original in names.items()}


def copy_weights(ours: torch.nn.Module, eager: torch.nn.Module) -> None:
    tensors = take_names(ours, ours.state_dict())
    for name, teacher in list_teachers(ours).items():
        prefix = "teacher." if name == "teacher" else f"teachers.{name}."
        tensors |= {f"{prefix}{key}": tensor for key, tensor in teacher.model.state_dict().items()}
    for name, parameter in eager.named_parameters():
        parameter.data.copy_(tensors[name].reshape(parameter.shape))


def randomize(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("name", [*CONFIGS, "classifier"])
def test_loss_and_gradients_are_those_of_our_method(name):
    torch.manual_seed(0)
    clip, seed = torch.rand(3, 3, 4, 16, 12), torch.tensor([5, 6, 7])
    normalized = torch.stack([(clip[:, c] - IMAGENET_MEAN[c]) / IMAGENET_STD[c] for c in range(3)], dim=1)
    if name == "classifier":
        ours = ClassificationTask(CLASSIFIER.build(), mixup=None, random_erasing=None, label_smoothing=0.0)
        eager, label = build_eager(CLASSIFIER, GRID), torch.tensor([0, 4, 2])
        inputs, masks = (clip, label, seed), (label,)
    else:
        ours = CONFIGS[name].build()
        for teacher in list_teachers(ours).values():
            randomize(teacher.model)
        eager, mask = build_eager(CONFIGS[name], GRID), ours.draw_mask(clip, seed)
        masks = tuple(
            torch.zeros(3, GRID.num_tokens, dtype=torch.bool).scatter(1, indices, True)
            for indices in (mask.masked, mask.teacher_only)
            if indices is not None
        )
        inputs = (clip, None, seed)
    randomize(ours)
    copy_weights(ours, eager)
    loss, expected = eager.train()(normalized, *masks), ours.train()(*inputs).loss
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    loss.backward()
    expected.backward()
    wanted = take_names(ours, {name: p.grad for name, p in ours.named_parameters() if p.grad is not None})
    gradients = {name: p.grad for name, p in eager.named_parameters() if p.grad is not None}
    assert gradients.keys() == wanted.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[key].reshape(gradient.shape), rtol=1e-3, atol=1e-6, msg=key)


def test_settings_that_it_does_not_have_are_named():
    assert all(explain_missing_eager(config) == "" for config in (*CONFIGS.values(), CLASSIFIER))
    assert explain_missing_eager(DMAE) == "it has no DMAE"
    assert explain_missing_eager(IMAGEMAE) == "it has no ImageMAE"
    for config in (
        replace(VIDEOMAE, target="raw"),
        replace(AMD, alignment="parallel"),
        replace(MVD, normalize_targets=True),
        only(MASKAGAIN, attention=1.0),
    ):
        assert explain_missing_eager(config) == "it has the method's default settings only"
    learned = replace(VIDEOMAE, encoder=replace(ENCODER, positions="learned", learned_grid=(2, 4, 3)))
    assert "fixed position embeddings" in explain_missing_eager(learned)


def test_every_tiny_method_has_a_yardstick_or_a_reason():
    for config in METHODS.values():
        assert explain_missing_eager(config) or build_eager(config, GRID)
