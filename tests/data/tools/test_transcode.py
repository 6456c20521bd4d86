"""A packed video is its source, frame for frame, in a form that decodes from anywhere."""

import io
import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import DATA
from PIL import Image
from tiny_videos import cut_short, number_of, numbered, write_video
from transcoded import transcode

from vidstill.data.decode.reader import VideoReader, count_frames, read_frames, read_stream_metadata
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.tools.transcode import IMAGE_FOLDER_FRAME_RATE, TranscodeConfig, compute_packed_size
from vidstill.utils.types import InputError

FRAMES = 20
CONFIGS = [TranscodeConfig(), TranscodeConfig(gop=4)]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "numbered.mkv", FRAMES)


@pytest.fixture(scope="module", params=CONFIGS, ids=["intra", "gop 4"])
def config(request):
    return request.param


def key_frames(data: bytes) -> list[int]:
    with av.open(io.BytesIO(data)) as container:
        return [n for n, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]


def test_frame_n_is_frame_n_of_the_source_in_the_same_bytes_every_time(video, config):
    packed, data = transcode(video, config)
    assert data == transcode(video, config)[1] == transcode(video.read_bytes(), config)[1]
    for indices in (list(range(FRAMES)), [13, 2, 7], [FRAMES - 1], [0]):
        assert [number_of(frame) for frame in read_frames(data, indices)] == indices
    with VideoReader(data) as reader:
        assert (packed.num_frames, packed.frame_rate) == (reader.num_frames, reader.frame_rate)
        assert (packed.height, packed.width) == reader.read_frames([0]).shape[1:3]
    assert (packed.num_frames, packed.frame_rate) == (FRAMES, read_stream_metadata(video).frame_rate)


@pytest.mark.parametrize("gop", [1, 3, 7])
def test_key_frames_stand_at_the_interval_and_nothing_else_does(tmp_path, gop):
    numbers = [0, 255, 3, 252, 15] * 4  # to an encoder, each is another scene
    changing = write_video(tmp_path / "changing.mp4", numbers=numbers)
    assert key_frames(transcode(changing, TranscodeConfig(gop=gop))[1]) == list(range(0, len(numbers), gop))


def test_the_rate_is_the_sources_and_frames_are_evenly_spaced(tmp_path):
    for rate in (30000 / 1001, 23.976, 0.5, 1000.0, 14.985):
        packed, data = transcode(write_video(tmp_path / "any.mp4", 6), TranscodeConfig(), rate)
        assert packed.frame_rate == rate
        with av.open(io.BytesIO(data)) as container:
            times = [float(frame.time) for frame in container.decode(video=0)]
        np.testing.assert_allclose(times, np.arange(6) / rate, rtol=1e-4, atol=1e-4)


@given(height=st.integers(1, 3000), width=st.integers(1, 3000), short_side=st.integers(1, 500).map(lambda n: 2 * n))
def test_sizes_are_even_and_nothing_is_enlarged_or_bent(height, width, short_side):
    rows, columns = compute_packed_size(height, width, short_side)
    assert rows % 2 == columns % 2 == 0
    assert min(rows, columns) >= 2
    if min(height, width) > short_side:
        assert min(rows, columns) == short_side
        assert abs(max(rows, columns) - max(height, width) * short_side / min(height, width)) <= 1
        assert (rows < columns) == (height < width) or rows == columns
    elif min(height, width) > 1:
        assert (rows, columns) == (height - height % 2, width - width % 2)


def test_a_large_video_is_scaled_and_still_shows_its_frames(video, config):
    _, data = transcode(video, replace(config, short_side=16))
    frames = read_frames(data, range(FRAMES))
    assert frames.shape == (FRAMES, 16, 32, 3)
    assert [number_of(frame) for frame in frames] == list(range(FRAMES))


