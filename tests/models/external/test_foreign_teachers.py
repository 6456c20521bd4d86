"""Another library's model teaches as ours do: by the features of its blocks, token by token, of clips that fit it."""

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
OF_CLIPS = ("vjepa2", "videomae")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    """Each kind's name on the command line."""
    library("transformers"), library("timm")
    folder = tmp_path_factory.mktemp("teachers")
    named = {kind: f"transformers:{save(kind, folder / kind)}" for kind in PREFIX}
    return named | {"timm": f"timm:test_vit@{save_timm(folder / 'vit.safetensors')}"}


@pytest.fixture(scope="module")
def teachers(sources) -> dict[str, ExternalEncoder]:
    return {kind: read(source) for kind, source in sources.items()}


def read(source: str, **options) -> ExternalEncoder:
    file = source.partition("@")[2]
    return load_external_encoder(source, load_file(file) if file else None, **options)


def shown_to(teacher: ExternalEncoder, rows: int = 4, columns: int = 3, *, seed: int = 0) -> tuple[Tensor, Grid]:
    """Clips of 4 frames for a teacher of clips, images for others; of so many tokens."""
    t, h, w = teacher.config.tubelet
    slots = 2 if t > 1 else 1
    return clips(frames=t * slots, rows=h * rows, columns=w * columns, seed=seed), Grid(slots, rows, columns)


