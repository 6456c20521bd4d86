"""Contact sheets: what they show, that everything fits, and where they may be written."""

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA
from PIL import Image
from tiny_videos import cut_short, number_of, write_video

from vidstill.cli.main import main
from vidstill.data.decode.reader import VideoReader
from vidstill.data.manifest.open import open_split_manifests
from vidstill.figures import contact_sheet as sheets
from vidstill.figures.contact_sheet import (
    MAX_STRIPS,
    STRIP_COLUMNS,
    SheetCell,
    SheetStrip,
    draw_contact_sheet,
    render_sheet,
)
from vidstill.figures.text_fit import load_font, truncate_end, truncate_start, wrap_text
from vidstill.utils.files import write_bytes
from vidstill.utils.types import InputError

TEXT = st.text(st.characters(exclude_categories=[]), max_size=60) | st.sampled_from(["w" * 5000, "a\n" * 50, "\udcff"])
BLUE = (0, 0, 255)


def strips_of(data: Path) -> list[SheetStrip]:
    """What is drawn on a data set's sheet."""
    draws: list[SheetStrip] = []

    def keep(title: str, lines: list[str], strips: list[SheetStrip]) -> bytes:
        draws.extend(strips)
        return b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets, "render_sheet", keep)
        draw_contact_sheet("", open_split_manifests(data), progress=lambda done, of: None)
    return draws


def sheet_of(data: Path) -> bytes:
    return draw_contact_sheet(str(data), open_split_manifests(data), progress=lambda done, of: None)


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return image


def write_picture(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, BLUE).save(path)
    return path


def numbers(strip: SheetStrip) -> list[int]:
    return [number_of(np.asarray(cell.image.resize((64, 32)))) for cell in strip.cells]


def test_a_class_is_shown_by_evenly_spaced_frames_of_one_of_its_videos(tmp_path):
    write_video(tmp_path / "run" / "a.mp4", 60)
    write_video(tmp_path / "jump" / "b.mp4", 120)
    jump, run = strips_of(tmp_path)
    assert (jump.title, jump.file_name, jump.notes) == (
        "jump",
        "jump/b.mp4",
        ["class 0: 1 video", "120 frames, 4.80 s, 64x32"],
    )
    assert run.title == "run"
    assert numbers(run) == [5, 15, 25, 35, 45, 55]
    assert numbers(jump) == [10, 30, 50, 70, 90, 110]
    assert [cell.caption for cell in run.cells] == ["0.20 s", "0.60 s", "1.00 s", "1.40 s", "1.80 s", "2.20 s"]


@pytest.mark.parametrize("frames", [1, 2, 5, 6, 7])
def test_a_short_video_shows_no_frame_twice(tmp_path, frames):
    (strip,) = strips_of(write_video(tmp_path / "a.mp4", frames))
    assert len(set(numbers(strip))) == len(strip.cells) == min(frames, STRIP_COLUMNS)


def test_a_class_of_pictures_is_shown_by_several_of_them(tmp_path):
    for n in range(8):
        write_picture(tmp_path / "cats" / f"{n}.png")
    write_picture(tmp_path / "dogs" / "1.png")
    cats, dogs = strips_of(tmp_path)
    assert len({cell.caption for cell in cats.cells}) == STRIP_COLUMNS
    assert all(cell.caption.startswith("cats/") for cell in cats.cells)
    assert [cell.caption for cell in dogs.cells] == ["dogs/1.png"]


def test_pictures_without_classes_fill_the_sheet(tmp_path):
    for n in range(9):
        write_picture(tmp_path / f"{n}.png")
    captions = [cell.caption for strip in strips_of(tmp_path) for cell in strip.cells]
    assert captions == [f"{n}.png" for n in range(9)]


def test_of_more_classes_than_fit_some_are_drawn_and_always_the_same(tmp_path):
    for n in range(2 * MAX_STRIPS):
        write_picture(tmp_path / f"{n:02}" / "a.png")
    titles = [strip.title for strip in strips_of(tmp_path)]
    assert len(titles) == MAX_STRIPS
    assert titles == sorted(set(titles))
    assert titles != [f"{n:02}" for n in range(MAX_STRIPS)]  # not just the first
    assert sheet_of(tmp_path) == sheet_of(tmp_path)


