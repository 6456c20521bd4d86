"""What a model costs, against formulas worked out by hand."""

from dataclasses import replace

import pytest

from vidstill.methods.common.masking import RandomMask
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.dmae import DMAEConfig
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE, SMALL, ViTConfig
from vidstill.tasks.classification import ClassificationTask, ClassifierConfig
from vidstill.utils.flops import compute_model_cost, count_training_multiply_adds


def products(model: ViTConfig, *, tokens: int, pixels: int) -> int:
    """Multiply-adds of a plain ViT: q, k, v, projection and MLP are 12 d² a token, attention 2 n d a token."""
    return model.depth * (12 * tokens * model.dim**2 + 2 * tokens**2 * model.dim) + tokens * model.dim * pixels


@pytest.mark.parametrize(("model", "parameters", "gflops"), [(SMALL, 22_033_936, 57), (BASE, 86_534_800, 180)])
def test_a_classifier_costs_what_the_papers_say(model, parameters, gflops):
    cost = compute_model_cost(ClassifierConfig(encoder=model, num_classes=400), num_frames=16, size=(224, 224))
    assert cost.num_parameters == parameters
    assert cost.gflops == pytest.approx(gflops, rel=5e-3)
    assert cost.multiply_adds == pytest.approx(products(model, tokens=1568, pixels=1536), rel=1e-4)


def test_every_token_pays_for_the_attention_to_all_others():
    model = ViTConfig(dim=24, depth=2, heads=2, tubelet=(2, 4, 4))
    short, long = (compute_model_cost(model, num_frames=frames, size=(16, 8)).multiply_adds for frames in (4, 40))
    assert short == products(model, tokens=16, pixels=96)
    assert long == products(model, tokens=160, pixels=96)


def test_what_a_model_learns_besides_its_layers_is_counted_too():
    fixed = ViTConfig(dim=24, depth=2, heads=2, tubelet=(2, 4, 4))
    learned = replace(fixed, positions="learned", learned_grid=(2, 4, 2), class_token=True)
    one, other = (compute_model_cost(model, num_frames=4, size=(16, 8)) for model in (fixed, learned))
    assert other.num_parameters == one.num_parameters + (16 + 2) * 24  # 16 positions; the class token and its own
    assert other.multiply_adds == 2 * (12 * 17 * 24**2 + 2 * 17**2 * 24) + 16 * 24 * 96


def test_nothing_is_stored_for_a_model_that_no_memory_holds():
    vast = ViTConfig(dim=65536, depth=16, heads=64)
    assert compute_model_cost(vast, num_frames=2, size=(16, 16)).parameter_millions > 800_000


def test_a_training_step_costs_three_times_the_forward_pass_but_for_the_pixels_gradient():
    model = ViTConfig(dim=24, depth=2, heads=2, tubelet=(2, 4, 4))

    def build() -> ClassificationTask:
        classifier = ClassifierConfig(encoder=model, num_classes=5).build()
        return ClassificationTask(classifier, mixup=None, random_erasing=None, label_smoothing=0.0)

    cost = count_training_multiply_adds(build, num_frames=4, size=(16, 8))
    forward = products(model, tokens=16, pixels=96) + 24 * 5
    assert cost == 3 * forward - 16 * 24 * 96


def test_a_frozen_teacher_costs_its_forward_pass():
    student, teacher = (ViTConfig(dim=dim, depth=2, heads=2, tubelet=(2, 4, 4)) for dim in (24, 48))
    decoder, mask, size = DecoderConfig(dim=24, depth=1, heads=2), RandomMask(ratio=0.5), (16, 8)
    plain = VideoMAEConfig(encoder=student, decoder=decoder, mask=mask)
    distilled = DMAEConfig(
        encoder=student,
        decoder=decoder,
        mask=mask,
        teacher=TeacherConfig(model=teacher),
        layer_pairs=((2, 2),),
        align_class_token=False,
    )
    costs = [count_training_multiply_adds(each.build, num_frames=4, size=size) for each in (plain, distilled)]
    assert costs[1] - costs[0] == products(teacher, tokens=8, pixels=96) + 3 * 8 * 24 * 48  # and the projection
