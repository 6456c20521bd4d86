"""`vidstill embed`: the files hold what the encoder returns for each video."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fresh_programs import run_ranks
from PIL import Image
from tiny_encoders import WITH_CLASS_TOKEN, make_videos, write_encoder
from tiny_predictions import write_classifier

from vidstill.cli.main import main
from vidstill.data.tools.pack import pack_dataset
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.data.transforms.frame_sampling import DenseSampling
from vidstill.pipelines.infer.embed import embed_videos
from vidstill.pipelines.infer.encoder import load_encoder
from vidstill.pipelines.infer.writers.feature_formats import FILE_FORMATS
from vidstill.pipelines.infer.writers.feature_store import npy_file_name
from vidstill.pipelines.infer.writers.features import FeatureKey
from vidstill.pipelines.run_config import Workers

VIDEOS = [*(f"train/00000{n}.mp4" for n in range(4)), *(f"val/00000{n}.mp4" for n in range(2))]
OPTIONS = ["--precision", "fp32", "--workers", "0"]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A folder with an encoder's `run`, and `videos` of two classes: four for training, two for validation."""
    folder = tmp_path_factory.mktemp("embed")
    write_encoder(folder / "run")
    make_videos(folder / "videos")
    return folder


@pytest.fixture(scope="module")
def encoder(house):
    return load_encoder(str(house / "run"), precision="fp32")


def embed(house: Path, *args: object, code: int = 0) -> None:
    assert main(["embed", str(house / "run"), *map(str, args), *OPTIONS]) == code


def read(path: Path):
    return FILE_FORMATS[path.suffix[1:]].read(path)


def rows(table, name: str) -> np.ndarray:
    return np.concatenate(list(table.read_chunks(name, 5)))


def skip_without_pyarrow(out: str) -> None:
    if out.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install 'vidstill[parquet]'")


# ---- What is in the files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["features.npz", "features.safetensors", "deep/in.a/features.parquet"])
def test_a_file_holds_a_row_for_each_video_of_a_data_set(house, encoder, tmp_path, out):
    skip_without_pyarrow(out)
    options = ["--layers", "1", "-1", "--temporal-clips", "2", "--device-batch", "5"]
    embed(house, house / "videos", "--out", tmp_path / out, *options)
    table = read(tmp_path / out)
    assert table.keys == [FeatureKey(name.split("/")[0], name) for name in VIDEOS]
    assert table.classes == ("left", "right")
    assert table.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert table.offsets.tolist() == list(range(7))
    assert table.metadata["broken"] == []
    settings = table.metadata["settings"]
    assert (settings["layers"], settings["pool"]) == (["block_1", "block_2"], "mean")
    assert settings["views"]["temporal_clips"] == 2
    for name in ("block_1", "block_2"):
        expected = encoder.embed([house / "videos" / video for video in VIDEOS], layers=(1, 2), temporal_clips=2)
        np.testing.assert_allclose(rows(table, name), np.stack([each[name] for each in expected]), rtol=1e-4, atol=1e-5)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("pool", ["mean", "space", "tokens"])
def test_a_file_holds_a_row_for_each_window_and_says_when_it_is(house, encoder, tmp_path, pool):
    shutil.copytree(house / "videos/val", tmp_path / "videos")
    make_videos(tmp_path / "made", train=1, val=0, frames=4)  # half as long as the others
    shutil.move(tmp_path / "made/train/000000.mp4", tmp_path / "videos/000000a.mp4")
    out = tmp_path / "features.npz"
    embed(house, tmp_path / "videos", "--out", out, "--window", 0.5, "--hop", 0.25, "--pool", pool, "--device-batch", 2)
    table = read(out)
    assert [key.name for key in table.keys] == ["000000.mp4", "000000a.mp4", "000001.mp4"]
    assert table.offsets.tolist() == [0, 3, 4, 7]
    assert rows(table, "starts").tolist() == [0, 0.25, 0.5, 0, 0, 0.25, 0.5]
    assert rows(table, "ends").tolist() == [0.5, 0.75, 1, 0.5, 0.5, 0.75, 1]
    assert table.labels is None
    for index, key in enumerate(table.keys):
        part = rows(table, "final")[table.offsets[index] : table.offsets[index + 1]]
        expected = encoder.embed(tmp_path / "videos" / key.name, window=0.5, hop=0.25, pool=pool)
        np.testing.assert_allclose(part, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_folder_has_an_npy_for_each_video(house, encoder, tmp_path):
    out = tmp_path / "features"
    embed(house, house / "videos", "--out", out, "--window", 0.25, "--layers", 2)
    listing = json.loads((out / "features.json").read_text())
    files = {str(path.relative_to(out)) for path in out.rglob("*.npy")}
    assert files == {video.replace("mp4", "npy") for video in VIDEOS}
    settings = listing["settings"]
    assert (settings["window"], settings["hop"], settings["layers"]) == (0.25, 0.25, ["block_2"])
    for each in listing["videos"]:
        features = np.load(out / each["file"])
        assert (features.dtype, features.shape, each["rows"]) == (np.float32, (4, 24), 4)
        expected = encoder.embed(house / "videos" / each["name"], window=0.25, layers=(2,))
        np.testing.assert_allclose(features, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_packed_videos_are_embedded_under_the_names_that_they_had(house, tmp_path):
    pack_dataset(house / "videos", tmp_path / "packs", TranscodeConfig(short_side=16))
    for window in ([], ["--window", "0.5"]):
        out = tmp_path / f"{len(window)}.npz"
        embed(house, tmp_path / "packs", "--out", out, *window)
        assert [key.name for key in read(out).keys] == VIDEOS
    embed(house, tmp_path / "packs", "--out", tmp_path / "val.npz", "--split", "val")
    assert [key.name for key in read(tmp_path / "val.npz").keys] == VIDEOS[4:]


def test_several_labels_of_a_video_are_a_row_of_ones_and_zeros(house, tmp_path):
    labels = {VIDEOS[0]: [0, 2], VIDEOS[1]: [1], VIDEOS[2]: [2, 1]}
    lines = [{"path": str(house / "videos" / name), "label": each} for name, each in labels.items()]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    embed(house, tmp_path / "list.jsonl", "--out", tmp_path / "features.npz")
    assert np.load(tmp_path / "features.npz")["labels"].tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 1]]


