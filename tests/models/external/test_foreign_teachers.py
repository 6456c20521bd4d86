"""Teachers of other libraries give the features of their blocks, token by token, as the libraries themselves do."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file, save_file
from teachers_of_others import PREFIX, SIZES, library, save, save_timm
from tiny_models import clips
from torch import Tensor, nn

from vidstill.methods.common.teacher import FrozenTeacher, extract_features
from vidstill.models.external.base import ExternalEncoder
from vidstill.models.external.registry import is_external_encoder, load_external_encoder
from vidstill.utils.types import Grid, InputError

KINDS = (*PREFIX, "timm")
VIDEO_KINDS = ("vjepa2", "videomae")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    """Each kind's name on the command line."""
    library("transformers"), library("timm")
    folder = tmp_path_factory.mktemp("teachers")
    named = {kind: f"transformers:{save(kind, folder / kind)}" for kind in PREFIX}
    return named | {"timm": f"timm:test_vit@{save_timm(folder / 'vit.safetensors')}"}


@pytest.fixture(scope="module")
def teachers(sources) -> dict[str, ExternalEncoder]:
    return {kind: load(source) for kind, source in sources.items()}


def load(source: str, **options) -> ExternalEncoder:
    file = source.partition("@")[2]
    return load_external_encoder(source, load_file(file) if file else None, **options)


def draw_clip(teacher: ExternalEncoder, rows: int = 4, columns: int = 3) -> tuple[Tensor, Grid]:
    """Clips of 4 frames for a teacher of clips, images for others; of that many tokens."""
    t, h, w = teacher.config.tubelet
    steps = 2 if t > 1 else 1
    return clips(frames=t * steps, rows=h * rows, columns=w * columns), Grid(steps, rows, columns)


def normalize(teacher: ExternalEncoder, clip: Tensor) -> Tensor:
    return (clip - teacher.mean[:, None, None, None]) / teacher.std[:, None, None, None]


