"""docs/evidence.md says what its CSV says; its script resumes, and its intervals are those of a paired bootstrap."""

import importlib
from dataclasses import replace

import numpy as np
import pytest
from paths import PROJECT
from PIL import Image

import vidstill
from vidstill.data.datasets import frame_cache
from vidstill.data.decode import reader
from vidstill.engine.lr_schedule import CosineConfig
from vidstill.recipes import quickstart as recipes
from vidstill.tasks.probes import attentive

PAGE = PROJECT / "docs" / "evidence.md"


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PROJECT / "scripts")
        yield {name: importlib.import_module(name) for name in ("evidence", "evidence_arms", "evidence_tables")}


@pytest.fixture(scope="module")
def tables(scripts):
    return scripts["evidence_tables"]


# ---- The page -------------------------------------------------------------------------------------------------------


def test_the_tables_of_the_page_are_those_of_its_csv(tables, tmp_path):
    page, text = tmp_path / "evidence.md", PAGE.read_text()
    page.write_text(text.partition(tables.START)[0] + tables.START + tables.END + text.partition(tables.END)[2])
    tables.write_page(page, tables.format_tables(tables.read_rows(PAGE.with_suffix(".csv"))))
    assert page.read_text() == text, "run `python scripts/evidence.py table docs/evidence.csv`, commit docs/evidence.md"


def test_the_csv_is_sorted_and_its_values_are_those_of_its_bits(tables, tmp_path):
    rows = tables.read_rows(PAGE.with_suffix(".csv"))
    assert tables.write_rows(tmp_path / "copy.csv", rows).read_bytes() == PAGE.with_suffix(".csv").read_bytes()
    for row in rows:
        correct = tables.decode_bits(row["correct"], int(row["tested"]))
        assert float(row["value"]) == round(100 * float(correct.mean()), 2)


# ---- The interval ---------------------------------------------------------------------------------------------------


def test_bits_come_back(tables):
    bits = np.random.default_rng(0).random(3001) < 0.5
    assert (tables.decode_bits(tables.encode_bits(bits), 3001) == bits).all()


def test_an_interval_of_two_seeds_is_what_can_be_worked_out_by_hand(tables):
    """One seed is better by all clips, one equal: two draws of the seeds give 0, 50 or 100 points, 1 : 2 : 1."""
    first, second = np.array([[True] * 5, [False] * 5]), np.zeros((2, 5), bool)
    assert tables.bootstrap_difference(first, second) == (50.0, 0.0, 100.0)


def test_a_difference_that_all_seeds_and_clips_share_has_no_width(tables):
    first, second = np.ones((3, 40), bool), np.zeros((3, 40), bool)
    assert tables.bootstrap_difference(first, second) == (100.0, 100.0, 100.0)


def test_what_both_students_have_right_or_wrong_does_not_widen_the_interval(tables):
    """Paired: two equal students, whose top-1 varies between clips and seeds."""
    correct = np.random.default_rng(0).random((5, 300)) < np.linspace(0.2, 0.8, 5)[:, None]
    assert tables.bootstrap_difference(correct, correct) == (0.0, 0.0, 0.0)


def test_the_interval_of_the_opposite_difference_is_the_opposite(tables):
    first, second = (np.random.default_rng(seed).random((5, 300)) < 0.5 for seed in (0, 1))
    mean, low, high = tables.bootstrap_difference(first, second)
    assert tables.bootstrap_difference(second, first) == pytest.approx((-mean, -high, -low))


def test_with_one_seed_the_interval_is_that_of_the_mean_over_clips(tables):
    first, second = (np.random.default_rng(seed).random((1, 2000)) < share for seed, share in ((0, 0.6), (1, 0.5)))
    difference = first.astype(float) - second
    error = 1.96 * 100 * difference.std() / 2000**0.5
    mean, low, high = tables.bootstrap_difference(first, second)
    assert (mean - low, high - mean) == pytest.approx((error, error), rel=0.06)


def test_seeds_that_differ_widen_the_interval(tables):
    same = np.tile(np.random.default_rng(0).random(1000) < 0.5, (4, 1))
    differing = np.random.default_rng(0).random((4, 1000)) < np.array([[0.2], [0.4], [0.6], [0.8]])
    widths = [high - low for _, low, high in (tables.bootstrap_difference(each, ~each) for each in (same, differing))]
    assert widths[1] > 3 * widths[0]


# ---- The protocol ---------------------------------------------------------------------------------------------------


