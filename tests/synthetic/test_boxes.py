"""Synthetic clips with boxes: AVA's files, and figures that perform their annotated actions."""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from vidstill.data.ava.box_table import NO_ACTION, BoxTable, read_box_csv, read_excluded_timestamps
from vidstill.data.ava.label_map import read_label_map
from vidstill.data.decode.reader import count_frames, read_frames
from vidstill.synthetic import boxes as boxes_module
from vidstill.synthetic.acting import WORLD_MARGIN, generate_scene
from vidstill.synthetic.boxes import SyntheticBoxesConfig
from vidstill.synthetic.dataset import SYNTHETIC_SPLITS, make_dataset
from vidstill.synthetic.figures import FIRST_INTERACTION, PERSON_ACTIONS, Scene, draw_scene, measure_visibility
from vidstill.utils.rng import derive_sample_seed

TINY = SyntheticBoxesConfig(train=4, val=3, unlabelled=2, seconds=3, size=(32, 48), fps=4)
SIZE, SECONDS, FPS = (64, 96), 6, 8
seeds = st.integers(0, 2**40)


def acted(seed: int) -> Scene:
    return generate_scene(seed, seconds=SECONDS, fps=FPS, size=SIZE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("made"), TINY, workers=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The annotations of a set, its val of the usual size, without its clips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes_module, "draw_scene", lambda *_: None)
        patch.setattr(boxes_module, "encode_h264", lambda *_: b"")
        config = SyntheticBoxesConfig(train=60, val=80, unlabelled=0)
        return make_dataset(tmp_path_factory.mktemp("whole"), config, workers=1) / "annotations"


def by_keyframe(rows: BoxTable) -> dict[tuple[str, int], list[int]]:
    """The rows of each key frame."""
    rows_of_keyframe = defaultdict(list)
    for row in range(len(rows)):
        rows_of_keyframe[rows.video_names[rows.video_index[row]], int(rows.second[row])].append(row)
    return rows_of_keyframe


# ---- The files ------------------------------------------------------------------------------------------------------


def test_the_folder_is_as_ava_lays_out_its_files(tiny):
    videos = {f"videos/train_{n:06d}.mp4" for n in range(4)} | {f"videos/val_{n:06d}.mp4" for n in range(3)}
    lists = {f"{split}{name}.csv" for split in ("train", "val") for name in ("", "_persons", "_excluded_timestamps")}
    annotations = {f"annotations/{name}" for name in (*lists, "actions.pbtxt")}
    unlabelled = {"unlabelled/000000.mp4", "unlabelled/000001.mp4"}
    files = {str(path.relative_to(tiny)) for path in tiny.rglob("*") if path.is_file()}
    assert files == videos | annotations | unlabelled | {"synthetic.json", "SHA256SUMS"}
    assert count_frames(tiny / "videos" / "val_000000.mp4") == 12
    assert read_frames(tiny / "unlabelled" / "000001.mp4", range(12)).shape == (12, 32, 48, 3)


def test_the_files_are_read_by_the_readers_of_ava(whole):
    assert dict(read_label_map(whole / "actions.pbtxt").names) == dict(enumerate(PERSON_ACTIONS, 1))
    for split, count in (("train", 60), ("val", 80)):
        rows = read_box_csv(whole / f"{split}.csv", has_scores=False)
        assert set(rows.video_names) <= {f"{split}_{n:06d}" for n in range(count)}
        assert len(rows.video_names) >= 0.98 * count
        assert set(rows.second) == set(range(1, SECONDS))
        assert set(rows.action_id) <= set(range(1, 13))
        assert (rows.box >= 0).all()
        assert (rows.box <= 1).all()
        assert (rows.box[:, 2:] > rows.box[:, :2]).all()
        excluded = read_excluded_timestamps(whole / f"{split}_excluded_timestamps.csv")
        assert 0 < len(excluded) < 0.1 * count * (SECONDS - 1)


def test_every_action_is_in_val_and_some_are_rare(whole):
    rows = read_box_csv(whole / "val.csv", has_scores=False)
    persons = sum(len(boxes_of(rows, own)) for own in by_keyframe(rows).values())
    counts = Counter(rows.action_id.tolist())
    assert set(counts) == set(range(1, 13))
    assert min(counts.values()) >= 15
    assert max(counts.values()) > 5 * min(counts.values())
    assert 1.3 < len(rows) / persons < 2


def test_a_person_has_one_movement_and_interactions_need_a_partner(whole):
    rows = read_box_csv(whole / "val.csv", has_scores=False)
    for own in by_keyframe(rows).values():
        persons = boxes_of(rows, own)
        for box in persons:
            actions = {int(rows.action_id[row]) for row in own if tuple(rows.box[row]) == box}
            assert len(actions & {1, 2, 3, 4}) <= 1
            assert len(actions) <= 3
            assert len(persons) > 1 or not actions & set(range(FIRST_INTERACTION + 1, 13))


