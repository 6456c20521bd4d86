"""Holding out videos: stratified by class, whole files and groups on one side, the same split each time."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vidstill.data.manifest.hold_out import hold_out, identify_files, list_folds
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest
from vidstill.data.manifest.table import VideoTable
from vidstill.utils.types import InputError


def write_list(folder: Path, lines: list[str], name: str = "list.csv") -> Path:
    """Write a list, and an empty file for each path in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for line in lines[1:] if lines[0].startswith("path,") else lines:
        file = folder / line.replace(",", " ").split()[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (folder / name).write_text("\n".join(lines))
    return folder / name


def names(manifest: Manifest) -> list[str]:
    return [row.name for row in manifest.rows]


def count_labels(manifest: Manifest) -> dict[str, int]:
    return dict(Counter(manifest.classes[label] for row in manifest.rows for label in row.labels))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_each_class_gives_its_share_and_no_video_is_lost(tmp_path, share):
    lines = [f"{label}/{i}.mp4 {label}" for label, count in enumerate((100, 40, 10)) for i in range(count)]
    manifest = open_manifest(write_list(tmp_path, lines))
    rest, part = hold_out(manifest, share)
    assert count_labels(part) == {"0": 100 * share, "1": 40 * share, "2": 10 * share}
    assert sorted(names(rest) + names(part)) == sorted(names(manifest))
    assert rest.classes == part.classes == manifest.classes


def test_a_small_share_still_holds_out_a_video_of_each_class_and_a_large_one_leaves_one(tmp_path):
    manifest = open_manifest(write_list(tmp_path, [f"{i}.mp4 {i % 3}" for i in range(6)]))
    for share in (0.01, 0.99):
        assert [count_labels(part) for part in hold_out(manifest, share)] == [{"0": 1, "1": 1, "2": 1}] * 2


def test_a_split_depends_on_the_seed_alone(tmp_path):
    manifest = open_manifest(write_list(tmp_path, [f"{i}.mp4 {i % 2}" for i in range(40)]))
    first, again, other = (hold_out(manifest, 0.2, seed=seed)[1] for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert "20 %" in first.description


def test_rows_of_one_file_are_on_one_side_however_they_spell_it(tmp_path):
    lines = [f"clips/{i}.mp4 {i % 2}" for i in range(10)]
    path = write_list(tmp_path, lines)
    (tmp_path / "link").symlink_to("clips")
    (tmp_path / "clips/again.mp4").symlink_to("3.mp4")
    path.write_text(
        "\n".join([*lines, *(f"{tmp_path}/./link/{i}.mp4 {i % 2}" for i in range(10)), "clips/again.mp4 1"])
    )
    manifest = open_manifest(path)
    files = identify_files(manifest.rows)
    assert [*files[:10], files[3]] == files[10:]
    rest, part = (set(identify_files(each.rows)) for each in hold_out(manifest, 0.3))
    assert rest.isdisjoint(part)
    assert rest | part == set(files)


def test_several_labels_count_for_each_class(tmp_path):
    lines = [f"{i}.mp4 {label}" for i, label in enumerate(["0", "1", "0,1", "1,2", "0,2"] * 8)]
    parts = hold_out(open_manifest(write_list(tmp_path, lines)), 0.25)
    for name, total in count_labels(open_manifest(tmp_path / "list.csv")).items():
        assert abs(count_labels(parts[1])[name] - total / 4) <= 1


def test_videos_without_labels_are_split_too(tmp_path):
    rest, part = hold_out(open_manifest(write_list(tmp_path, [f"{i}.mp4" for i in range(10)])), 0.2)
    assert (len(rest), len(part)) == (8, 2)


def test_a_class_of_one_video_stays_to_train_on(tmp_path):
    manifest = open_manifest(write_list(tmp_path, ["a.mp4 0", "b.mp4 1", "c.mp4 1"]))
    assert [count_labels(part) for part in hold_out(manifest, 0.5)] == [{"0": 1, "1": 1}, {"1": 1}]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, 20.0, float("nan")])
