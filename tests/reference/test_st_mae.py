"""ST-MAE agrees with its authors (mae_st): outputs, losses, gradients, steps, starts and the conversion of weights."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from einops import rearrange
from foreign_layout import to_foreign, translate_state_dict
from reference_cases import Case, cases
from reference_mae import (
    hold_classifier,
    hold_final,
    hold_output,
    hold_statistics,
    kept_in_order,
    mask_by,
    predictions,
    stmae_colours,
    stmae_config,
    stmae_encoder_config,
    stored_mask,
)
from reference_models import take_step, with_cls_token
from torch import Tensor, nn

from vidstill.checkpoints.convert import import_checkpoint
from vidstill.checkpoints.inflate import inflate_encoder
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.rename import RenameRule, build_classifier_rules
from vidstill.checkpoints.layouts.stmae import build_stmae_classifier_rules, build_stmae_rules
from vidstill.checkpoints.load import init_encoder, load_state_dict_strict
from vidstill.data.transforms.mixup import MixupCutmix
from vidstill.engine.distributed import Runtime
from vidstill.engine.optimizer import AdamWConfig
from vidstill.methods.stmae import STMAE, STMAEConfig, select_predicted_frames
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassificationTask, Classifier, ClassifierConfig

pytestmark = pytest.mark.reference


def names_of(config: STMAEConfig) -> tuple[RenameRule, ...]:
    return build_stmae_rules(config.encoder, config.decoder)


def stmae(case: Case) -> STMAE:
    config = stmae_config(case.json["config"])
    method = config.build()
    case.load(method, names_of(config), "weights")
    return method


def classifier(case: Case) -> Classifier:
    config = case.json["config"]
    result = ClassifierConfig(
        encoder=stmae_encoder_config(config),
        num_classes=config["num_classes"],
        # released: the first token is left out, be it the class token or not
        pooling="mean" if config["cls_embed"] else "mean_after_first",
        dropout=float(config["dropout"]),
        norm="pretrained",
    )
    model = result.build().train(config.get("mode") == "train")
    case.load(model, build_stmae_classifier_rules(result.encoder), "weights")
    return model


@pytest.mark.parametrize("case", cases(method="st_mae", kind="pretrain_forward"))
def test_st_mae_agrees_with_its_authors(case: Case) -> None:
    method, stored = stmae(case), case.json["config"]
    clip, mask, encoder = stmae_colours(case.tensors["input/video"]), stored_mask(case), method.encoder
    grid = encoder.grid(clip)
    ours = {
        "input_size": [grid.t, grid.h, grid.w],
        "target_frames": select_predicted_frames(clip.shape[2], method.config),
        "t_pred_patch_size": method.config.predicted_frames,
    }
    assert {name: stored.get(name, value) for name, value in ours.items()} == ours

    embedded = encoder.embed_tokens(clip) - encoder.positions(grid, clip.device)
    case.hold_each(rearrange(embedded, "b (t s) d -> b t s d", t=grid.t), "out/patch_embed", "out")
    case.hold_each(encoder(clip, kept_in_order(case, mask)).tokens, "out/latent", "out")
    reconstruction = predictions(method, clip, mask)
    case.hold_each(reconstruction, "out/pred", "out")
    u, p, q = method.config.target_config.tubelet
    video = rearrange(
        reconstruction, "b (t h w) (u p q c) -> b c (t u) (h p) (w q)", t=grid.t, h=grid.h, w=grid.w, u=u, p=p, q=q
    )
    case.hold_each(video, "out/pred_video", "out")
    everything = torch.arange(grid.num_tokens).expand(len(clip), -1)
    case.hold_each(method.compute_target(clip, everything), "out/target", "out")

    hold_output(case, method, clip, mask, names_of(method.config))


@pytest.mark.parametrize("case", cases(method="st_mae", kind="finetune_forward"))
def test_the_classifier_agrees_with_st_maes_authors(case: Case) -> None:
    model, clip = classifier(case), stmae_colours(case.tensors["input/video"])
    last = model.config.encoder.depth
    encoded = model.encoder(clip, layers=range(1, last + 1))
    for block, tokens in encoded.layers.items():
        whole = with_cls_token(tokens, encoded.cls_layers[block])
        case.hold_each(whole, f"out/block{block - 1}", "out")
    case.hold_each(whole, "out/block_last", "out")
    case.hold_each(whole[:, 1:].mean(dim=1), "out/pooled", "out")
    hold_classifier(case, model, clip, build_stmae_classifier_rules(model.config.encoder))


@dataclass(frozen=True, kw_only=True)
class Stored(MixupCutmix):
    """Gives the clips and labels that the authors' code mixed."""

    clip: Tensor
    target: Tensor

    def apply(self, *_: Any) -> tuple[Tensor, Tensor]:
        return self.clip, self.target


