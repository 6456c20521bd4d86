"""Pictures as data: clips of one frame, cropped as the image papers crop them."""

import io
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA
from PIL import Image
from samples import train_sample, view_sample
from torchvision.transforms import RandomResizedCrop as Theirs

from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.decode.reader import read_frames
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.manifest.open import open_manifest
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.transforms.crop import RandomResizedCrop
from vidstill.data.transforms.frame_sampling import SpanSampling

PICTURES = DATA / "images"
ONE = SpanSampling(num_frames=1, stride=1)
MAE = ClipsConfig(  # the image paper's pre-training, but for the size
    dataset="imagenet",
    sampling=ONE,
    size=(24, 32),
    crop=RandomResizedCrop(scale=(0.2, 1.0), interpolation="bicubic"),
    flip_probability=0.5,
)
BICUBIC = tv.InterpolationMode.BICUBIC
FORMATS = [("jpg", "RGB"), ("jpg", "CMYK"), ("png", "RGB"), ("png", "P"), ("webp", "RGBA"), ("bmp", "L")]


def smooth(seed: int, height: int = 60, width: int = 50) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def noise(seed: int, height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def write(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    smooth(seed).save(path)
    return path


def in_bytes(format: str, mode: str) -> bytes:
    exif, data = Image.Exif(), io.BytesIO()
    exif[0x0112], exif[0x829A] = 6, 1.0  # how it is stored, and an exposure time
    smooth(0).convert(mode).save(data, {"jpg": "jpeg"}.get(format, format), exif=exif)
    return data.getvalue()


@pytest.fixture
def imagenet(tmp_path) -> Path:
    """A few pictures as ImageNet's folders have them, with the endings that are found there."""
    for split in ("train", "val"):
        for label, name in enumerate(("n01440764", "n01443537", "n01484850")):
            for n in range(2):
                write(tmp_path / split / name / f"{name}_{n}.JPEG", seed=2 * label + n)
    return tmp_path


def test_folders_of_classes_of_images_give_clips_and_labels_for_either_split(imagenet):
    for split in ("train", "val"):
        listing = open_manifest(imagenet, split=split)
        assert listing.classes == ("n01440764", "n01443537", "n01484850")
        dataset = TrainClips(listing, MAE, seed=1)
        samples = [train_sample(dataset, 0, index) for index in range(len(dataset))]
        assert [int(sample.label) for sample in samples] == [0, 0, 1, 1, 2, 2]
        assert {sample.clip.shape for sample in samples} == {(1, 3, 1, 24, 32)}
        assert all(row.source.parts[-3] == split for row in listing.rows)


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp", "bmp"])
def test_a_folder_of_images_gives_clips_without_labels(tmp_path, suffix):
    for n in range(3):
        write(tmp_path / f"{n}.{suffix}", seed=n)
    (tmp_path / "notes.txt").write_text("not a picture")
    dataset = TrainClips(open_manifest(tmp_path), MAE, seed=1)
    assert len(dataset) == 3
    assert [train_sample(dataset, 0, n).label.tolist() for n in range(3)] == [[-1]] * 3
    assert train_sample(dataset, 0, 0).clip.shape == (1, 3, 1, 24, 32)


@pytest.mark.parametrize("line", ["train/{0}/{0}_0.JPEG 1", "train/{0}/{0}_0.JPEG"])
def test_a_list_of_images_gives_clips(imagenet, line):
    (imagenet / "some.txt").write_text("\n".join(line.format(name) for name in ("n01440764", "n01484850")))
    dataset = TrainClips(open_manifest(imagenet / "some.txt"), MAE, seed=1)
    assert len(dataset) == 2
    assert train_sample(dataset, 3, 1).clip.shape == (1, 3, 1, 24, 32)
    assert train_sample(dataset, 3, 1).label.tolist() == [1 if line.endswith("1") else -1]


def test_batches_of_images_are_clips_of_one_frame_with_colours_from_0_to_1(imagenet):
    dataset = TrainClips(open_manifest(imagenet), replace(MAE, repeats=2), seed=1)
    device = torch.device("cpu")
    (batch,) = iter_train_batches(dataset, videos_per_step=6, steps_per_epoch=1, total_steps=1, device=device)
    assert batch.clip.shape == (12, 3, 1, 24, 32)
    assert 0 <= batch.clip.min() < batch.clip.max() <= 1
    assert sorted(batch.label.tolist()) == [0] * 4 + [1] * 4 + [2] * 4


def test_a_broken_image_is_named_and_replaced(imagenet, caplog):
    broken = imagenet / "train" / "n01443537" / "n01443537_1.JPEG"
    broken.write_bytes(broken.read_bytes()[:300])
    dataset = TrainClips(open_manifest(imagenet), MAE, seed=1)
    with pytest.raises(BrokenVideo, match=r"n01443537_1\.JPEG"):
        train_sample(dataset, 0, 3)
    steps = {"videos_per_step": 6, "steps_per_epoch": 1, "total_steps": 1}
    (batch,) = iter_train_batches(dataset, **steps, max_broken_fraction=0.2, device=torch.device("cpu"))
    assert len(batch.clip) == 6
    assert "n01443537_1.JPEG" in caplog.text


@pytest.mark.parametrize(("format", "mode"), FORMATS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_image_is_read_or_broken(format, mode, data):
    damaged = bytearray(in_bytes(format, mode))
    for _ in range(data.draw(st.integers(1, 20))):  # most of what is read as numbers and places stands first
        damaged[data.draw(st.integers(0, min(300, len(damaged)) - 1))] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of tags that make no sense
        path = Path(folder) / f"damaged.{format}"
        path.write_bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
        with suppress(BrokenVideo):
            frames = read_frames(path, [0])
            assert frames.shape[::3] == (1, 3)


def test_a_bad_exif_tag_does_not_break_an_image(tmp_path):
    whole = in_bytes("jpg", "RGB")
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "tag.jpg").write_bytes(whole.replace(b"\x82\x9a", b"\x01\x00"))  # the time becomes a width
    result, reference = (read_frames(tmp_path / name, [0]) for name in ("tag.jpg", "whole.jpg"))
    assert result.shape == (1, 50, 60, 3)  # turned: it is stored with 60 rows
    np.testing.assert_array_equal(result, reference)


class Drawn(np.random.Generator):
    """torch's generator, from which torchvision draws, in the place of NumPy's."""

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return torch.empty(1).uniform_(low, high).item()

    def integers(self, stop: int) -> int:
        return int(torch.randint(stop, (1,)))


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 120), (30, 400)])
def test_a_drawn_box_is_torchvisions_from_the_same_draws(height, width):
    for seed in range(50):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            result = MAE.crop.draw_box(height, width, (224, 224), Drawn(np.random.PCG64()))
            torch.manual_seed(seed)
            reference = Theirs.get_params(torch.empty(3, height, width), [0.2, 1.0], [3 / 4, 4 / 3])
        assert tuple(result) == tuple(reference)


