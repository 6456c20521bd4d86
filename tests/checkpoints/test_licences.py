"""Licences and provenance: joined, never lost on the way to a student's student, and said at the start of a run."""

import hashlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import AMD, FINETUNE, TEACHER, about, make_data, run, typed

from vidstill.checkpoints.io import Checkpoint, read_checkpoint, write_checkpoint
from vidstill.checkpoints.licences import (
    UNKNOWN_LICENCE,
    allows_commercial,
    build_provenance,
    describe_licence_restrictions,
    find_licence,
    format_licence,
    join_licences,
    normalize_spdx,
)
from vidstill.cli.main import main

NC = "CC-BY-NC-4.0"
NAMES = ["Apache-2.0", "MIT", NC, "CC-BY-SA-4.0", "GPL-3.0-only", "LicenseRef-dinov3-license", UNKNOWN_LICENCE]
names = st.sampled_from(NAMES)
choices = st.lists(names, min_size=2, max_size=3, unique=True).map(" OR ".join)
expressions = st.lists(names | choices.map("({})".format), min_size=1, max_size=4, unique=True).map(" AND ".join)


def file(name="their.pth", **metadata):
    return Checkpoint({}, source=name, **metadata)


def student(**teachers):
    """A file that learned from these, as a run writes it."""
    return Checkpoint({}, {"kind": "pretraining", "encoder": {}, **build_provenance(teachers)}, "student.safetensors")


# ---- Expressions ----------------------------------------------------------------------------------------------------


@given(st.lists(names, max_size=6))
def test_a_joined_licence_asks_what_each_of_them_asks_and_each_once(licences):
    joined = join_licences(licences)
    assert (joined.split(" AND ") if joined else []) == list(dict.fromkeys(licences))


@given(st.lists(expressions | choices | st.none(), max_size=4))
def test_joining_again_changes_nothing(licences):
    assert join_licences([join_licences(licences)]) == join_licences(licences)
    assert join_licences([*licences, *licences]) == join_licences(licences)


@given(expressions | choices, expressions | choices)
def test_a_joined_licence_allows_no_more_than_each_of_its_parts(one, other):
    both = {allows_commercial(one), allows_commercial(other)}
    assert allows_commercial(join_licences([one, other])) == (
        False if False in both else None if None in both else True
    )


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("Apache-2.0", True),
        (NC, False),
        ("GPL-3.0-only", None),
        (None, None),
        (UNKNOWN_LICENCE, None),
        (f"Apache-2.0 AND {NC}", False),
        (f"Apache-2.0 AND {UNKNOWN_LICENCE}", None),
        (f"{UNKNOWN_LICENCE} AND {NC}", False),
        (f"Apache-2.0 OR {NC}", True),
        (f"MIT AND (Apache-2.0 OR {NC})", True),
        (f"{NC} AND (Apache-2.0 OR MIT)", False),
        (f"(MIT OR Apache-2.0) AND {NC}", False),
        ("((MIT))", True),
        ("((", None),
    ],
)
def test_whether_commercial_use_is_allowed_follows_from_every_part(licence, allowed):
    assert allows_commercial(licence) is allowed


def test_a_choice_stays_a_choice_beside_others():
    assert join_licences(["MIT OR Apache-2.0", NC]) == f"(MIT OR Apache-2.0) AND {NC}"
    assert join_licences([f"{NC} AND (MIT OR Apache-2.0)", NC]) == f"{NC} AND (MIT OR Apache-2.0)"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cc-by-nc-4.0", NC),
        ("apache-2.0", "Apache-2.0"),
        ('"mit"', "MIT"),
        ("openrail", "openrail"),
        ("See the LICENSE file", "LicenseRef-See-the-LICENSE-file"),
        ("unknown", None),
        ("other", None),
        ("", None),
    ],
)
def test_the_licence_of_a_model_card_becomes_an_spdx_identifier(text, name):
    assert normalize_spdx(text) == name


# ---- Whose licence --------------------------------------------------------------------------------------------------


@given(st.lists(names, min_size=1, max_size=3), st.lists(names, max_size=2))
def test_a_student_of_a_student_is_under_the_licences_of_all(first, second):
    teachers = {f"teacher_{index}": file(foreign_metadata={"license": name}) for index, name in enumerate(first)}
    more = {f"more_{index}": file(foreign_metadata={"license": name}) for index, name in enumerate(second)}
    last = student(init=student(teacher=student(**teachers), **more))
    parts = find_licence(last).split(" AND ")
    assert set(parts) == {normalize_spdx(name) or UNKNOWN_LICENCE for name in [*first, *second]}
    for name in {*first, *second}:
        assert any(name in line for line in format_licence(last))


def test_a_model_without_sources_is_under_no_licence():
    assert find_licence(student()) is None
    assert find_licence(student(teacher=student())) is None
    assert describe_licence_restrictions({"teacher": student()}) == []


def test_an_unknown_licence_is_handed_on_as_unknown_and_not_as_free():
    taught = student(teacher=file(), init=file(foreign_metadata={"license": "mit"}))
    assert set(find_licence(taught).split(" AND ")) == {UNKNOWN_LICENCE, "MIT"}
    assert allows_commercial(find_licence(taught)) is None