def test_a_share_that_is_none(tmp_path, share):
    manifest = open_manifest(write_list(tmp_path, ["a.mp4 0", "b.mp4 1"]))
    with pytest.raises(InputError, match="between 0 and 1"):
        hold_out(manifest, share)


def test_one_file_cannot_be_on_two_sides(tmp_path):
    manifest = open_manifest(write_list(tmp_path, ["a.mp4 0", "a.mp4 0"]))
    with pytest.raises(InputError, match=r"its 1 file would be on one side; add others$"):
        hold_out(manifest, 0.5)


# ---- Groups ---------------------------------------------------------------------------------------------------------


def write_persons(folder: Path, persons: int = 5, classes: int = 4) -> Path:
    """Each person does each action, some more often than others."""
    rows = [
        f"clips/{person}_{label}_{i}.mp4,action{label},p{person}"
        for person in range(persons)
        for label in range(classes)
        for i in range(1 + person % 3)
    ]
    return write_list(folder, ["path,label,group", *rows])


def test_whole_groups_are_held_out(tmp_path):
    rest, part = hold_out(open_manifest(write_persons(tmp_path)), 0.25, by="group")
    persons = [{name.removeprefix("clips/")[0] for name in names(each)} for each in (rest, part)]
    assert not persons[0] & persons[1]
    assert set(count_labels(rest)) == set(count_labels(part)) == {f"action{label}" for label in range(4)}
    assert len(part) == 0.25 * (len(rest) + len(part)) - 1  # 36 clips of persons with 4, 8, 12, 4 and 8


def test_groups_are_chosen_to_come_near_the_share(tmp_path):
    sizes = (10, 3, 3, 2, 2)
    lines = [f"{group}/{i}.mp4,{label},g{group}" for group, n in enumerate(sizes) for i in range(n) for label in "a"]
    manifest = open_manifest(write_list(tmp_path, ["path,label,group", *lines]))
    for seed in range(5):
        assert len(hold_out(manifest, 0.3, by="group", seed=seed)[1]) == 6


def test_directories_are_groups(tmp_path):
    lines = [f"p{person}/{i}.mp4 {i % 2}" for person in range(5) for i in range(4)]
    rest, part = hold_out(open_manifest(write_list(tmp_path, lines)), 0.2, by="directory")
    assert len({name[:2] for name in names(part)}) == 1
    assert not {name[:2] for name in names(part)} & {name[:2] for name in names(rest)}


def test_names_of_ucf101_state_groups(tmp_path):
    lines = [
        f"v_{c}_g{g:02d}_c{i:02d}.avi {label}" for label, c in enumerate(("A", "B")) for g in range(5) for i in range(3)
    ]
    rest, part = hold_out(open_manifest(write_list(tmp_path, lines)), 0.2, by="group")
    assert count_labels(part) == {"0": 3, "1": 3}
    assert not {name[:7] for name in names(part)} & {name[:7] for name in names(rest)}