def test_every_visible_figure_of_a_key_frame_is_annotated_unless_it_is_excluded(whole):
    rows_of_keyframe = by_keyframe(rows := read_box_csv(whole / "val.csv", has_scores=False))
    excluded = read_excluded_timestamps(whole / "val_excluded_timestamps.csv")
    for number in range(80):
        scene = acted(derive_sample_seed(0, SYNTHETIC_SPLITS.index("val"), number))
        for second in range(1, SECONDS):
            moment = (f"val_{number:06d}", second)
            shares = [share for _, _, share in measure_visibility(scene, SIZE, second * FPS)]
            clear = sum(share >= 0.3 for share in shares)
            assert moment in excluded or len(boxes_of(rows, rows_of_keyframe.get(moment, []))) == clear
            assert moment in excluded or not any(0.1 <= share < 0.3 for share in shares)


def test_the_simulated_detector_gives_most_boxes_jittered_and_some_false_ones(whole):
    rows = read_box_csv(whole / "train.csv", has_scores=False)
    detections = read_box_csv(whole / "train_persons.csv", has_scores=True)
    annotated, detected = by_keyframe(rows), by_keyframe(detections)
    assert (detections.action_id == NO_ACTION).all()
    assert ((detections.score > 0) & (detections.score <= 1)).all()
    ious, false_boxes = [], []
    for moment in annotated.keys() | detected.keys():
        persons, own = boxes_of(rows, annotated.get(moment, [])), detected.get(moment, [])
        overlaps = box_iou(*(torch.tensor(b, dtype=torch.float64).view(-1, 4) for b in (persons, detections.box[own])))
        ious += overlaps.amax(1).tolist() if own else [0] * len(persons)
        false_boxes += [row for row, column in zip(own, overlaps.T, strict=True) if not column.any()]
    assert 0.9 < np.mean(np.array(ious) > 0.5) < 0.99
    assert np.mean([value for value in ious if value > 0.5]) > 0.75
    assert 0.02 < len(false_boxes) / len(detections) < 0.2
    assert (detections.score[false_boxes] > 0.9).any()  # a negative to learn from
    assert detections.score[false_boxes].mean() < np.delete(detections.score, false_boxes).mean() - 0.1


def boxes_of(rows: BoxTable, own: list[int]) -> list[tuple[float, ...]]:
    return sorted({tuple(rows.box[row].tolist()) for row in own})


# ---- What is drawn --------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(seeds)
@example(105908014)  # a limb that the edge cuts
def test_a_box_holds_its_figure_and_no_more(seed):
    """What changes in a frame when a figure is left out, whatever colours it and the background have."""
    scene = single_frame(acted(seed), 2 * FPS)
    for figure, box, share in measure_visibility(scene, SIZE, 0):
        if share < 0.1:  # it has no box in the annotations
            continue
        others = replace(scene, figures=tuple(each for each in scene.figures if each is not figure))
        with_it, without = (
            np.stack([draw_scene(each, colours, SIZE)[0] for colours in range(seed, seed + 6)]).astype(int)
            for each in (scene, others)
        )
        rows, columns = np.nonzero(np.abs(with_it - without).max((0, -1)) > 24)
        left, top, right, bottom = box * np.tile([SIZE[1], SIZE[0]], 2)
        beyond = np.array([rows - top, bottom - 1 - rows, columns - left, right - 1 - columns])
        assert beyond.min() >= -1
        if share > 0.99:
            assert (beyond.min(1) <= 2).all()
            assert bottom - top > 0.33 * SIZE[0]


def single_frame(scene: Scene, frame: int) -> Scene:
    def cut(item):
        arrays = {key: value[frame : frame + 1] for key, value in vars(item).items() if isinstance(value, np.ndarray)}
        return replace(item, **arrays)

    return Scene(figures=tuple(map(cut, scene.figures)), balls=tuple(map(cut, scene.balls)))


def test_a_figure_behind_another_or_outside_the_frame_is_less_visible():
    shares = []
    for seed in range(60):
        scene = acted(seed)
        for figure, box, share in measure_visibility(scene, SIZE, FPS):
            [(_, same, by_itself)] = measure_visibility(replace(scene, figures=(figure,), balls=()), SIZE, FPS)
            assert np.array_equal(same, box)  # whoever is in front of it
            assert share <= by_itself + 1e-6
            shares.append((share, by_itself))
            assert (by_itself > 0.02) == bool(box.any()) or by_itself < 0.1
    assert any(by_itself > 0.99 and share < 0.7 for share, by_itself in shares)
    assert any(by_itself == 0 for _, by_itself in shares)


def test_the_appearance_of_a_figure_does_not_depend_on_its_actions():
    scene = acted(3)
    still = replace(scene, figures=tuple(replace(each, actions=~each.actions) for each in scene.figures))
    assert np.array_equal(draw_scene(scene, 3, SIZE), draw_scene(still, 3, SIZE))