def test_what_an_older_file_s_past_states_is_not_lost():
    old = {"kind": "classifier", "encoder": {}, "provenance": [{"role": "init", "source": "x.pth", "licence": NC}]}
    assert find_licence(Checkpoint({}, old)) == NC


def test_an_imported_file_is_still_another_s():
    imported = Checkpoint({}, {"kind": "pretraining", "encoder": {}, "layout": "videomae"}, "x.pth")
    assert find_licence(imported) == UNKNOWN_LICENCE
    assert find_licence(replace(imported, metadata={**imported.metadata, "licence": NC})) == NC


@pytest.mark.parametrize(
    ("matter", "licence"),
    [
        ("license: cc-by-nc-4.0", NC),
        ("tags:\n- vision\nlicense: apache-2.0\nlibrary_name: transformers", "Apache-2.0"),
        ("license:\n- mit\n- apache-2.0\ntags:\n- vision", "MIT AND Apache-2.0"),
        ("license: [mit, cc-by-nc-4.0]", f"MIT AND {NC}"),
        ("license: other\nlicense_name: dinov3-license\nlicense_link: LICENSE.md", "LicenseRef-dinov3-license"),
        (f'license: other\nlicense_name: "Apache-2.0 AND {NC}"', f"Apache-2.0 AND {NC}"),
        ("license: other", UNKNOWN_LICENCE),
        ("tags:\n- license", UNKNOWN_LICENCE),
    ],
)
def test_a_licence_is_read_from_the_model_card_beside_the_file(tmp_path, matter, licence):
    (tmp_path / "README.md").write_text(f"---\n{matter}\n---\n# A model\nlicense: mit\n")
    assert find_licence(file(str(tmp_path / "model.safetensors"))) == licence


def test_a_page_without_front_matter_states_no_licence(tmp_path):
    (tmp_path / "README.md").write_text("# A project\nlicense: mit\n")
    assert find_licence(file(str(tmp_path / "model.pth"))) == UNKNOWN_LICENCE


def test_a_source_is_known_again_by_the_hash_of_its_file(tmp_path):
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, {"a": torch.zeros(1)}, {})
    (entry,) = build_provenance({"init": read_checkpoint(path)})["provenance"]
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_address_is_named_and_not_the_file_that_it_was_fetched_to():
    fetched = file("/cache/0a-model.pth", foreign_metadata={"address": "https://example.org/model.pth"})
    assert build_provenance({"init": fetched})["provenance"][0]["source"] == "https://example.org/model.pth"


# ---- What is said ---------------------------------------------------------------------------------------------------


def test_a_sentence_says_what_may_not_be_done_with_what_is_learned():
    sources = {
        "teacher": file(foreign_metadata={"license": NC}),
        "image_teacher": file(foreign_metadata={"license": "openrail"}),
        "video_teacher": file("x.pth"),
        "init": file(foreign_metadata={"license": "MIT"}),
    }
    assert describe_licence_restrictions(sources) == [
        f"the licence of the teacher is {NC}: what is trained from it is not for commercial use; model.safetensors "
        "will say so",
        "the licence of the image teacher is openrail: what is trained from it may not be for commercial use; "
        "model.safetensors will say so",
        "the licence of the video teacher, x.pth, is unknown, and it may not be free; model.safetensors will say so",
    ]


def test_the_sources_of_a_file_are_listed_line_by_line():
    taught = student(teacher=student(init=file("x.pth", foreign_metadata={"license": NC})))
    assert format_licence(taught) == [
        f"licence: {NC}, not for commercial use",
        f"  teacher: student.safetensors, pretraining, licence: {NC}",
        f"    init: x.pth, licence: {NC}",
    ]


# ---- Runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A folder with `data`, a teacher that is not for commercial use, and what was said while `student` was trained."""
    folder = tmp_path_factory.mktemp("taught")
    data = make_data(folder / "data")
    short = {"schedule__epochs": 2}
    run(TEACHER, data=data / "unlabelled.txt", out=folder / "own", **short)
    own = read_checkpoint(folder / "own")
    write_checkpoint(folder / "teacher.safetensors", own.tensors, {**own.metadata, "licence": NC})
    return folder


def test_a_distillation_says_and_writes_that_its_teacher_is_not_for_commercial_use(taught, capsys):
    options = {"method__teacher__checkpoint": taught / "teacher.safetensors", "schedule__epochs": 2}
    assert main(typed(AMD, data=taught / "data/unlabelled.txt", out=taught / "student", **options)) == 0
    sentence = f"pretrain: the licence of the teacher is {NC}: what is trained from it is not for commercial use"
    assert capsys.readouterr().err.count(sentence) == 1
    assert about(taught / "student")["licence"] == NC

    options = {"init": taught / "student", "schedule__epochs": 2}
    assert main(typed(FINETUNE, data=taught / "data", out=taught / "classifier", **options)) == 0
    assert f"finetune: the licence of the initial checkpoint is {NC}: what is trained" in capsys.readouterr().err
    assert about(taught / "classifier")["licence"] == NC
    assert about(taught / "own")["licence"] is None