def test_videos_without_classes_have_a_strip_each(tmp_path):
    for n in range(3):
        write_video(tmp_path / "deep" / f"{n}.mp4", 3)
    (tmp_path / "all.txt").write_text("".join(f"deep/{n}.mp4\n" for n in range(3)))
    strips = strips_of(tmp_path / "all.txt")
    assert [(strip.title, strip.file_name) for strip in strips] == [(f"{n}.mp4", f"deep/{n}.mp4") for n in range(3)]


def test_every_split_may_show_a_class_and_is_named(tmp_path):
    write_video(tmp_path / "train" / "run" / "a.mp4", 3)
    write_video(tmp_path / "val" / "jump" / "b.mp4", 3)
    jump, run = strips_of(tmp_path)
    assert (jump.file_name, jump.notes[-1], run.file_name, run.notes[-1]) == ("jump/b.mp4", "val", "run/a.mp4", "train")


def test_a_broken_video_is_a_cell_that_says_why(tmp_path):
    write_video(tmp_path / "good.mp4", 4)
    cut_short(write_video(tmp_path / "bad.mp4", 4))
    bad, good = strips_of(tmp_path)
    assert [cell.image for cell in bad.cells] == [None]
    assert bad.cells[0].error.startswith("does not decode: ")
    assert numbers(good) == [0, 1, 2, 3]


def test_what_a_scan_calls_broken_is_not_decoded_again(tmp_path):
    write_video(tmp_path / "a.mp4", 4)
    (tmp_path / "videos.jsonl").write_text('{"path": "a.mp4", "error": "breaks after 2 frames"}\n')
    (strip,) = strips_of(tmp_path / "videos.jsonl")
    assert [cell.error for cell in strip.cells] == ["breaks after 2 frames"]


def test_packed_videos_are_shown(tmp_path):
    video = write_video(tmp_path / "a.mp4", 4).read_bytes()
    packs = tmp_path / "packs"
    packs.mkdir()
    (packs / "0.tar").write_bytes(b"x" + video + b"not a video")
    rows = [
        {"path": "run/a.mp4", "class": "run", "shard": "0.tar", "offset": 1, "bytes": len(video)},
        {"path": "run/b.mp4", "class": "jump", "shard": "0.tar", "offset": 1 + len(video), "bytes": 11},
    ]
    (packs / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    jump, run = strips_of(packs)
    assert numbers(run) == [0, 1, 2, 3]
    assert jump.cells[0].error.startswith("does not decode: ")


@given(st.lists(st.tuples(st.integers(1, 1500), st.integers(1, 1500)), min_size=1, max_size=STRIP_COLUMNS))
def test_pictures_of_any_shape_keep_it_and_do_not_touch(sizes):
    cells = [SheetCell(image=Image.new("RGB", size, BLUE)) for size in sizes]
    blue = (np.asarray(opened(render_sheet("", [], [SheetStrip(cells=cells)]))) == BLUE).all(-1)
    columns = blue.any(0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], columns, [0]]).astype(int)))
    assert len(edges) == 2 * len(sizes)  # each stands by itself
    for (wide, high), left, right in zip(sizes, edges[::2], edges[1::2], strict=True):
        displayed = np.array([right - left, blue[:, left:right].any(1).sum()])
        scale = displayed.max() / max(wide, high)
        assert np.abs(displayed - scale * np.array([wide, high])).max() <= 1.5  # two roundings


@settings(max_examples=25)  # each draws two sheets
@given(TEXT, TEXT, TEXT, TEXT, TEXT)
def test_no_text_moves_or_covers_a_picture(title, line, file, note, caption):
    def draws(title: str, line: str, *, texts: tuple[str, str, str], wrong: str) -> np.ndarray:
        cells = [SheetCell(image=Image.new("RGB", (40, 30), BLUE), caption=texts[2])] * STRIP_COLUMNS
        broken = [SheetCell(error=wrong, caption=texts[2])]
        notes = [texts[1]] * 3
        strips = [
            SheetStrip(cells=each, title=f"x{texts[0]}", file_name=texts[0], notes=notes)
            for each in (cells, broken, cells)
        ]
        return np.asarray(opened(render_sheet(title, [line], strips)))

    plain = (draws("", "", texts=("", "", ""), wrong="") == BLUE).all(-1)
    full = (draws(title, line, texts=(file, note, caption), wrong=note) == BLUE).all(-1)
    assert plain.any()
    assert np.array_equal(plain, full)