def test_groups_of_json_lines_may_be_numbers(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.mp4").touch()
    lines = [f'{{"path": "{i}.mp4", "label": {i % 2}, "group": {i // 4}}}' for i in range(8)]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    rest, part = hold_out(open_manifest(tmp_path / "list.jsonl"), 0.5, by="group")
    assert {tuple(names(rest)), tuple(names(part))} == {
        tuple(f"{i}.mp4" for i in side) for side in (range(4), range(4, 8))
    }


def test_a_video_without_a_group_is_one_of_its_own(tmp_path):
    rows = ["a.mp4,0,p1", "b.mp4,0,p1", "c.mp4,0,", "d.mp4,0,"]
    rest, part = hold_out(open_manifest(write_list(tmp_path, ["path,label,group", *rows])), 0.25, by="group")
    assert names(part) in (["c.mp4"], ["d.mp4"])
    assert {"a.mp4", "b.mp4"} < set(names(rest))


def test_groups_that_nothing_states(tmp_path):
    manifest = open_manifest(write_list(tmp_path, ["a.mp4 0", "b.mp4 1"]))
    with pytest.raises(InputError, match="column `group`"):
        hold_out(manifest, 0.5, by="group")


def test_a_file_in_two_groups(tmp_path):
    manifest = open_manifest(write_list(tmp_path, ["path,label,group", "a.mp4,0,p1", "a.mp4,0,p2", "b.mp4,0,p3"]))
    with pytest.raises(InputError, match=r"a\.mp4 is in the groups 'p1' and 'p2'"):
        hold_out(manifest, 0.5, by="group")


@pytest.mark.parametrize(("by", "word"), [("group", "group"), ("directory", "directory")])
def test_one_group_cannot_be_on_two_sides(tmp_path, by, word):
    manifest = open_manifest(write_list(tmp_path, ["path,label,group", "a.mp4,0,p", "b.mp4,1,p"]))
    with pytest.raises(InputError, match=f"its 1 {word} would be on one side; .* --by clip"):
        hold_out(manifest, 0.5, by=by)


def test_a_large_list_is_split_in_one_pass():
    index = np.arange(100_000) % 7
    rows = VideoTable(Path("/d"), [f"{i}.mp4" for i in range(len(index))], {"label": index, "file_size": index})
    manifest = Manifest(rows, tuple("abcdefg"), "", Path(), "")
    assert set(np.bincount(hold_out(manifest, 0.1)[1].rows.labels)) <= {1428, 1429}


# ---- Folds ----------------------------------------------------------------------------------------------------------


def test_each_video_is_held_out_in_one_fold_and_each_class_in_every_fold(tmp_path):
    lines = [f"{label}/{i}.mp4 {label}" for label, count in enumerate((30, 12, 2)) for i in range(count)]
    manifest = open_manifest(write_list(tmp_path, lines))
    folds = list_folds(manifest, 3)
    assert sorted(name for _, part in folds for name in names(part)) == sorted(names(manifest))
    for rest, part in folds:
        assert sorted(names(rest) + names(part)) == sorted(names(manifest))
        assert (count_labels(part)["0"], count_labels(part)["1"]) == (10, 4)
    assert [each.fingerprint for fold in list_folds(manifest, 3) for each in fold] == [
        each.fingerprint for fold in folds for each in fold
    ]


def test_without_groups_neighbours_by_name_stay_together_however_the_list_is_ordered(tmp_path):
    paths = [f"p{person}_{label}_{i}.mp4" for label in "ab" for person in range(3) for i in range(4)]
    order = np.random.default_rng(0).permutation(len(paths))
    manifest = open_manifest(write_list(tmp_path, [f"{paths[i]} {int('_b_' in paths[i])}" for i in order]))
    persons = [{name.partition("_")[0] for name in names(part)} for _, part in list_folds(manifest, 3)]
    assert persons == [{"p0"}, {"p1"}, {"p2"}]


def test_groups_stay_together_unless_there_are_fewer_than_folds(tmp_path):
    rows = [f"{i}.mp4,{i % 2},{i % 7 // 2}" for i in range(56)]
    manifest = open_manifest(write_list(tmp_path / "four", ["path,label,group", *rows]))
    folds = list_folds(manifest, 3)
    groups = [{manifest.rows.groups[index] for index in part.rows.column("group")} for _, part in folds]
    assert len(folds) == 3
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups)) == 4
    two = open_manifest(
        write_list(tmp_path / "two", ["path,label,group", *(f"{i}.mp4,{i % 2},{i % 4 // 2}" for i in range(24))])
    )
    assert [count_labels(part) for _, part in list_folds(two, 3)] == [{"0": 4, "1": 4}] * 3


def test_rows_of_one_file_are_held_out_together(tmp_path):
    lines = ["path,label", *(f"{i // 2}.mp4,{i // 2 % 2}" for i in range(24))]
    manifest = open_manifest(write_list(tmp_path, lines))
    files = [set(names(part)) for _, part in list_folds(manifest, 3)]
    assert sum(map(len, files)) == len(set.union(*files)) == 12