@torch.no_grad()
def run_library(kind: str, source: str, teacher: ExternalEncoder, clip: Tensor) -> list[Tensor]:
    """What the library itself gives for each block, class and register tokens with it."""
    pixels = normalize(teacher, clip)
    if kind == "timm":
        model = library("timm").create_model("test_vit", dynamic_img_size=True).eval()
        model.load_state_dict(load_file(source.partition("@")[2]))
        options = {"norm": False, "output_fmt": "NLC", "intermediates_only": True, "return_prefix_tokens": True}
        outputs = model.forward_intermediates(pixels[:, :, 0], **options)
        return [torch.cat([prefix, tokens], dim=1) for tokens, prefix in outputs]
    names = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}
    options = dict.fromkeys(
        {"vjepa2": ["skip_predictor"]}.get(kind, ["interpolate_pos_encoding"] * (kind in names)), True
    )
    model = getattr(library("transformers"), names.get(kind, "AutoModel")).from_pretrained(source.partition(":")[2])
    frames = rearrange(pixels, "b c t h w -> b t c h w") if kind in VIDEO_KINDS else pixels[:, :, 0]
    return list(model(frames, output_hidden_states=True, **options).hidden_states[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_each_block_gives_what_the_library_gives_but_for_class_and_register_tokens(kind, sources, teachers):
    teacher = teachers[kind]
    sides = (4, 4) if kind in VIDEO_KINDS else (4, 3)  # of these, the library takes clips of the model's own size alone
    clip, grid = draw_clip(teacher, *sides)
    layers = range(1, teacher.config.depth + 1)
    features, prefix = teacher(clip, layers=layers).layers, PREFIX.get(kind, 1)
    for layer, expected in zip(layers, run_library(kind, sources[kind], teacher, clip), strict=True):
        assert expected.shape[1] == prefix + grid.num_tokens
        torch.testing.assert_close(features[layer], expected[:, prefix:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind, tokens in PREFIX.items() if tokens])
def test_class_and_register_tokens_are_dropped(kind, sources):
    teacher, suffixes = load(sources[kind]), ("cls_token", "register_tokens", "class_embedding")
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if name.endswith(suffixes):
                parameter[..., 0] = 1e6
    clip, grid = draw_clip(teacher)
    inputs: list[Tensor] = []
    teacher.blocks[0].register_forward_pre_hook(lambda block, args: inputs.append(args[0]))
    features = teacher(clip, layers=(1,)).layers[1]
    high = inputs[0][..., 0] > 4  # CLIP's are normalized on their way in
    assert high.sum(dim=1).tolist() == [PREFIX[kind]] * 2
    assert features.shape == (2, grid.num_tokens, 24)
    assert features[..., 0].amax() < 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_bright_patch_changes_its_own_token_most(kind, teachers):
    teacher = FrozenTeacher(teachers[kind])
    t, h, w = teachers[kind].config.tubelet
    dark = torch.zeros(1, 3, 4, 4 * h, 3 * w)
    bright, steps = dark.clone(), 2 if t > 1 else 4
    first = 2  # the frame that a step begins with
    bright[:, :, first : first + 2, 3 * h : 4 * h, w : 2 * w] = 1
    grid = Grid(steps, 4, 3)
    change = (extract_features(teacher, bright, grid) - extract_features(teacher, dark, grid)).norm(dim=-1)[0]
    token = (first // (4 // steps)) * 12 + 3 * 3 + 1
    assert change.argmax() == token or (t == 1 and change.argmax() == token + 12)  # both frames are bright
    assert change[token] > 2 * change.median()


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_reads_only_the_visible_tokens(kind, teachers):
    teacher = teachers[kind]
    clip, grid = draw_clip(teacher)
    last = teacher.config.depth
    order = torch.randperm(grid.num_tokens, generator=torch.Generator().manual_seed(0)).expand(2, -1)
    every = teacher(clip, layers=(last,)).layers[last]
    shuffled = teacher(clip, order, layers=(last,)).layers[last]
    torch.testing.assert_close(shuffled, every[:, order[0]], rtol=1e-4, atol=1e-5)
    visible, hidden = order[:, :5], order[0, 5:]
    t, h, w = teacher.config.tubelet
    changed = rearrange(clip, "b c (gt t) (gh h) (gw w) -> b (gt gh gw) c t h w", t=t, h=h, w=w).clone()
    changed[:, hidden] = 0
    other = rearrange(changed, "b (gt gh gw) c t h w -> b c (gt t) (gh h) (gw w)", gt=grid.t, gh=grid.h, gw=grid.w)
    some = teacher(clip, visible, layers=(last,)).layers[last]
    assert torch.equal(teacher(other, visible, layers=(last,)).layers[last], some)
    assert not torch.allclose(some, every[:, visible[0]], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_builds_the_same_shapes_on_the_meta_device(kind, teachers):
    clip, _ = draw_clip(teachers[kind])
    before = torch.get_rng_state()
    built = teachers[kind].config.build()
    assert torch.equal(torch.get_rng_state(), before)  # the student has the same initial values with every teacher
    features = built(clip.to("meta"), layers=(2,)).layers[2]
    assert features.device.type == "meta"
    assert features.shape == teachers[kind](clip, layers=(2,)).layers[2].shape


def test_a_teacher_is_frozen_unlisted_and_moves_with_its_module(teachers):
    holder = nn.Module()
    holder.teacher = FrozenTeacher(teachers["dinov2"])
    holder.train()
    assert not list(holder.named_parameters())
    assert not holder.state_dict()
    assert not any(part.training for part in holder.teacher.model.modules())
    assert not any(parameter.requires_grad for parameter in holder.teacher.model.parameters())
    holder.to(torch.float64)
    assert {p.dtype for p in (*holder.teacher.model.parameters(), holder.teacher.model.mean)} == {torch.float64}
    holder.to(torch.float32)


# ---- Sizes and colours ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dinov2", "vjepa2"])
def test_at_its_own_size_a_teachers_features_are_resampled_to_the_students_grid(kind, sources, teachers):
    own = FrozenTeacher(load(sources[kind], input_resolution="native"))
    clip = clips(rows=12, columns=12)
    actual = extract_features(own, clip, Grid(2, 3, 3))
    frames = rearrange(clip if kind == "vjepa2" else clip[:, :, ::2], "b c t h w -> (b t) c h w")
    large = F.interpolate(frames, size=(16, 16), mode="bilinear", align_corners=False, antialias=True)
    enlarged = rearrange(large, "(b t) c h w -> b c t h w", b=2)
    fine = extract_features(FrozenTeacher(teachers[kind]), enlarged, Grid(2, 4, 4))
    maps = rearrange(fine, "b (t h w) d -> (b t) d h w", t=2, h=4)
    coarse = F.interpolate(maps, size=(3, 3), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(actual, rearrange(coarse, "(b t) d h w -> b (t h w) d", b=2), rtol=1e-4, atol=1e-5)


def copy_model(source: str, folder: Path) -> Path:
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((Path(source.partition(":")[2]) / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("kind", "processor_class"),
    [
        ("dinov2", "BitImageProcessor"),
        ("clip", "CLIPImageProcessor"),
        ("siglip", "SiglipImageProcessor"),
        ("vjepa2", "VJEPA2VideoProcessor"),
        ("videomae", "VideoMAEVideoProcessor"),
    ],
)
def test_colours_are_normalized_as_by_the_librarys_processor(kind, processor_class, tmp_path, sources):
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}
    processor = getattr(library("transformers"), processor_class)(do_resize=False, do_center_crop=False, **colours)
    processor.save_pretrained(copy_model(sources[kind], tmp_path))
    teacher, is_video = load(f"transformers:{tmp_path}"), kind in VIDEO_KINDS
    pixels = torch.randint(0, 256, (4 if is_video else 1, 3, 16, 16), dtype=torch.uint8)
    (values,) = processor(pixels if is_video else pixels[0], return_tensors="pt").values()
    expected = rearrange(values.view(-1, 3, 16, 16), "t c h w -> 1 c t h w")
    clip = rearrange(pixels / 255, "t c h w -> 1 c t h w")
    torch.testing.assert_close(normalize(teacher, clip), expected, rtol=1e-5, atol=1e-5)


def test_without_a_processor_colours_are_the_familys(teachers):
    assert teachers["siglip"].config.mean == (0.5, 0.5, 0.5)
    assert teachers["clip"].config.mean == (0.48145466, 0.4578275, 0.40821073)
    assert teachers["dinov2"].config.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(("name", "prefix"), [("CLIP", 1), ("Siglip", 0)])
def test_the_vision_tower_of_a_model_of_images_and_text_is_loaded(name, prefix, tmp_path):
    transformers = library("transformers")
    text = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**SIZES, "intermediate_size": 48}
    config = getattr(transformers, f"{name}Config")(vision_config=vision, text_config=text)
    whole = getattr(transformers, f"{name}Model")(config).eval()
    whole.save_pretrained(tmp_path)
    teacher = load(f"transformers:{tmp_path}")
    clip, _ = draw_clip(teacher)
    pixels = normalize(teacher, clip)[:, :, 0]
    with torch.no_grad():
        output = whole.vision_model(pixels, interpolate_pos_encoding=True, output_hidden_states=True)
    expected = output.hidden_states[-1][:, prefix:]
    torch.testing.assert_close(teacher(clip, layers=(2,)).layers[2], expected, rtol=1e-4, atol=1e-5)


# ---- Metadata and errors ---------------------------------------------------------------------------------------------


def test_the_metadata_are_layout_and_licence(sources, tmp_path):
    copy_model(sources["dinov3"], tmp_path)
    assert load(f"transformers:{tmp_path}").metadata == {"layout": "transformers dinov3_vit", "licence": None}
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: dinov3-license\n---\nlicense: mit\n")
    assert load(f"transformers:{tmp_path}").metadata["licence"] == "dinov3-license"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\ntags: x\n---\n")
    assert load(f"transformers:{tmp_path}").metadata["licence"] == "apache-2.0"


def test_prefixes_name_libraries():
    assert is_external_encoder("transformers:facebook/dinov2-base")
    assert is_external_encoder("timm:test_vit.r160_in1k")
    assert not is_external_encoder("runs/timm")
    assert not is_external_encoder("hf://MCG-NJU/videomae-base")


@pytest.mark.parametrize("name", ["transformers", "timm"])
def test_a_missing_library_is_reported_with_the_extra_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'vidstill\[teachers\]'"):
        load_external_encoder(f"{name}:vit")


def test_what_the_library_cannot_read_is_refused(tmp_path, sources, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    messages = {
        f"transformers:{tmp_path}": "transformers cannot read",
        "transformers:nobody/nothing": "transformers cannot read",
        "timm:test_vit.r160_in1k": r"timm cannot load test_vit\.r160_in1k with weights",
        "timm:no_such_vit": "timm cannot load no_such_vit",
        "timm:test_resnet": "is a ResNet; teachers of timm are its plain VisionTransformers",
    }
    for source, message in messages.items():
        with pytest.raises(InputError, match=message):
            load_external_encoder(source)
    (tmp_path / "config.json").write_text('{"model_type": "vit_mae"}')
    with pytest.raises(InputError, match="is of the kind 'vit_mae'; teachers of transformers are videomae, vjepa2"):
        load_external_encoder(f"transformers:{tmp_path}")


def test_missing_tensors_are_refused(tmp_path, sources):
    folder = Path(sources["dinov2"].partition(":")[2])
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.norm1.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"lacks 1 tensors of its model, first 'encoder\.layer\.1\.norm1\.bias'"):
        load_external_encoder(f"transformers:{tmp_path}")
    tensors = load_file(sources["timm"].partition("@")[2])
    del tensors["blocks.5.attn.qkv.bias"]
    with pytest.raises(InputError, match="1 tensors of test_vit are not in the file"):
        load_external_encoder("timm:test_vit@file", tensors)


def test_a_request_that_a_teacher_cannot_answer_is_refused(teachers):
    with pytest.raises(InputError, match="cannot return the attention of a block"):
        teachers["dinov2"](clips(frames=1, rows=16, columns=12), attention=(2,))
    with pytest.raises(InputError, match="sees single frames, and got a clip of 4"):
        teachers["dinov2"](clips(), layers=(2,))
    with pytest.raises(InputError, match="has no block 3; take 1 to 2"):
        teachers["vjepa2"](clips(), layers=(3,))