def test_the_class_token_and_pictures_have_features_too(tmp_path):
    flat = WITH_CLASS_TOKEN.__class__(**{**vars(WITH_CLASS_TOKEN), "tubelet": (1, 4, 4), "positions": "sincos2d"})
    write_encoder(tmp_path / "run", flat)
    (tmp_path / "frames").mkdir()
    for number in range(4):
        Image.new("RGB", (20, 20), (60 * number, 0, 0)).save(tmp_path / "frames" / f"{number}.png")
    (tmp_path / "list.txt").write_text("frames 4 0\n")
    embed(tmp_path, tmp_path / "list.txt", "--out", tmp_path / "features.npz", "--pool", "class")
    assert np.load(tmp_path / "features.npz")["final"].shape == (1, 24)


def test_pictures_are_called_images(tmp_path, capsys):
    write_classifier(tmp_path / "run", sampling=DenseSampling(num_frames=1, stride=1), views=1)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/broken.png").write_bytes(b"no picture")
    embed(tmp_path, tmp_path / "images", "--out", tmp_path / "out.npz", code=2)
    assert "none of 1 images could be embedded" in capsys.readouterr().err
    for name in "ab":
        Image.new("RGB", (20, 20)).save(tmp_path / "images" / f"{name}.png")
    embed(tmp_path, tmp_path / "images", "--out", tmp_path / "out.npz", code=1)
    printed = capsys.readouterr().out
    assert "2 images embedded" in printed
    assert "skipped: 1 image\n" in printed
    assert main(f"data pack {tmp_path}/images --out {tmp_path}/packs --workers 1".split()) == 1
    printed = capsys.readouterr().out
    assert f"packed: {tmp_path}/packs, 2 images, " in printed
    assert "skipped: 1 image\n" in printed


def test_the_result_is_printed_as_text_or_as_json(house, tmp_path, capsys):
    out = tmp_path / "features.npz"
    embed(house, house / "videos", "--out", out, "--window", 0.5)
    assert capsys.readouterr().out == f"features: {out} (npz); 6 videos embedded; 12 rows of final 24\n"
    embed(house, house / "videos", "--out", out, "--window", 0.5, "--json")
    result = json.loads(capsys.readouterr().out)
    assert (result["videos"], result["new_videos"], result["rows"], result["broken"]) == (6, 0, 12, [])


# ---- Names ----------------------------------------------------------------------------------------------------------

ODD = ["a b.mp4", "ü 漢.mp4", "line\nend.mp4", "-dash.mp4", "{0}%s.mp4", "x.tar.mp4", "features.mp4", b"\xff\xfe.mp4"]


@pytest.mark.parametrize("out", ["features.npz", "features.safetensors", "features.parquet", "features"])
def test_any_name_that_a_file_may_have_is_read_back(house, encoder, tmp_path, out):
    skip_without_pyarrow(out)
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ODD:
        shutil.copy(house / "videos" / VIDEOS[0], os.path.join(os.fsencode(videos), os.fsencode(name)))
    expected = {name if isinstance(name, str) else "\\xff\\xfe.mp4" for name in ODD}
    for again in (False, True):
        result = embed_videos(encoder, [videos], tmp_path / out, workers=Workers(workers=0))
        assert (result.videos, result.new_videos) == (len(ODD), 0 if again else len(ODD))
    if out == "features":
        names = {each["name"] for each in json.loads((tmp_path / out / "features.json").read_text())["videos"]}
        assert {path.name for path in (tmp_path / out).glob("*.npy")} == {f"{name[:-4]}.npy" for name in expected}
    else:
        names = {key.name for key in read(tmp_path / out).keys}
    assert names == expected