@given(TEXT, st.integers(20, 400), st.sampled_from([10, 12, 15]))
def test_a_text_fits_its_room(text, room, size):
    font = load_font(size)
    for line in (truncate_end(text, room, font), truncate_start(text, room, font), *wrap_text(text, room, font, 3)):
        assert font.getlength(line) <= room
        assert line.isprintable()


def test_a_text_that_is_too_long_is_cut_where_it_says_least():
    texts, font = "pretending to put something behind something", load_font(12)
    assert truncate_end(texts, 100, font).startswith("pretending")
    assert truncate_end(texts, 100, font).endswith("…")
    assert truncate_start("a/very/long/path/of/v_Biking_g05.avi", 120, font).endswith("g05.avi")
    assert wrap_text(texts, 120, font, 2)[0] == "pretending to put"
    assert wrap_text("short", 120, font, 2) == ["short"]
    assert wrap_text("", 120, font, 2) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is a directory; name a file"),
        ("list.csv", "does not end in .png"),
        ("list.csv/sheet.png", "cannot be written"),
    ],
)
def test_where_no_sheet_can_be_is_said_before_anything_is_decoded(tmp_path, capsys, monkeypatch, name, why):
    write_video(tmp_path / "a.mp4", 4)
    (tmp_path / "list.csv").write_text("a.mp4 0\n")
    monkeypatch.setattr(VideoReader, "__init__", lambda *_, **__: pytest.fail("a video was opened"))
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "inspect", str(tmp_path / "list.csv"), "--contact-sheet", str(tmp_path / name)]) == 2
    assert why in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sheet_is_not_put_among_its_own_images(tmp_path, capsys):
    write_picture(tmp_path / "cats" / "1.png")
    assert main(["data", "inspect", str(tmp_path), "--contact-sheet", str(tmp_path / "sheet.png")]) == 2
    assert "would count as one of the images" in capsys.readouterr().err


def test_the_command_writes_a_sheet_in_place_of_an_old_one(tmp_path, capsys):
    write_video(tmp_path / "run" / "a.mp4", 4)
    png = tmp_path / "sheet.png"
    png.write_bytes(b"an old one")
    assert main(["data", "inspect", str(tmp_path), "--contact-sheet", str(png)]) == 0
    assert f"sheet: {png}" in capsys.readouterr().out
    opened(png.read_bytes())
    assert main(["data", "inspect", str(tmp_path), "--contact-sheet", str(png), "--json"]) == 0
    json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "sheet.png"]


def test_a_full_disk_leaves_the_old_sheet(tmp_path, monkeypatch):
    png = tmp_path / "sheet.png"
    png.write_bytes(b"an old one")

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_bytes(png, b"a new one")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"sheet.png": b"an old one"}


def folders_of(name: str) -> list:
    """The folders under the data's folder in which a file of this name describes what there is."""
    params = [pytest.param(path.parent, id=path.parent.name) for path in sorted(DATA.rglob(name))]
    return params or [pytest.param(None, marks=pytest.mark.skip(f"no {name} is under {DATA}; set VIDSTILL_DATA"))]


@pytest.mark.files
@pytest.mark.parametrize("folder", folders_of("clips.json"))
def test_real_files_are_shown_or_crossed_out(folder):
    strips = strips_of(folder)
    facts = {each["file"]: each["decoded_frames"] for each in json.loads((folder / "clips.json").read_text())}
    crossed = {strip.title for strip in strips for cell in strip.cells if cell.image is None}
    assert crossed == {strip.title for strip in strips if not facts[strip.title]}


@pytest.mark.files
@pytest.mark.parametrize("folder", folders_of("classes.txt"))
def test_each_class_of_real_files_is_a_strip(folder):
    strips = strips_of(folder)
    assert all(cell.image is not None for strip in strips for cell in strip.cells)
    assert [strip.title for strip in strips] == (folder / "classes.txt").read_text().splitlines()
