"""The reference tests hold cases of other settings, with less in them than the stored ones, and miss no difference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_data_tables
import test_mae_cases
import test_model_cases
import test_mvd_cases
import test_st_mae
import torch
from changed_cases import Hold, RecordedCase, Settings, copy_case, hold_whole
from reference_cases import RESULTS, load_cases
from test_import_cases import HELD
from torch import Tensor

pytestmark = pytest.mark.reference

EVERY = [
    pytest.param(hold, each.values, id=each.id, marks=each.marks)
    for hold, arguments in HELD.items()
    for each in arguments
]
ONE_PER_TEST = [pytest.param(hold, each.values, id=each.id, marks=each.marks) for hold, (each, *_) in HELD.items()]


# ---- Less than the stored cases have --------------------------------------------------------------------------------


@pytest.mark.parametrize(("hold", "arguments"), EVERY)
def test_a_case_may_store_its_gradients_alone(hold: Hold, arguments: tuple[Any, ...], tmp_path: Path) -> None:
    case, *others = arguments
    prefixes = tuple(prefix for prefix in RESULTS if prefix != "grad")
    tensors = {name: tensor for name, tensor in case.tensors.data.items() if not name.startswith(prefixes)}
    hold_whole(hold, copy_case(tmp_path, case, tensors, without=("losses", "grad_norms", "informational")), *others)


@pytest.mark.parametrize(("hold", "arguments"), ONE_PER_TEST)
def test_a_result_that_differs_is_noticed(hold: Hold, arguments: tuple[Any, ...], tmp_path: Path) -> None:
    case, *others = arguments
    names = [name for name in case.tensors.data if name.startswith(RESULTS) and case.tensors.data[name].abs().max() > 0]
    for prefix in sorted({name.split("/")[0] for name in names}):
        name = next(name for name in names if name.split("/")[0] == prefix)
        tensors = {**case.tensors.data, name: case.tensors.data[name] * 1.01}
        with pytest.raises(AssertionError):
            hold_whole(hold, copy_case(tmp_path, case, tensors), *others)


@pytest.mark.parametrize(("hold", "arguments"), ONE_PER_TEST)
def test_a_tensor_that_no_test_reads_is_noticed(hold: Hold, arguments: tuple[Any, ...], tmp_path: Path) -> None:
    case, *others = arguments
    for name in ("out/more", "input/more"):
        changed = copy_case(tmp_path, case, {**case.tensors.data, name: torch.zeros(1)})
        with pytest.raises(AssertionError, match=f"stores \\['{name}'\\], which this test does not hold"):
            hold_whole(hold, changed, *others)


# ---- Other settings -------------------------------------------------------------------------------------------------


def draw_tubes(count: int, total: int, batch: int, slots: int) -> Tensor:
    """Which tokens are hidden: `count` of the `total` places, the same in every slot."""
    hidden = torch.stack([torch.randperm(total) < count for _ in range(batch)]).repeat(1, slots)
    return hidden.to(torch.uint8)


def draw_clip_inputs(config: Settings) -> dict[str, Tensor]:
    """Of VideoMAE's, MVD's and AMD's cases: a clip, and its masks or labels."""
    models = [config[name] for name in ("student", "teacher") if name in config] or [config]
    args, batch = models[0]["args"], config["batch"]
    frames, side = config.get("num_frames", args.get("all_frames")), args["img_size"] // args["patch_size"]
    slots, places = frames // args["tubelet_size"], side**2
    inputs = {"input/video": torch.randn(batch, 3, frames, args["img_size"], args["img_size"])}
    if "num_classes" in args:
        return {**inputs, "input/label": torch.arange(batch) % args["num_classes"]}
    if "mask_ratio_student" not in config:
        return {**inputs, "input/mask": draw_tubes(int(config.get("mask_ratio", 0.75) * places), places, batch, slots)}
    order = torch.stack([torch.randperm(places) for _ in range(batch)])
    hidden, never = (
        (order < int(config[f"mask_ratio_{name}"] * places)).repeat(1, slots).to(torch.uint8)
        for name in ("student", "teacher")
    )
    return {**inputs, "input/mask_student": hidden, "input/mask_teacher": never, "input/mask_diff": hidden - never}