@pytest.mark.parametrize(
    ("split", "name", "file"),
    [
        ("", "a/b.c.mp4", "a/b.c.npy"),
        ("train", "a/b.mp4", "train/a/b.npy"),
        ("train", "train/b.mp4", "train/b.npy"),
        ("", "../../etc/passwd.mp4", "passwd.npy"),
        ("", "a/../../b.mp4", "b.npy"),
        ("", "/etc/passwd", "passwd.npy"),
        ("val", "s3://bucket/a/b.mp4", "val/b.npy"),
        ("", "..", "...npy"),
        ("", ".", ".npy"),
        ("", "frames/v1", "frames/v1.npy"),
    ],
)
def test_no_name_leads_out_of_the_folder(split, name, file):
    assert npy_file_name(FeatureKey(split, name)) == file


def test_two_videos_of_one_name_are_refused(house, tmp_path, capsys):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shutil.copy(house / "videos" / VIDEOS[0], tmp_path / folder / "a.mp4")
    shutil.copy(house / "videos" / VIDEOS[0], tmp_path / "one" / "a.avi")
    embed(house, tmp_path / "one/a.mp4", tmp_path / "two/a.mp4", "--out", tmp_path / "f.npz", code=2)
    assert "two/a.mp4 have one name, a.mp4; give them in separate commands" in capsys.readouterr().err
    embed(house, tmp_path / "one", "--out", tmp_path / "f", code=2)
    assert "a.avi and a.mp4 would both be" in capsys.readouterr().err
    embed(house, tmp_path / "one", tmp_path / "one", "--out", tmp_path / "f.npz")  # the same ones, twice
    assert [key.name for key in read(tmp_path / "f.npz").keys] == ["a.avi", "a.mp4"]
    assert not (tmp_path / "f").exists()


# ---- Mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--out OUT/f.h5", "f.h5 has no known suffix; use .npz, .safetensors or .parquet"),
        ("--out OUT/f.npz --layers 3", "block 3 does not exist in an encoder of 2 blocks"),
        ("--out OUT/f.npz --pool class", "has no class token"),
        ("--out OUT/f.npz --hop 1", "a hop of 1.0 seconds needs windows"),
        ("--out OUT/f.npz --window 1 --temporal-clips 2", "leave out --window or --temporal-clips"),
        ("--out OUT/f.npz --window 0", "is 0.0; "),
        ("--out OUT/f.npz --device-batch 0", "--device-batch is 0"),
        ("--out OUT/f --layers 1 2", "holds one layer, not 2"),
        ("--out OUT/f.npz --fold 2", "has no fold 2"),
        ("--out VIDEOS", "holds something else than features"),
        ("--out VIDEOS/train.csv --format npz", "exists and holds no features (npz)"),
        ("--out VIDEOS --format npz", "exists and holds no features (npz)"),
        ("--out VIDEOS/train.csv/f.npz", "cannot be written"),
        ("--out VIDEOS/train.csv/f", "cannot be written"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_nothing_is_written(house, tmp_path, capsys, args, message):
    videos = shutil.copytree(house / "videos", tmp_path / "videos")
    before = sorted(tmp_path.rglob("*"))
    args = args.replace("OUT", str(tmp_path / "out")).replace("VIDEOS", str(videos))
    embed(house, videos, *args.split(), code=2)
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "no videos are named"),
        (["empty"], "no videos found"),
        (["images"], "one.png is a picture, and the model needs clips of 4 frames"),
    ],
)
def test_without_videos_there_is_no_file(house, tmp_path, capsys, videos, message):
    for folder in ("empty", "images"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "images/one.png")
    embed(house, *(tmp_path / name for name in videos), "--out", tmp_path / "f.npz", code=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "f.npz").exists()


# ---- Processes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["features.npz", pytest.param("features", marks=pytest.mark.slow)])
def test_two_processes_write_the_bytes_of_one(house, tmp_path, out):
    args = [str(house / "videos"), "--window", "0.5", "--hop", "0.25", *OPTIONS]
    embed(house, *args, "--out", tmp_path / "one" / out)
    printed = tmp_path / "printed.txt"
    assert run_ranks(
        main, ["embed", str(house / "run"), *args, "--out", str(tmp_path / "two" / out)], printed=printed
    ) == [0, 0]
    assert printed.read_text().count("6 videos embedded; 18 rows") == 1
    one, two = (
        {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