def by_the_library(kind: str, source: str, teacher: ExternalEncoder, clip: Tensor) -> list[Tensor]:
    """What the library itself gives for each block, class and register tokens with it."""
    pixels = (clip - teacher.mean[:, None, None, None]) / teacher.std[:, None, None, None]
    with torch.no_grad():
        if kind == "timm":
            model = library("timm").create_model("test_vit", dynamic_img_size=True).eval()
            model.load_state_dict(load_file(source.partition("@")[2]))
            asked = {"norm": False, "output_fmt": "NLC", "intermediates_only": True, "return_prefix_tokens": True}
            found = model.forward_intermediates(pixels[:, :, 0], **asked)
            return [torch.cat([prefix, tokens], dim=1) for tokens, prefix in found]
        transformers = library("transformers")
        names = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}
        model = getattr(transformers, names.get(kind, "AutoModel")).from_pretrained(source.partition(":")[2])
        if kind in OF_CLIPS:
            asked = {"skip_predictor": True} if kind == "vjepa2" else {}
            given = model(rearrange(pixels, "b c t h w -> b t c h w"), output_hidden_states=True, **asked)
        else:
            asked = {"interpolate_pos_encoding": True} if kind in ("clip", "siglip") else {}
            given = model(pixels[:, :, 0], output_hidden_states=True, **asked)
        return list(given.hidden_states[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_each_block_gives_what_the_library_gives_but_for_class_and_register_tokens(kind, sources, teachers):
    teacher = teachers[kind]
    sides = (4, 4) if kind in OF_CLIPS else (4, 3)  # of these, the library takes clips of the model's own size alone
    clip, grid = shown_to(teacher, *sides)
    layers = range(1, teacher.config.depth + 1)
    seen = teacher(clip, layers=layers).layers
    prefix = PREFIX.get(kind, 1)
    for layer, theirs in zip(layers, by_the_library(kind, sources[kind], teacher, clip), strict=True):
        assert theirs.shape[1] == prefix + grid.num_tokens
        torch.testing.assert_close(seen[layer], theirs[:, prefix:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind, tokens in PREFIX.items() if tokens])
def test_class_and_register_tokens_are_dropped(kind, sources):
    teacher = read(sources[kind])
    marked = [
        parameter
        for name, parameter in teacher.named_parameters()
        if name.endswith(("cls_token", "register_tokens", "class_embedding"))
    ]
    with torch.no_grad():
        for parameter in marked:
            parameter[..., 0] = 1e6
    clip, grid = shown_to(teacher)
    teacher.blocks[0].register_forward_pre_hook(lambda block, given: entered.append(given[0]))
    entered: list[Tensor] = []
    features = teacher(clip, layers=(1,)).layers[1]
    high = entered[0][..., 0] > 4  # CLIP's are normalised on their way in
    assert high.sum(dim=1).tolist() == [PREFIX[kind]] * 2
    assert features.shape == (2, grid.num_tokens, 24)
    assert features[..., 0].amax() < 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_bright_place_lights_up_its_token(kind, teachers):
    teacher = FrozenTeacher(teachers[kind])
    t, h, w = teachers[kind].config.tubelet
    dark = torch.zeros(1, 3, 4, 4 * h, 3 * w)
    bright, slots = dark.clone(), 2 if t > 1 else 4
    first = 2  # the frame that a slot begins with
    bright[:, :, first : first + 2, 3 * h : 4 * h, w : 2 * w] = 1
    grid = Grid(slots, 4, 3)
    change = (extract_features(teacher, bright, grid) - extract_features(teacher, dark, grid)).norm(dim=-1)[0]
    token = (first // (4 // slots)) * 12 + 3 * 3 + 1
    assert change.argmax() == token or (t == 1 and change.argmax() == token + 12)  # both frames are bright
    assert change[token] > 2 * change.median()


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_that_is_shown_some_tokens_sees_no_others(kind, teachers):
    teacher = teachers[kind]
    clip, grid = shown_to(teacher)
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
def test_on_the_meta_device_a_description_alone_gives_the_same_shapes(kind, teachers):
    clip, _ = shown_to(teachers[kind])
    before = torch.get_rng_state()
    built = teachers[kind].config.build()
    assert torch.equal(torch.get_rng_state(), before)  # the student starts alike, whoever teaches it
    seen = built(clip.to("meta"), layers=(2,)).layers[2]
    assert seen.device.type == "meta"
    assert seen.shape == teachers[kind](clip, layers=(2,)).layers[2].shape


def test_a_teacher_is_frozen_unlisted_and_moves_with_its_holder(teachers):
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
    own = FrozenTeacher(read(sources[kind], input_resolution="native"))
    clip = clips(rows=12, columns=12)
    given = extract_features(own, clip, Grid(2, 3, 3))
    frames = rearrange(clip if kind == "vjepa2" else clip[:, :, ::2], "b c t h w -> (b t) c h w")
    large = F.interpolate(frames, size=(16, 16), mode="bilinear", align_corners=False, antialias=True)
    shown = rearrange(large, "(b t) c h w -> b c t h w", b=2)
    fine = extract_features(FrozenTeacher(teachers[kind]), shown, Grid(2, 4, 4))
    maps = rearrange(fine, "b (t h w) d -> (b t) d h w", t=2, h=4)
    coarse = F.interpolate(maps, size=(3, 3), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(given, rearrange(coarse, "(b t) d h w -> b (t h w) d", b=2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["dinov2", "clip", "siglip", "vjepa2", "videomae"])
def test_colours_are_normalised_as_the_librarys_processor_does(kind, tmp_path, sources):
    transformers = library("transformers")
    folder = Path(sources[kind].partition(":")[2])
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    kept = {"do_resize": False, "do_center_crop": False, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}
    names = {"dinov2": "BitImageProcessor", "vjepa2": "VJEPA2VideoProcessor", "videomae": "VideoMAEVideoProcessor"}
    name = names.get(kind, f"{ {'clip': 'CLIP'}.get(kind, 'Siglip') }ImageProcessor")
    processor = getattr(transformers, name)(**kept)
    processor.save_pretrained(tmp_path)
    teacher = read(f"transformers:{tmp_path}")
    of_clips = kind in OF_CLIPS
    pixels = torch.randint(0, 256, (4 if of_clips else 1, 3, 16, 16), dtype=torch.uint8)
    given = processor(pixels if of_clips else pixels[0], return_tensors="pt")
    theirs = (
        given["pixel_values_videos"][0] if "pixel_values_videos" in given else given["pixel_values"].view(-1, 3, 16, 16)
    )
    entered: list[Tensor] = []
    teacher.embed = lambda pixels, embed=teacher.embed: (entered.append(pixels), embed(pixels))[1]  # type: ignore[method-assign]
    teacher(rearrange(pixels / 255, "t c h w -> 1 c t h w"), layers=(1,))
    torch.testing.assert_close(entered[0][0], rearrange(theirs, "t c h w -> c t h w"), rtol=1e-5, atol=1e-5)


def test_without_a_processor_colours_are_the_familys(teachers):
    assert teachers["siglip"].config.mean == (0.5, 0.5, 0.5)
    assert teachers["clip"].config.mean == (0.48145466, 0.4578275, 0.40821073)
    assert teachers["dinov2"].config.mean == (0.485, 0.456, 0.406)


def test_a_vision_tower_is_taken_out_of_the_model_of_images_and_words(tmp_path):
    transformers = library("transformers")
    vision = {**SIZES, "intermediate_size": 48}
    words = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    words |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    for name in ("CLIP", "Siglip"):
        config = getattr(transformers, f"{name}Config")(vision_config=vision, text_config=words)
        whole = getattr(transformers, f"{name}Model")(config).eval()
        whole.save_pretrained(tmp_path / name)
        teacher = read(f"transformers:{tmp_path / name}")
        clip, _ = shown_to(teacher)
        pixels = ((clip - teacher.mean[:, None, None, None]) / teacher.std[:, None, None, None])[:, :, 0]
        with torch.no_grad():
            part = whole.vision_model(pixels, interpolate_pos_encoding=True, output_hidden_states=True)
        theirs = part.hidden_states[-1][:, 1 if name == "CLIP" else 0 :]
        torch.testing.assert_close(teacher(clip, layers=(2,)).layers[2], theirs, rtol=1e-4, atol=1e-5)


# ---- What is said ---------------------------------------------------------------------------------------------------


def test_a_teacher_says_what_it_is_and_its_licence(sources, tmp_path):
    folder = Path(sources["dinov3"].partition(":")[2])
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    assert read(f"transformers:{tmp_path}").metadata == {"layout": "transformers dinov3_vit", "licence": None}
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: dinov3-license\n---\nlicense: mit\n")
    assert read(f"transformers:{tmp_path}").metadata["licence"] == "dinov3-license"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\ntags: x\n---\n")
    assert read(f"transformers:{tmp_path}").metadata["licence"] == "apache-2.0"


def test_prefixes_name_libraries():
    assert is_external_encoder("transformers:facebook/dinov2-base")
    assert is_external_encoder("timm:test_vit.r160_in1k")
    assert not is_external_encoder("runs/timm")
    assert not is_external_encoder("hf://MCG-NJU/videomae-base")


@pytest.mark.parametrize("name", ["transformers", "timm"])
def test_without_the_library_a_sentence_names_the_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'vidstill\[teachers\]'"):
        load_external_encoder(f"{name}:vit")


def test_what_cannot_be_read_is_met_with_a_sentence(tmp_path, sources, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for source in (f"transformers:{tmp_path}", "transformers:nobody/nothing"):
        with pytest.raises(InputError, match="transformers cannot read"):
            load_external_encoder(source)
    with pytest.raises(InputError, match=r"timm cannot load test_vit\.r160_in1k with weights"):
        load_external_encoder("timm:test_vit.r160_in1k")
    with pytest.raises(InputError, match="timm cannot load no_such_vit"):
        load_external_encoder("timm:no_such_vit")
    with pytest.raises(InputError, match="is a ResNet; teachers of timm are its plain VisionTransformers"):
        load_external_encoder("timm:test_resnet")
    (tmp_path / "config.json").write_text('{"model_type": "vit_mae"}')
    with pytest.raises(InputError, match="is of the kind 'vit_mae'; teachers of transformers are videomae, vjepa2"):
        load_external_encoder(f"transformers:{tmp_path}")


def test_missing_tensors_are_met_with_a_sentence(tmp_path, sources):
    folder = Path(sources["dinov2"].partition(":")[2])
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.norm1.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"lacks 1 tensors of its model, first 'encoder\.layer\.1\.norm1\.bias'"):
        load_external_encoder(f"transformers:{tmp_path}")
    theirs = load_file(sources["timm"].partition("@")[2])
    del theirs["blocks.5.attn.qkv.bias"]
    with pytest.raises(InputError, match="1 tensors of test_vit are not in the file"):
        load_external_encoder("timm:test_vit@file", theirs)


def test_what_a_teacher_cannot_give_is_said(teachers):
    with pytest.raises(InputError, match="cannot return the attention of a block"):
        teachers["dinov2"](clips(frames=1, rows=16, columns=12), attention=(2,))
    with pytest.raises(InputError, match="sees single frames, and got a clip of 4"):
        teachers["dinov2"](clips(), layers=(2,))
    with pytest.raises(InputError, match="has no block 3; take 1 to 2"):
        teachers["vjepa2"](clips(), layers=(3,))
