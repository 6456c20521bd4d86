"""Image MAE and its classifier agree with their authors: every stored output, loss, gradient, step and table."""

import pytest
import torch
import torch.nn.functional as F
from foreign_layout import to_foreign, translate_state_dict
from reference_cases import Case, cases
from reference_mae import (
    clip,
    decoder_config,
    encoder_config,
    hold_gradients,
    hold_statistics,
    hold_steps,
    imagemae,
    picture,
    predictions,
    stored_mask,
)

from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.rename import build_classifier_rules
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.methods.common.targets import compute_pixel_target
from vidstill.methods.imagemae import ImageMAEConfig
from vidstill.models.position_embeddings import build_position_table, build_sincos_1d, resize_position_table
from vidstill.tasks.classification import Classifier, ClassifierConfig
from vidstill.utils.types import Grid

pytestmark = pytest.mark.reference


@pytest.mark.parametrize("case", cases(method="image_mae", kind="pretrain_forward"))
def test_image_mae_agrees_with_its_authors(case: Case) -> None:
    method = imagemae(case.json["config"], case.under("weights"), case.name)
    image, mask, encoder = clip(case), stored_mask(case), method.encoder
    grid = encoder.grid(image)
    everything = torch.arange(grid.num_tokens).expand(len(image), -1)

    case.hold_each(encoder.embed_tokens(image) - encoder.positions(grid, image.device), "out/patch_embed", "out")
    seen = encoder(image, case.tensors["mask/ids_keep"])  # in their order
    case.hold_each(torch.cat([seen.cls_token, seen.tokens], dim=1), "out/latent", "out")
    rebuilt = predictions(method, image, mask)
    case.hold_each(rebuilt, "out/pred", "out")
    case.hold_each(picture(rebuilt, grid, case.json["config"]["patch_size"]), "out/pred_image", "out")
    case.hold_each(compute_pixel_target(image, encoder.config, everything, method.config.target), "out/target", "out")

    output = method(image, mask=mask)
    output.loss.backward()
    case.hold_each(output.loss.detach()[None], "loss", "loss")
    case.hold_each(output.parts["reconstruction"].detach(), torch.tensor(case.json["losses"]["loss"]), "loss")
    hold_gradients(case, method, build_mae_rules(encoder.config))


@pytest.mark.parametrize("case", cases(method="image_mae", kind="training_steps"))
def test_steps_of_pre_training_agree_with_image_maes_authors(case: Case) -> None:
    hold_steps(case, imagemae(case.json["config"], case.under("weights"), case.name))


@pytest.mark.parametrize("case", cases(method="image_mae", kind="finetune_forward"))
def test_the_classifier_agrees_with_image_maes_authors(case: Case) -> None:
    config = case.json["config"]
    ours = ClassifierConfig(
        encoder=encoder_config(config, learned=True),
        num_classes=config["num_classes"],
        pooling="mean" if config["global_pool"] else "first",
    )
    model: Classifier = ours.build().train(config["mode"] == "train")
    names = build_classifier_rules(ours.encoder)
    load_state_dict_strict(model, translate_state_dict(case.under("weights"), names), case.name)
    assert [block.drop_path for block in model.encoder.blocks] == config["drop_path_per_block"]

    image, label = clip(case), case.tensors["input/labels"]
    case.hold_each(model.forward_features(image), "out/feature", "out")
    logits = model(image)
    case.hold_each(logits, "out/logits", "out")
    plain = F.cross_entropy(logits, label)
    smooth = F.cross_entropy(logits, label, label_smoothing=config["label_smoothing"])
    case.hold_each(plain.detach(), torch.tensor(case.json["losses"]["ce"]), "loss")
    case.hold_each(smooth.detach(), torch.tensor(case.json["losses"]["label_smoothing_ce"]), "loss")
    case.hold_each(smooth.detach()[None], "loss", "loss")
    smooth.backward()
    hold_gradients(case, model, names)


@pytest.mark.parametrize("case", cases(method="image_mae", kind="initialisation"))
def test_new_models_start_as_image_maes_authors_do(case: Case) -> None:
    settings, statistics = case.json["config"], case.json["statistics"]
    torch.manual_seed(0)
    method = ImageMAEConfig(
        encoder=encoder_config(settings["pretrain"]), decoder=decoder_config(settings["pretrain"])
    ).build()
    classes = statistics["finetune"]["head.bias"]["shape"][0]
    tuned = ClassifierConfig(
        encoder=encoder_config(settings["finetune"], learned=True), num_classes=classes, head_init_scale=1.0
    )
    trained = {name: each for name, each in statistics["pretrain"].items() if "pos_embed" not in name}  # held below
    hold_statistics(case, trained, to_foreign(method.state_dict(), build_mae_rules(method.config.encoder)))
    names = build_classifier_rules(tuned.encoder)
    hold_statistics(case, statistics["finetune"], to_foreign(tuned.build().state_dict(), names))


@pytest.mark.parametrize("case", cases(method="image_mae", kind="sincos_pos_embed"))
def test_computed_position_codes_are_image_maes(case: Case) -> None:
    for entry in case.json["entries"]:
        grid, dim = Grid(1, entry["grid"], entry["grid"]), entry["dim"]
        table = build_position_table("sincos2d", grid, dim, torch.device("cpu"))
        first = [torch.zeros(1, dim)] if entry["class_token"] else []
        case.hold_each(torch.cat([*first, table]), f"out/table_{entry['index']}", "out")
        assert table.double().sum().item() == pytest.approx(entry["float64_sum"], abs=1e-6 * table.numel())
        corner = table[-1].double()[: len(entry["float64_corner"])]
        case.hold_each(corner, torch.tensor(entry["float64_corner"], dtype=torch.float64), "out")
    line = case.json["one_d"]
    whole = [place for place, at in enumerate(line["positions"]) if at == int(at)]  # ours are of whole places
    table = build_sincos_1d(1 + int(max(line["positions"])), line["dim"]).float()
    rows = torch.tensor([int(line["positions"][place]) for place in whole])
    case.hold_each(table[rows], case.tensors["out/table_1d"][whole], "out")


@pytest.mark.parametrize("case", cases(method="image_mae", kind="pos_embed_interpolation"))
def test_learned_position_codes_are_resized_as_image_maes(case: Case) -> None:
    for entry in case.json["entries"]:
        theirs, cut = case.tensors[f"input/pos_embed_{entry['index']}"][0], entry["extra_tokens"]
        old, new = (Grid(1, entry[side], entry[side]) for side in ("grid_from", "grid_to"))
        resized = torch.cat([theirs[:cut], resize_position_table(theirs[cut:], old, new)])
        case.hold_each(resized[None], f"out/pos_embed_{entry['index']}", "out")