@pytest.mark.parametrize("size", [(33, 65), (32, 65), (33, 64), (1, 64)])
def test_an_odd_size_loses_its_last_row_or_column(tmp_path, size):
    rows, columns = size
    blocks = np.random.default_rng(0).integers(0, 255, (rows // 8 + 1, columns // 8 + 1, 3), np.uint8)
    picture = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    folder = write_images(tmp_path / "frames", [picture[:rows, :columns]] * 2)
    frames = read_frames(transcode(folder, TranscodeConfig(crf=5))[1], [1])
    height, width = max(2, rows // 2 * 2), columns // 2 * 2
    assert frames.shape == (1, height, width, 3)
    assert np.abs(frames[0].astype(int) - picture[:rows][:height, :width]).mean() < 6  # half the colours are shared


def test_colours_stay_what_they_are(tmp_path):
    colours = [(0, 0, 0), (255, 255, 255), (200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 128, 128)]
    folder = write_images(tmp_path / "frames", [np.full((32, 64, 3), colour, np.uint8) for colour in colours])
    frames = read_frames(transcode(folder, TranscodeConfig())[1], range(len(colours)))
    assert np.abs(frames.mean((1, 2)) - np.array(colours)).max() < 5  # another matrix or range would change 10 or more


def test_a_folder_of_images_becomes_a_video(tmp_path):
    packed, data = transcode(write_images(tmp_path / "frames", [numbered(n) for n in range(12)]), TranscodeConfig())
    assert (packed.suffix, packed.num_frames, packed.frame_rate) == ("mp4", 12, IMAGE_FOLDER_FRAME_RATE)
    assert [number_of(frame) for frame in read_frames(data, [11, 0, 5])] == [11, 0, 5]


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_a_small_image_is_unchanged_or_a_png_where_its_bytes_have_another_format(tmp_path, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(numbered(37)).save(path, **({"lossless": True} if suffix == "webp" else {}))
    packed, data = transcode(path, TranscodeConfig())
    if suffix in ("jpg", "png"):
        assert data == path.read_bytes()
    else:
        np.testing.assert_array_equal(read_frames(data, [0])[0], numbered(37))
    expected = (suffix if suffix == "jpg" else "png", 1, 32, 64, None)
    assert (packed.suffix, packed.num_frames, packed.height, packed.width, packed.frame_rate) == expected


def test_a_large_image_becomes_a_jpeg_of_that_side(tmp_path):
    Image.fromarray(numbered(37)).save(tmp_path / "image.png")
    packed, data = transcode(tmp_path / "image.png", TranscodeConfig(short_side=16))
    frames = read_frames(data, [0])
    assert (packed.suffix, frames.shape[1:3], number_of(frames[0])) == ("jpg", (16, 32), 37)


def test_a_video_that_does_not_decode_to_its_end_or_changes_its_size_is_named(tmp_path):
    (tmp_path / "no.png").write_bytes(b"no image")
    cut = cut_short(write_video(tmp_path / "cut.mp4", 200, index_first=True))
    for broken in (cut, tmp_path / "none.mp4", tmp_path / "no.png"):
        with pytest.raises(BrokenVideo, match=broken.name):
            transcode(broken, TranscodeConfig())
    folder = write_images(tmp_path / "frames", [numbered(0), numbered(1), numbered(2, rows=40)])
    with pytest.raises(BrokenVideo, match="frames changes its size to 64x40 at frame 2"):
        transcode(folder, TranscodeConfig())


@pytest.mark.parametrize("wrong", [{"short_side": 0}, {"short_side": 33}, {"gop": 0}, {"crf": 52}])
def test_settings_that_cannot_be_met_are_refused(wrong):
    with pytest.raises(InputError, match=f"{next(reversed(wrong))} is {wrong[next(reversed(wrong))]}"):
        TranscodeConfig(**wrong)


def whole_clips() -> list:
    """Every whole file that some clips.json under the data's folder describes, with its description."""
    params = [
        pytest.param(path.parent / clip["file"], clip, id=clip["file"])
        for path in sorted(DATA.rglob("clips.json"))
        for clip in json.loads(path.read_text())
        if clip["kind"] != "broken"
    ]
    absent = pytest.param(None, {}, marks=pytest.mark.skip(f"no clips.json is under {DATA}; set VIDSTILL_DATA"))
    return params or [absent]


@pytest.mark.files
@pytest.mark.parametrize(("path", "clip"), whole_clips())
def test_real_clips_keep_every_frame_and_stand_upright(path, clip):
    (packed, data), frames = transcode(path, TranscodeConfig(short_side=256)), clip["decoded_frames"]
    lying = clip.get("display_rotation_deg", 0) % 180 == 90
    height, width = (clip["width"], clip["height"]) if lying else (clip["height"], clip["width"])
    shrinking = min(1.0, 256 / min(height, width))
    assert (packed.num_frames, count_frames(data)) == (frames, frames)
    assert (packed.height % 2, packed.width % 2) == (0, 0)
    assert 0 <= min(height, width) * shrinking - min(packed.height, packed.width) < 2
    assert abs(max(height, width) * shrinking - max(packed.height, packed.width)) < 2
    assert (packed.height < packed.width) == (height < width)
    source = read_frames(path, [0, frames - 1])
    if source.shape[1:3] == (packed.height, packed.width):
        difference = read_frames(data, [0, frames - 1]).astype(int) - source
        assert 10 * np.log10(255**2 / (difference**2).mean()) > 28  # decibels: the same picture, coded anew
    if (clip["width"], clip["height"]) == (340, 256) and clip["duration_s"] > 9:  # as Kinetics is handed on
        assert len(data) <= 2 * clip["size_bytes"]


def write_images(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir()
    for n, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"img_{n:05d}.png")
    return folder