def draw_mae_inputs(config: Settings) -> dict[str, Tensor]:
    """Of image MAE's, DMAE's and ST-MAE's cases: an image or a clip, and a mask's noise or labels."""
    settings = {**config.get("common", {}), **config}
    batch, side, frames = settings["batch"], settings["img_size"], settings.get("num_frames")
    name, shape = ("image", (side, side)) if frames is None else ("video", (frames, side, side))
    inputs = {f"input/{name}": torch.randn(batch, 3, *shape)}
    if "num_classes" in settings:
        return {**inputs, "input/labels": torch.arange(batch) % settings["num_classes"]}
    tokens = (side // settings["patch_size"]) ** 2 * (1 if frames is None else frames // settings["t_patch_size"])
    return {**inputs, "mask/noise": torch.rand(batch, tokens)}


VIDEOMAE = test_model_cases.test_videomae_agrees_with_its_authors
VIDEOMAE_TUNED = test_model_cases.test_the_classifier_agrees_with_videomaes_authors
AMD = test_model_cases.test_amd_agrees_with_its_authors
MVD = test_mvd_cases.test_a_distillation_agrees_with_mvds_authors
MVD_TUNED = test_mvd_cases.test_the_classifier_agrees_with_mvds_authors
MAE = test_mae_cases.test_image_mae_agrees_with_its_authors
MAE_TUNED = test_mae_cases.test_the_classifier_agrees_with_image_maes_authors
DMAE = test_mae_cases.test_dmae_agrees_with_its_authors
ST_MAE = test_st_mae.test_st_mae_agrees_with_its_authors
ST_MAE_TUNED = test_st_mae.test_the_classifier_agrees_with_st_maes_authors

OTHER_SETTINGS: dict[str, tuple[str, Hold, Settings]] = {
    "one temporal token, odd sizes": ("videomae/pretrain_raw_layerscale", VIDEOMAE, {
        "num_frames": 2, "args.img_size": 40, "args.patch_size": 8, "args.decoder_num_classes": 384,
        "args.init_values": 0.0, "args.qkv_bias": False, "args.decoder_depth": 3, "batch": 2, "normalize_target": True,
    }),
    "tokens of one frame": ("videomae/pretrain_raw_layerscale", VIDEOMAE, {
        "num_frames": 3, "args.tubelet_size": 1, "args.mlp_ratio": 2.0, "args.decoder_depth": 1,
    }),
    "no smoothing, first token, no biases": ("videomae/finetune_meanpool", VIDEOMAE_TUNED, {
        "label_smoothing": 0.0, "args.use_mean_pooling": False, "args.qkv_bias": False, "args.all_frames": 2,
    }),
    "learned positions of an odd grid": ("videomae/finetune_meanpool", VIDEOMAE_TUNED, {
        "args.use_learnable_pos_emb": True, "args.img_size": 40, "args.depth": 1,
    }),
    "a teacher that is deeper than what is wanted": ("amd/serial_last_layer_l1", AMD, {
        "teacher.args.depth": 5, "student_layers": {"direct": [1, 2, 3], "generation": [2]},
        "teacher_layers": {"direct": [1, 2, 4], "generation": [1]}, "align_loss": "sml1",
    }),
    "a wide teacher, one temporal token, a loss that is off": ("amd/serial_last_layer_l1", AMD, {
        "teacher.args.embed_dim": 128, "generator_heads": 2, "num_frames": 2, "student.args.generator_depth": 1,
        "factors": {"reconstruction": 0, "direct": 1, "generation": 0.5}, "normalize_target": True,
    }),
    "a student with a class token": ("mvd/distill_all_frames", MVD, {
        "student.args.use_cls_token": True, "image_loss": "L1", "video_loss": "L2", "image_loss_weight": 0.0,
        "student.args.feat_decoder_embed_dim": None, "student.args.feat_decoder_num_heads": None,
        "image_teacher_frames": "every tubelet_size-th frame, starting at 0",
    }),
    "no image teacher": ("mvd/distill_all_frames", MVD, {"teacher_image": None, "normalize_teacher_features": True}),
    "no video teacher, one temporal token": ("mvd/distill_all_frames", MVD, {"teacher_video": None, "num_frames": 2}),
    "a class token": ("mvd/finetune_meanpool", MVD_TUNED, {"args.use_cls_token": True, "batch": 3}),
    "a class token in the head": ("mvd/finetune_meanpool", MVD_TUNED, {
        "args.use_cls_token": True, "args.use_mean_pooling": False, "args.init_values": 0.1,
    }),
    "learned positions and a class token": ("mvd/finetune_meanpool", MVD_TUNED, {
        "args.use_cls_token": True, "args.use_learnable_pos_emb": True,
    }),
    "another mask ratio, a deep decoder": ("image_mae/pretrain_pixel", MAE, {
        "img_size": 56, "mask_ratio": 0.9, "decoder_depth": 3, "batch": 1,
    }),
    "no smoothing": ("image_mae/finetune_global_pool", MAE_TUNED, {"label_smoothing": 0.0, "depth": 1,
        "drop_path_per_block": [0.0], "global_pool": False}),
    "no drop path, smoothing": ("image_mae/finetune_cls", MAE_TUNED, {"drop_path_rate": 0.0,
        "drop_path_per_block": [0.0, 0.0], "global_pool": True}),
    "no projection, squares": ("dmae/distill_l1_same_width", DMAE, {
        "student_blocks": [0, 1], "teacher_blocks": [0, 2], "distance": "L2", "mask_ratio": 0.5,
    }),
    "one temporal token, no class token": ("st_mae/pretrain_sep_cls_norm", ST_MAE, {
        "num_frames": 4, "t_patch_size": 4, "pred_t_dim": 2, "cls_embed": False, "input_size": [1, 2, 2],
        "t_pred_patch_size": 2, "target_frames": [0, 3], "mask_ratio": 0.5, "decoder_depth": 1,
    }),
    "a joint table, no class token, no biases": ("st_mae/finetune_joint_cls", ST_MAE_TUNED, {
        "cls_embed": False, "no_qkv_bias": True, "depth": 1, "drop_path_per_block": [0.0], "num_classes": 3,
    }),
    "separate tables, an odd grid": ("st_mae/finetune_joint_cls", ST_MAE_TUNED, {
        "sep_pos_embed": True, "img_size": 40, "label_smoothing": 0.0, "num_frames": 2,
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_a_case_of_other_settings_is_held(name: str, tmp_path: Path) -> None:
    key, hold, changes = OTHER_SETTINGS[name]
    case = load_cases().get(key) or load_cases().get(f"committed/{key}")
    if case is None:
        pytest.skip(f"the case {key}, whose settings are changed, is not here")
    draw: Callable[[Settings], dict[str, Tensor]] = draw_clip_inputs
    if case.method in ("image_mae", "dmae", "st_mae"):
        draw = draw_mae_inputs
    recorded = RecordedCase(case.path, changes, draw).record(hold, tmp_path)
    assert any(tensor_name.startswith("grad/") for tensor_name in recorded.tensors.data)
    hold_whole(hold, recorded)


VIDEOMAE_STEPS = test_model_cases.test_pretraining_steps_agree_with_videomaes_authors
VIDEOMAE_TUNING_STEPS = test_model_cases.test_fine_tuning_steps_agree_with_videomaes_authors
MAE_STEPS = test_mae_cases.test_steps_of_pre_training_agree_with_image_maes_authors
DMAE_STEPS = test_mae_cases.test_steps_of_distillation_agree_with_dmaes_authors
ST_MAE_STEPS = test_st_mae.test_steps_agree_with_st_maes_authors

MIXUP = test_data_tables.test_clips_and_labels_are_mixed_as_the_authors_mix_them
PROBE = test_mae_cases.test_a_linear_probe_learns_what_its_authors_learns

OTHER_STEPS: dict[str, tuple[str, Hold, Settings]] = {
    "no clipping": ("videomae/pretrain_steps", VIDEOMAE_STEPS, {"clip_grad_norm": None, "normalize_target": False}),
    "one rate for all layers": ("videomae/finetune_steps", VIDEOMAE_TUNING_STEPS, {
        "layer_decay": None, "label_smoothing": 0.0, "clip_grad_norm": 1.0,
    }),
    "pixels": ("image_mae/pretrain_steps", MAE_STEPS, {"norm_pix_loss": False, "weight_decay": 0.0}),
    "a frozen decoder": ("dmae/distill_steps", DMAE_STEPS, {"freeze_keywords": ["decoder"], "distance": "L2"}),
    "no mixup": ("st_mae/finetune_steps", ST_MAE_STEPS, {"mixup": None, "label_smoothing": 0.2, "clip_grad": None}),
    "neither mixup nor smoothing": ("st_mae/finetune_steps", ST_MAE_STEPS, {"mixup": None, "sep_pos_embed": False}),
    "a draw for each image": ("image_mae/mixup_cutmix", MIXUP, {"mode": "elem"}),
    "a draw for each pair": ("image_mae/mixup_cutmix", MIXUP, {"mode": "pair", "cutmix_alpha": 0.5}),
    "a probe of the mean": ("image_mae/linear_probe", PROBE, {"global_pool": True, "weight_decay": 0.1}),
    "two batches a step": ("st_mae/pretrain_steps", ST_MAE_STEPS, {"accum_iter": 2, "clip_grad": None}),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_STEPS)
def test_steps_of_other_settings_are_held(name: str, tmp_path: Path) -> None:
    key, hold, changes = OTHER_STEPS[name]
    case = load_cases().get(key) or load_cases().get(f"committed/{key}")
    if case is None:
        pytest.skip(f"the case {key}, whose settings are changed, is not here")
    inputs = {name: tensor for name, tensor in case.tensors.data.items() if name.startswith(("input/", "mask/"))}
    hold_whole(hold, RecordedCase(case.path, changes, lambda config: inputs).record(hold, tmp_path))