@pytest.mark.parametrize("case", cases(method="st_mae", kind="training_steps"))
def test_steps_agree_with_st_maes_authors(case: Case) -> None:
    (hold_finetuning if "num_classes" in case.json["config"] else hold_pretraining)(case)


def flatten(batch: Tensor) -> Tensor:
    """A batch's videos × repeats as so many clips, or labels."""
    return batch.flatten(0, 1) if batch.ndim in (2, 6) else batch


def hold_pretraining(case: Case) -> None:
    config, method = case.json["config"], stmae(case)
    # released: only biases and what has one dimension there are not decayed
    optim = AdamWConfig(base_lr=1.0, betas=(0.9, 0.95), weight_decay=config["weight_decay"], no_weight_decay=())

    def loss(step: int) -> Tensor:
        clip = flatten(case.tensors[f"input/video_{step}"])
        return method(stmae_colours(clip), mask=mask_by(case.tensors[f"mask/noise_{step}"], config["mask_ratio"])).loss

    hold_steps(case, method, optim, loss, case.json["lr"], names_of(method.config), method)


def hold_finetuning(case: Case) -> None:
    config, model = case.json["config"], classifier(case)
    smoothing = (config.get("mixup") or config).get("label_smoothing", 0.0)
    task = ClassificationTask(model, mixup=None, random_erasing=None, label_smoothing=smoothing)
    optim = AdamWConfig(base_lr=1.0, weight_decay=config["weight_decay"], layer_decay=config.get("layer_decay"))

    def loss(step: int) -> Tensor:
        clip, label = (
            stmae_colours(flatten(case.tensors[f"input/video_{step}"])),
            flatten(case.tensors[f"input/labels_{step}"]),
        )
        if f"out/mixed_video_{step}" in case.tensors:
            case.leave_to_others(f"out/mixed_video_{step}", f"out/mixed_targets_{step}")  # here, inputs
            mixed, target = case.tensors[f"out/mixed_video_{step}"], case.tensors[f"out/mixed_targets_{step}"]
            task.mixup = Stored(clip=stmae_colours(mixed), target=target)
        return task(clip, label, torch.zeros_like(label)).loss

    rates = [max(of_groups) for of_groups in case.json["lr_per_group"]]
    optimizer = optim.build(task)
    for rate, of_groups in zip(rates, case.json["lr_per_group"], strict=True):
        result = sorted(rate * group["lr_scale"] for group in optimizer.param_groups)
        assert result == pytest.approx(sorted(of_groups), rel=case.json["tolerance"]["lr"]["rtol"], abs=0)
    hold_steps(case, task, optim, loss, rates, build_stmae_classifier_rules(model.config.encoder), model)


def hold_steps(
    case: Case,
    task: nn.Module,
    optim: AdamWConfig,
    loss: Any,
    rates: list[float],
    names: tuple[RenameRule, ...],
    model: Any,
) -> None:
    """Every loss, gradient norm and last weight; a group of micro-steps is a step, at its first one's rate."""
    config = case.json["config"]
    task.train()
    optimizer, runtime = optim.build(task), Runtime("fp32")
    every = config.get("accum_iter", 1)
    for first in range(0, config["steps"], every):
        group = range(first, min(first + every, config["steps"]))
        losses = [loss(step) for step in group]
        for step, output in zip(group, losses, strict=True):
            case.hold_loss(output, f"step{step}")
        if len(losses) < every:  # what is left over is no step
            break
        norm = take_step(optimizer, runtime, task, torch.stack(losses).mean(), rates[first], config.get("clip_grad"))
        case.hold_number(norm, "grad_norm_before_clipping", group[-1], kind="grad_norm")

    hold_final(case, to_foreign(model.state_dict(), names))


@pytest.mark.parametrize("case", cases(method="st_mae", kind="initialisation"))
def test_new_models_start_as_st_maes_authors_do(case: Case) -> None:
    torch.manual_seed(0)
    settings, statistics = case.json["config"], case.json["statistics"]
    config = stmae_config(settings["pretrain"])
    method = config.build()
    hold_statistics(case, statistics["pretrain"], to_foreign(method.state_dict(), names_of(config)))
    encoder = stmae_encoder_config(settings["finetune"])
    classes = statistics["finetune"]["head.bias"]["shape"][0]
    model = ClassifierConfig(encoder=encoder, num_classes=classes, weight_init="torch", head_init_scale=1.0).build()
    hold_statistics(case, statistics["finetune"], to_foreign(model.state_dict(), build_stmae_classifier_rules(encoder)))