# ---- What is done ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_no_action_changes_within_half_a_second_of_a_key_frame(seed):
    for figure in acted(seed).figures:
        for second in range(1, SECONDS):
            near = figure.actions[second * FPS - FPS // 2 + 1 : second * FPS + FPS // 2]
            assert (near[:, :5] == near[0, :5]).all()  # a throw ends where the other is at the frame's other side


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_figures_perform_their_annotated_actions(seed):
    scene = acted(seed)
    for figure in scene.figures:
        other = figure if figure.partner is None else scene.figures[figure.partner]
        assert other is not figure or not figure.actions[:, 5:].any()
        for second in range(1, SECONDS):
            now, then = second * FPS - 2, second * FPS + 2  # half a second
            step, span = around(figure.x[then] - figure.x[now]), np.ptp(figure.y[now : then + 1])
            before, after = abs(other.x[now] - figure.x[now]), abs(other.x[then] - figure.x[then])
            partner_actions = doing(other.actions[now])
            stays = bool(partner_actions & {"stand still", "jump"})
            holds = {
                "stand still": abs(step) < 1e-9 and span < 1e-9,
                "move left": -0.19 < step < -0.09 and span < 1e-9,
                "move right": 0.09 < step < 0.19 and span < 1e-9,
                "jump": abs(step) < 1e-9 and span > 0.05,
                "carry (an object)": True,
                "throw (an object)": "catch (an object)" in partner_actions,
                "catch (an object)": "throw (an object)" in partner_actions,
                "approach (a person)": after < before - 0.09 and stays,
                "leave (a person)": after > before + 0.09 and stays,
                "follow (a person)": abs(after - before) < 1e-9 and step * (other.x[now] - figure.x[now]) > 0,
                "circle (a person)": span > 0.03 and abs(step) > 0.03 and stays,
                "touch (a person)": "touch (a person)" in partner_actions and before < 0.33,
            }
            for action in doing(figure.actions[now] & figure.actions[then]):
                assert holds[action], action


def test_touching_hands_meet_and_balls_fly_from_thrower_to_catcher():
    touching, directions = [], []
    for scene in map(acted, range(300)):
        for one, other in ((one, scene.figures[one.partner]) for one in scene.figures if one.partner is not None):
            right, frames = (other.x > one.x).astype(int), np.arange(SECONDS * FPS)
            own_hands, partner_hands = (
                np.array([figure.locate_hand(0), figure.locate_hand(1)]) for figure in (one, other)
            )
            far = np.hypot(*(own_hands[right, :, frames] - partner_hands[1 - right, :, frames]).T)
            touching += list(far[one.actions[:, PERSON_ACTIONS.index("touch (a person)")]])
            throws = one.actions[:, PERSON_ACTIONS.index("throw (an object)")]
            if len(scene.balls) == 1 and not any(figure.actions[:, 4].any() for figure in scene.figures):
                steps = np.sign(np.diff(scene.balls[0].x)) == np.sign(other.x - one.x)[1:]
                directions += list(steps[throws[1:] & throws[:-1]])
    assert len(touching) > 100
    assert max(touching) < 0.02
    assert len(directions) > 100
    assert np.mean(directions) > 0.8  # seven steps in eight; then there is a new one


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    return [generate_scene(seed, seconds=3, fps=4, size=SIZE) for seed in range(1500)]


def furthest_from_uniform(sample: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance, in units that are exceeded once in 50 000 samples of what is uniform."""
    grid = (np.arange(len(sample)) + 0.5) / len(sample)
    return float(np.abs(np.sort(sample) - grid).max() * np.sqrt(len(sample)) / 2.4)


def test_no_single_frame_shows_a_movement_by_position_or_arms(many):
    world = SIZE[1] / SIZE[0] + 2 * WORLD_MARGIN
    for frame in (4, 8):
        firsts = [scene.figures[0] for scene in many]  # of a clip's figures, whose places hang together, one
        for action in ("stand still", "move left", "move right", "jump"):
            actors = [figure for figure in firsts if action in doing(figure.actions[frame])]
            assert len(actors) > 100
            positions = np.array([(figure.x[frame] + WORLD_MARGIN) / world for figure in actors])
            assert furthest_from_uniform(positions) < 1, action
        for name, number in {
            "floor": lambda figure, frame: figure.depth[frame],
            "height": lambda figure, frame: figure.height,
            "left arm": lambda figure, frame: figure.arm_angles[frame, 0],
            "right arm": lambda figure, frame: figure.arm_angles[frame, 1],
        }.items():
            left, right = (
                np.array([number(figure, frame) for figure in firsts if action in doing(figure.actions[frame])])
                for action in ("move left", "move right")
            )
            error = np.hypot(left.std() / np.sqrt(len(left)), right.std() / np.sqrt(len(right)))
            assert abs(left.mean() - right.mean()) < 4 * error, name


def around(step: float) -> float:
    """A step on the world's circle, the shorter way."""
    world = SIZE[1] / SIZE[0] + 2 * WORLD_MARGIN
    return float((step + world / 2) % world - world / 2)


def doing(does: np.ndarray) -> set[str]:
    return {action for action, here in zip(PERSON_ACTIONS, does, strict=True) if here}
