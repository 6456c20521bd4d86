"""Lists of actions, in every spelling; what is wrong with one is named by its line."""

from pathlib import Path

import pytest

from vidstill.data.ava.label_map import LabelMap, read_label_map, set_evaluated_actions
from vidstill.utils.types import InputError

ITEMS = 'item {\n  name: "walk"\n  id: 12\n}\nitem {\n  name: "answer phone"\n  id: 5\n}\n'
LABELS = """label {
  name: "walk"
  label_id: 12
  label_type: PERSON_MOVEMENT
}
label {
  name: "answer phone"
  label_id: 5
  label_type: OBJECT_MANIPULATION
}"""
OTHERS = [
    'item { name: "walk" id: 12 } item { name: "answer phone" id: 5 }',
    "# all\n\nitem: {\n  id: 5,  # the number\n  name: 'answer phone';\n}\nitem{id:12 name:\"walk\"}",
    ITEMS.replace("\n", "\r\n"),
    "\ufeff" + ITEMS,
    '12,walk\n\n5,"answer phone"\n',
    "label_id,label_name,label_type\n12,walk,PERSON_MOVEMENT\n5,answer phone,OBJECT_MANIPULATION\n",
    "name,id\nwalk,12\nanswer phone,5",
]


def actions(folder: Path, text: str) -> LabelMap:
    path = folder / "actions"
    path.write_bytes(text.encode())
    return read_label_map(path)


@pytest.mark.parametrize("text", [ITEMS, LABELS, *OTHERS])
def test_every_spelling_gives_the_same_label_map(tmp_path, text):
    label_map = actions(tmp_path, text)
    assert list(label_map.names.items()) == [(5, "answer phone"), (12, "walk")]
    assert label_map.evaluated_ids == {5, 12}
    assert label_map.id_to_index == {5: 0, 12: 1}


def test_names_alone_are_numbered_from_1(tmp_path):
    label_map = actions(tmp_path, "walk\r\n\nlisten to (a person)\ncarry/hold, an object\n")
    assert label_map.names == {1: "walk", 2: "listen to (a person)", 3: "carry/hold, an object"}


def test_a_name_may_have_quotes_in_it(tmp_path):
    assert actions(tmp_path, r'item { name: "say \"{ hi }\"" id: 1 }').names == {1: 'say "{ hi }"'}
    assert actions(tmp_path, '1,"push, pull"\n').names == {1: "push, pull"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ITEMS.replace("5", "12"), r"line 7 of .* has the action 12, as line 3 has"),
        (ITEMS.replace("answer phone", "walk"), r"line 7 of .* has the action 'walk', as line 3 has"),
        (ITEMS.replace("12", "0"), r"line 3 of .* has the action 0; number actions from 1"),
        (ITEMS.replace("12", "-1"), r"line 3 of .* has the action -1"),
        (ITEMS.replace("12", "902000000"), r"line 3 of .* has the action 902000000"),
        (ITEMS.replace("12", "twelve"), r"line 3 of .* whose id is twelve; write an integer"),
        (ITEMS.replace("  id: 5\n", ""), r"line 5 of .* whose id is missing"),
        (ITEMS.replace('  name: "walk"\n', ""), r"line 2 of .* has no name for the action 12"),
        (ITEMS.replace('"walk"', '""'), r"line 3 of .* has no name for the action 12"),
        (ITEMS.replace('"walk"', '"walk'), r"line 2 of .* reads '\"walk'; quote each name"),
        (ITEMS.replace("  id: 12", "  id: 12\n  id: 13"), r"line 4 of .* repeats the id of an action"),
        (ITEMS[:-2], r"line 5 of .* opens a block that is never closed"),
        (ITEMS.replace("}\nitem", "item"), r"line 4 of .* opens a block in that of line 1"),
        (ITEMS + "}\n", r"line 9 of .* closes a block that is not open"),
        (ITEMS.replace('"walk"', ""), r"line 4 of .* lacks a value"),
        (ITEMS + "name: 3\n", r"line 9 of .* has '3' outside of a block"),
        ("1,walk\n2,run\n1,fall\n", r"line 3 of .* has the action 1, as line 1 has"),
        ("1,walk\nrun\n", r"line 2 of .* has 1 fields, not number,name"),
        ("1,walk\n2,run, fast\n", r"line 2 of .* has 3 fields, not number,name"),
        ("1,walk\ntwo,run\n", r"line 2 of .* has 'two' for an action's number"),
        ("1,walk\n2,\n", r"line 2 of .* has no name for the action 2"),
        ("id,name\n0,walk\n", r"line 2 of .* has the action 0"),
        ("walk\nrun\n\nwalk\n", r"line 4 of .* has the action 'walk', as line 1 has"),
        ("", "names no action"),
        ("\n \n", "names no action"),
        ("id,name\n", "names no action"),
    ],
)
def test_an_error_is_named_by_its_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        actions(tmp_path, text)


def test_a_missing_file_or_binary_content_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_label_map(tmp_path / "none.pbtxt")
    with pytest.raises(InputError, match="cannot be read"):
        read_label_map(tmp_path)
    (tmp_path / "bytes").write_bytes(b"w\xfflk\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_label_map(tmp_path / "bytes")


def test_a_second_label_map_selects_the_evaluated_actions():
    all_actions = LabelMap({1: "walk", 2: "run", 3: "fall"}, frozenset({1, 2, 3}))
    evaluated = set_evaluated_actions(all_actions, LabelMap({1: "walk", 3: "fall"}, frozenset({1, 3})))
    assert evaluated.names == all_actions.names
    assert evaluated.evaluated_ids == {1, 3}
    with pytest.raises(InputError, match="the action 9, 'fly', is evaluated and is not among all 3"):
        set_evaluated_actions(all_actions, LabelMap({9: "fly"}, frozenset({9})))