def test_the_test_clips_are_drawn_with_a_seed_that_nothing_else_uses(scripts):
    arms = scripts["evidence_arms"]
    sets = [arms.choose_drawn_clips(arms.Protocol(), seed) for seed in range(5)]
    others = {each for clips in sets for each in (clips.unlabelled, *clips.labelled.values(), clips.validation)}
    seeds = {address.rpartition("seed=")[2] for address in others} | {str(arms.IMAGE_TEACHER_CLIPS)}
    assert {clips.test.rpartition("seed=")[2] for clips in sets} == {str(arms.TEST_CLIPS)}
    assert str(arms.TEST_CLIPS) not in seeds
    assert len({clips.unlabelled for clips in sets}) == 5


def test_table_2_takes_the_students_that_have_more_epochs_at_equal_compute(scripts):
    arms, protocol = scripts["evidence_arms"], scripts["evidence_arms"].Protocol()
    operations = {key: arms.count_operations(recipe) for key, recipe in arms.STUDENTS.items()}
    epochs = {key: round(protocol.epochs * max(operations.values()) / n) for key, n in operations.items()}
    assert tuple(key for key in epochs if epochs[key] > 1.25 * protocol.epochs) == scripts["evidence_tables"].LONGER
    assert not [key for key in epochs if 1.25 * protocol.epochs >= epochs[key] > protocol.epochs and key != "amd"]


def test_every_student_of_the_tables_is_one_that_is_trained(scripts):
    arms, tables = scripts["evidence_arms"], scripts["evidence_tables"]
    rows = {arm for _, _, rows in tables.ABLATIONS for _, _, arm in rows}
    assert rows >= set(arms.ABLATIONS)
    assert rows <= arms.ABLATIONS.keys() | arms.STUDENTS.keys()
    assert set(tables.STUDENTS) == {"scratch", *arms.STUDENTS}
    for key, recipe in arms.ABLATIONS.items():  # but for the method's field that is ablated, its student's of table 1
        method = {"amd": "amd", "mvd": "mvd"}.get(key.split("_")[0], "maskagain")
        assert recipe.optim == arms.STUDENTS[method].optim


# ---- The whole command, at a toy size -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def comparison(scripts, tmp_path_factory):
    """The script with a protocol of 16 clips, and the weights of a teacher."""
    folder, script = tmp_path_factory.mktemp("evidence"), scripts["evidence"]
    protocol = scripts["evidence_arms"].Protocol(
        num_unlabelled=16,
        num_labelled={"few": 8, "many": 16},
        num_validation=16,
        num_monitored=8,
        num_test=24,
        epochs=1,
        image_teacher_epochs=1,
        finetuning_steps=2,
        learning_rates=(5e-4, 2e-3),
        batch=8,
        finetuning_batch=8,
    )
    recipe = replace(recipes.teacher, schedule=CosineConfig(epochs=1), batch=8)
    teacher = vidstill.pretrain(recipe, data=f"made:unlabelled=16,{recipes.CLIPS}", out=folder / "teacher", workers=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "PROTOCOL", protocol)
        patch.setattr(attentive, "ATTENTIVE_MIN_STEPS", 5)
        yield script, folder, str(teacher)


def read_csv(tables, path, *, without=("seconds", "commit")):
    return [{name: row[name] for name in row if name not in without} for row in tables.read_rows(path)]


def compare(script, out, page, teacher, **options):
    script.run(out, teacher=teacher, seeds=(0,), **options)
    script.run_test(out)
    script.table(out, page=page)


@pytest.mark.timeout(900)  # twenty students
def test_the_command_goes_from_nothing_to_the_tables(comparison, tables, monkeypatch):
    script, folder, teacher = comparison
    monkeypatch.setattr(script, "PROTOCOL", replace(script.PROTOCOL, learning_rates=(1e-3,)))
    page = folder / "page.md"
    page.write_text(f"# Evidence\n\n{tables.START}{tables.END}Below.\n")
    for part in ("main", "compute", "ablations"):
        compare(script, folder / "out", page, teacher, part=part)
    text = page.read_text()
    assert text.startswith("# Evidence\n\n" + tables.START)
    assert text.endswith(tables.END + "Below.\n")
    titles = [line for line in text.splitlines() if line.startswith("### ")]
    assert titles == ["### Table 1: equal epochs", "### Table 2: equal compute"] + [
        f"### {heading}" for heading, _, _ in tables.ABLATIONS
    ]
    assert "| – |" not in text.partition("### Table 2")[0].partition("| VideoMAE |")[2].partition("| the teacher")[0]
    rows = tables.read_rows(page.with_suffix(".csv"))
    assert {row["tested"] for row in rows} == {"24"}
    costs = {(row["arm"], row["budget"]): int(row["multiply_adds"]) for row in rows}
    assert costs["videomae", "compute"] == 4 * costs["videomae", "epochs"]
    assert costs["videomae", "compute"] == pytest.approx(costs["mvd", "epochs"], rel=0.1)
    before = page.read_bytes()
    script.table(page.with_suffix(".csv"), page=page)
    assert page.read_bytes() == before
    for module, name in ((vidstill, "finetune"), (script, "score_student")):
        monkeypatch.setattr(module, name, lambda *_, **options: pytest.fail("it was trained or tested before"))
    compare(script, folder / "out", page, teacher)
    assert page.read_bytes() == before