def apart(result: np.ndarray, reference: Image.Image) -> int:
    """At most 2 levels, for both resize along one side and then the other, and round to bytes after each: a rounding
    that falls out otherwise is a level, which the second pass makes 1.25 of (the sum of the cubic's weights, without
    their signs), and rounds.
    """
    return np.abs(result.astype(int) - np.asarray(reference)).max()


def test_a_cropped_image_is_torchvisions_up_to_rounding():
    # no box is higher than wide: since Pillow 13 it resizes those that shrink far more in height in another order, as
    # the versions that the papers used did not
    crop, frame = replace(MAE.crop, ratio=(1.0, 4 / 3)), np.asarray(noise(3, 450, 600))
    for seed in range(8):
        box = crop.draw_box(450, 600, (224, 224), np.random.default_rng(seed))
        result = crop.apply(frame[None], (224, 224), np.random.default_rng(seed))[0]
        reference = tv.resized_crop(Image.fromarray(frame), *box, [224, 224], BICUBIC)
        assert apart(result, reference) <= 2


@pytest.mark.parametrize(("height", "width"), [(300, 400), (431, 333), (256, 256)])
def test_an_evaluation_image_is_torchvisions_up_to_rounding(tmp_path, height, width):
    picture = noise(4, height, width)
    picture.save(tmp_path / "picture.png")
    config = ViewsConfig(sampling=ONE, temporal_clips=1, spatial_crops=1, short_side=256, interpolation="bicubic")
    views = view_sample(ViewClips(open_manifest(tmp_path), config), 0)
    reference = tv.center_crop(tv.resize(picture, 256, BICUBIC), [224, 224])
    assert views.clip.shape == (1, 3, 1, 224, 224)
    assert apart(views.clip[0, :, 0].permute(1, 2, 0).numpy(), reference) <= 2


def real_pictures() -> list:
    folders = [pytest.param(path, id=path.name) for path in sorted(PICTURES.glob("*")) if path.is_dir()]
    return folders or [
        pytest.param(None, marks=pytest.mark.skip(f"real pictures are not in {PICTURES}; set VIDSTILL_DATA"))
    ]


@pytest.mark.files
@pytest.mark.parametrize("folder", real_pictures())
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_images_have_the_classes_that_their_lists_state(folder, split):
    listing = open_manifest(folder, split=split)
    assert list(listing.classes) == (folder / "classes.txt").read_text().split()
    listed = [line.split() for line in (folder / f"{split}.csv").read_text().splitlines()]
    assert [(str(row.source), row.label) for row in listing.rows] == [(str(folder / n), int(k)) for n, k in listed]
    dataset = TrainClips(listing, MAE, seed=1)
    for index in range(0, len(dataset), 17):
        sample = train_sample(dataset, 0, index)
        assert sample.clip.shape == (1, 3, 1, 24, 32)
        assert sample.label.tolist() == [int(listed[index][1])]
        assert sample.clip.float().std() > 5  # a photograph is not of one colour