@pytest.mark.parametrize("case", cases(method="st_mae", kind="checkpoint_conversion"))
def test_weights_of_images_are_inflated_as_the_authors_do(case: Case) -> None:
    case.leave_to_others("out/convert/", "out/interp_", "out/logits", "input/")
    reference = case.under("input/inflate")
    if not reference:
        pytest.skip(f"{case.name} inflates nothing")
    dim, _, p, q = reference["patch_embed.proj.weight"].shape
    side = int((reference["pos_embed"].shape[1] - 1) ** 0.5)
    if (kernel := "out/inflate/patch_embed.proj.weight") not in case.tensors:
        pytest.skip(f"{case.name} does not store the kernel, which alone says how many frames it has")
    frames = case.tensors[kernel].shape[2]
    image = ViTConfig(
        dim=dim, depth=1, heads=1, tubelet=(1, p, q), positions="learned", learned_grid=(1, side, side),
        class_token=True, attention_bias="qkv",
    )  # fmt: skip
    clips = ViTConfig(
        dim=dim, depth=1, heads=1, tubelet=(frames, p, q), positions="separable", learned_grid=(8, side, side),
        class_token=True, attention_bias="qkv",
    )  # fmt: skip
    result = translate_state_dict(reference, build_classifier_rules(image))
    result = inflate_encoder({name.removeprefix("encoder."): tensor for name, tensor in result.items()}, image, clips)
    assert not result["positions.time"].any()
    output = to_foreign(
        {f"encoder.{name}": tensor for name, tensor in result.items()}, build_stmae_classifier_rules(clips)
    )
    foreign_names = {"pos_embed_spatial": "pos_embed", "pos_embed_class": "pos_embed_cls"}  # mae_st's, of ours
    output = {foreign_names.get(name, name): tensor for name, tensor in output.items() if name != "pos_embed_temporal"}
    case.hold_under("out/inflate", output, "out", whole=False)


@pytest.mark.parametrize("case", cases(method="st_mae", kind="checkpoint_conversion"))
def test_an_older_word_for_the_head_is_read(case: Case) -> None:
    case.leave_to_others("out/inflate/", "out/interp_", "out/logits", "input/")
    reference = case.under("input/convert")
    if not reference:
        pytest.skip(f"{case.name} renames nothing")
    (dim, _) = reference["blocks.0.attn.q.weight"].shape
    others = {f"blocks.0.attn.{letter}.weight": torch.zeros(dim, dim) for letter in "kv"}  # without which it is no file
    encoder = ViTConfig(dim=dim, depth=1, heads=1, class_token=True, attention_bias="qkv")
    names = build_stmae_classifier_rules(encoder)
    output = to_foreign(translate_state_dict(reference | others, names), names)
    case.hold_under("out/convert", output, "out", whole=False)


@pytest.mark.parametrize("case", cases(method="st_mae", kind="checkpoint_conversion"))
def test_a_fine_tuning_goes_on_from_the_authors_pre_training(case: Case) -> None:
    case.leave_to_others("out/inflate/", "out/convert/", "out/interp_", "input/")
    if not (stored := case.json.get("pretrain_to_finetune")):
        pytest.skip(f"{case.name} goes on from nothing")
    encoder, reference = stmae_encoder_config(stored["config"]), case.under("input/pretrained")
    names = build_stmae_classifier_rules(encoder)
    head = {"head.weight": case.tensors["input/head.weight"], "head.bias": case.tensors["input/head.bias"]}
    config = ClassifierConfig(encoder=encoder, num_classes=len(head["head.bias"]), norm="pretrained")
    model = config.build().eval()
    sevens = {name: torch.full_like(tensor, 7.0) for name, tensor in reference.items()}  # a number that no start has
    init_encoder(model.encoder, import_checkpoint(Checkpoint(sevens), encoder)[0], encoder, head_norm=model.norm)
    output = to_foreign(model.state_dict(), names)
    moved = {name for name, tensor in output.items() if (tensor == 7.0).all()}
    assert sorted(output.keys() - moved) == stored["missing_keys"]
    assert sorted(reference.keys() - moved) == stored["unexpected_keys"]

    init_encoder(model.encoder, import_checkpoint(Checkpoint(reference), encoder)[0], encoder, head_norm=model.norm)
    load_state_dict_strict(model.head, {name.removeprefix("head."): tensor for name, tensor in head.items()}, case.name)
    case.hold_each(model(stmae_colours(case.tensors["input/video"])), "out/logits", "out/logits")