def test_a_command_that_is_interrupted_goes_on_to_the_same_results(comparison, tables, monkeypatch):
    script, folder, teacher = comparison
    monkeypatch.setattr(script, "PROTOCOL", replace(script.PROTOCOL, num_labelled={"many": 16}))
    pages = [folder / name for name in ("whole.md", "interrupted.md")]
    for page in pages:
        page.write_text(tables.START + tables.END)
    compare(script, folder / "whole", pages[0], teacher, only="dmae")
    calls = {"pretrain": vidstill.pretrain, "finetune": vidstill.finetune, "score": script.score_student}

    def fail_once(name, at):
        """Let the call fail whose number is `at`, after its work; then let all pass."""
        number = iter(range(1, 1000))

        def call(*args, **kwargs):
            result = calls[name](*args, **kwargs)
            if next(number) == at:
                raise KeyboardInterrupt
            return result

        return call

    monkeypatch.setattr(vidstill, "pretrain", fail_once("pretrain", 2))
    monkeypatch.setattr(vidstill, "finetune", fail_once("finetune", 1))
    monkeypatch.setattr(script, "score_student", fail_once("score", 1))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            compare(script, folder / "interrupted", pages[1], teacher, only="dmae")
    compare(script, folder / "interrupted", pages[1], teacher, only="dmae")
    whole, interrupted = (read_csv(tables, page.with_suffix(".csv")) for page in pages)
    assert whole == interrupted
    assert [row["metric"] for row in whole] == ["attentive", "linear", "many"]


def test_no_test_clip_is_drawn_before_the_test(scripts, comparison, monkeypatch):
    script, folder, teacher = comparison
    drawn, evidence_arms = [], scripts["evidence_arms"]
    monkeypatch.setattr(script, "PROTOCOL", replace(script.PROTOCOL, num_test=32))  # not in memory from other tests
    for module, name in ((frame_cache, "draw_made_block"), (reader, "draw_made_clip")):
        draw = getattr(module, name)
        monkeypatch.setattr(module, name, lambda address, draw=draw: drawn.append(address) or draw(address))
    script.run(folder / "unseen", teacher=teacher, seeds=(7,), only="videomae")
    test_seed = f"seed={evidence_arms.TEST_CLIPS}"
    assert drawn
    assert not [address for address in drawn if test_seed in address]
    script.run_test(folder / "unseen")
    assert [address for address in drawn if test_seed in address]


def make_real_data(folder):
    """Directories as of the real sets: three with drawn clips, and ten pictures."""
    actions, shape = folder / "actions", {"size": (32, 32), "frames": 8}
    vidstill.make_clips(actions, train=0, val=0, unlabelled=16, **shape)
    (actions / "unlabelled.txt").rename(actions / "pretrain.txt")
    for name in ("weizmann4", "cctv_fight"):
        vidstill.make_clips(actions / name, train=16, val=8, unlabelled=0, classes=("left", "up"), **shape)
    images = folder / "images" / "sign_digits"
    images.mkdir(parents=True)
    for split, count in (("train", 16), ("val", 8)):
        names = [f"{split}_{number}.jpg" for number in range(count)]
        for number, name in enumerate(names):
            Image.fromarray(np.full((40, 40, 3), 10 * number, np.uint8)).save(images / name)
        (images / f"{split}.csv").write_text("".join(f"{name} {number % 2}\n" for number, name in enumerate(names)))
    return folder


def test_real_clips_are_compared_with_the_same_code(comparison, tables, tmp_path):
    script, _, teacher = comparison
    data = make_real_data(tmp_path / "data")
    page = tmp_path / "real.md"
    page.write_text(tables.START + tables.END)
    for only in ("teacher", "dmae"):
        compare(script, tmp_path / "out", page, teacher, part="real", student=teacher, data=data, only=only)
    rows = tables.read_rows(page.with_suffix(".csv"))
    assert {row["data"] for row in rows} == {"weizmann4", "cctv_fight", "sign_digits"}
    assert {row["arm"] for row in rows} == {"teacher", "dmae"}
    assert page.read_text().count("### Real clips") == 3


def test_a_part_that_lacks_its_data_is_refused(scripts, tmp_path):
    with pytest.raises(vidstill.InputError, match="--data DIR"):
        scripts["evidence"].run(tmp_path / "out", part="real")
    assert not list(tmp_path.iterdir())
