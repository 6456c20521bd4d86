"""The official files of the data sets that papers use are recognised, and lead to the videos that are there."""

import json
from pathlib import Path

import pytest

from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import list_splits, open_manifest, open_test_manifest
from vidstill.utils.types import InputError


@pytest.fixture
def tree(tmp_path):
    """A folder of files by their paths; what has no text holds its own name, as what a video holds is not looked at."""

    def make(texts: dict[str, str], *files: str) -> Path:
        for name, text in [*texts.items(), *((name, name) for name in files)]:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def list_rows(manifest: Manifest) -> list[tuple[str, str | None]]:
    """Each row's path below the root, and the name of its class; all are there."""
    rows = manifest.rows
    assert all(row.source.is_file() for row in rows)
    assert [row.source for row in rows] == [rows.root / row.name for row in rows]
    return [(row.name, None if row.label is None else manifest.classes[row.label]) for row in rows]


def open_splits(path: Path) -> tuple[Manifest, Manifest]:
    """The training and the validation split of a data set that has both, and the same classes in both."""
    train, val = (open_manifest(path, split=split) for split in ("train", "val"))
    assert list_splits(path) == ("train", "val")
    assert train.classes == val.classes
    return train, val


def list_folds(path: Path, *folds: int) -> list[list[tuple[str, str | None]]]:
    """The rows of both splits of each fold."""
    return [list_rows(open_manifest(path, split=split, fold=fold)) for fold in folds for split in ("train", "val")]


# ---- Kinetics -------------------------------------------------------------------------------------------------------

TRAIN = """label,youtube_id,time_start,time_end,split,is_cc
zumba,-zumba_0001,3,13,train,0
"air drumming",drumming-01,100,110,train,1
juggling balls,juggling__1,0,10,train,0
"""
VAL = """label,youtube_id,time_start,time_end,split
air drumming,drumming-02,9,19,validate
"""
CLIPS = "-zumba_0001_000003_000013", "drumming-01_000100_000110", "juggling__1_000000_000010"
VAL_CLIP = "drumming-02_000009_000019"
LABELS = "zumba", "air drumming", "juggling balls"


@pytest.mark.parametrize("lists", [("train.csv", "val.csv"), ("annotations/train.csv", "annotations/validate.csv")])
@pytest.mark.parametrize(
    "layout",
    [
        ["train/{0}.mp4", "train/{1}.mp4", "train/{2}.mp4", "val/{3}.mp4"],
        ["train/zumba/{0}.mkv", "train/air drumming/{1}.webm", "train/juggling balls/{2}.MP4", "val/air/{3}.mp4"],
        ["train_256/zumba/{0}.mp4", "train_256/air_drumming/{1}.mp4", "train_256/juggling_balls/{2}.mp4", "v/{3}.mp4"],
        ["{0}.mp4", "{1}.mp4", "{2}.mp4", "{3}.mp4"],
    ],
    ids=["flat", "classes with spaces", "classes with underscores", "all together"],
)
def test_kinetics_is_recognized_in_each_of_its_layouts(tree, layout, lists):
    files = [name.format(*CLIPS, VAL_CLIP) for name in layout]
    path = tree(dict(zip(lists, (TRAIN, VAL), strict=True)), *files)
    train, val = open_splits(path)
    assert list_rows(train) == list(zip(files[:3], LABELS, strict=True))
    assert list_rows(val) == [(files[3], "air drumming")]
    assert train.classes == ("air drumming", "juggling balls", "zumba")
    assert train.description == "Kinetics (3 classes), its train split, 3 rows: none is missing"
    assert list_rows(open_manifest(path)) == list_rows(train)
    assert list_rows(open_test_manifest(path)) == list_rows(val)


@pytest.mark.parametrize("classes", [400, 600, 700])
def test_kinetics_is_called_by_its_number_of_classes(tree, classes):
    rows = "".join(f"class {n},video{n:06d},0,10,train\n" for n in range(classes))
    path = tree({"train.csv": f"label,youtube_id,time_start,time_end,split\n{rows}"}, "video000007_000000_000010.mp4")
    manifest, missing = open_manifest(path), f"1 rows: {classes - 1} of {classes} listed"
    assert manifest.description.startswith(f"Kinetics-{classes}, its train split, {missing}")
    assert manifest.classes[manifest.rows[0].label] == "class 7"


def test_missing_videos_are_left_out_and_counted_for_training_and_for_a_test(tree):
    lists = {"train.csv": TRAIN, "val.csv": VAL + "zumba,gone-gone-1,1,11,val\n"}
    train, val = open_splits(tree(lists, *(f"a/{name}.mp4" for name in (*CLIPS[1:], VAL_CLIP))))
    assert [row.name for row in train.rows] == [f"a/{name}.mp4" for name in CLIPS[1:]]
    assert train.description.endswith("2 rows: 1 of 3 listed are missing")
    assert val.description.endswith("1 rows: 1 of 2 listed are missing")
    assert (train.num_missing, val.num_missing) == (1, 1)


def test_where_all_videos_are_missing_the_searched_directories_are_named(tree):
    path = tree({"annotations/train.csv": TRAIN}, "a/b/c/-zumba_0001_000003_000013.mp4", "a/-zumba_0001.txt")
    with pytest.raises(InputError, match=rf"none of the 3 videos of .*train.csv exists; .* in {path}, 2 directories"):
        open_manifest(path)


def test_kinetics_may_be_named_by_the_video_alone_and_replacements_come_first(tree):
    path = tree({"train.csv": TRAIN}, "train/juggling__1.mp4")
    assert list_rows(open_manifest(path)) == [("train/juggling__1.mp4", "juggling balls")]
    other = f"replacement/replacement_for_corrupted_k400/{CLIPS[0]}.mp4"
    path = tree({}, f"annotated/{CLIPS[0]}.mp4", other)
    assert list_rows(open_manifest(path))[0] == (other, "zumba")


def test_videos_of_kinetics_may_lie_behind_a_link_or_below_another_root(tree, tmp_path):
    path = tree({"lists/train.csv": TRAIN}, *(f"disk/{name}.mp4" for name in CLIPS))
    assert len(open_manifest(path / "lists", root=path / "disk").rows) == 3
    (path / "lists" / "train").symlink_to(path / "disk")
    assert len(open_manifest(path / "lists").rows) == 3


@pytest.mark.parametrize("folder", ["", "annotations/"])
def test_a_list_of_kinetics_that_is_named_itself_is_read_whole(tree, folder):
    path = tree({f"{folder}val.csv": VAL, f"{folder}train.csv": TRAIN}, f"val/{VAL_CLIP}.mp4")
    manifest = open_test_manifest(path / folder / "val.csv")
    assert list_rows(manifest) == [(f"val/{VAL_CLIP}.mp4", "air drumming")]
    assert list_splits(path / folder / "val.csv") == ()


def test_a_list_of_kinetics_without_labels_gives_none(tree):
    text = "youtube_id,time_start,time_end,split\ndrumming-02,9,19,test\n"
    manifest = open_manifest(tree({"test.csv": text}, f"test/{VAL_CLIP}.mp4"), split="val")
    assert list_rows(manifest) == [(f"test/{VAL_CLIP}.mp4", None)]
    assert manifest.classes == ()


# ---- Something-Something V2 ------------------------------------------------------------------------------------------

SSV2_LABELS = {"Holding something": "0", "Putting something on a surface": "1"}
SSV2 = {
    "labels": SSV2_LABELS,
    "train": [
        {"id": "78687", "label": "holding a cup", "template": "Holding [something]", "placeholders": ["a cup"]},
        {"id": "42", "label": "putting it", "template": "Putting [something] on a surface", "placeholders": ["it"]},
    ],
    "validation": [{"id": "7", "label": "holding it", "template": "Holding [something]", "placeholders": ["it"]}],
    "test": [{"id": "9"}],
}


def ssv2(pattern: str, **changed) -> dict[str, str]:
    return {pattern.format(name): json.dumps(value) for name, value in (SSV2 | changed).items() if value is not None}


@pytest.mark.parametrize(
    "pattern", ["something-something-v2-{}.json", "labels/{}.json", "annotations/{}.json", "{}.json"]
)
@pytest.mark.parametrize(
    "videos",
    ["20bn-something-something-v2/{}.webm", "videos/{}.mp4", "videos/20bn-something-something-v2/{}.webm", "{}.webm"],
)
def test_something_something_v2_is_recognized_in_either_of_its_publications(tree, pattern, videos):
    path = tree(ssv2(pattern), *(videos.format(name) for name in ("78687", "42", "7", "9")))
    train, val = open_splits(path)
    assert list_rows(train) == list(zip((videos.format(78687), videos.format(42)), SSV2_LABELS, strict=True))
    assert list_rows(val) == [(videos.format(7), "Holding something")]
    assert train.classes == tuple(SSV2_LABELS)
    assert train.description == "Something-Something V2, its train split, 2 rows: none is missing"


@pytest.mark.parametrize(
    ("answers", "label"), [({"labels/test-answers.csv": "9;Holding something\n"}, "Holding something"), ({}, None)]
)
def test_without_a_validation_list_the_test_list_is_tested_on_by_its_answers_if_it_has_any(tree, answers, label):
    path = tree(ssv2("labels/{}.json", validation=None) | answers, "9.webm")
    assert list_rows(open_test_manifest(path)) == [("9.webm", label)]


def test_another_labels_json_is_not_something_something(tree):
    path = tree({"labels.json": '["a", "b"]', "train.json": "[]"}, "run/a.mp4", "jump/b.mp4")
    assert "a directory for each class" in open_manifest(path).description


# ---- UCF101 ---------------------------------------------------------------------------------------------------------

ARCHIVE, EYES = "UCF101TrainTestSplits-RecognitionTask", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01"
HANDS, HANDS_TEST = (f"HandstandPushups/v_HandStandPushups_{group}_c01" for group in ("g08", "g01"))
UCF101_FILES = {
    "classInd.txt": "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n",
    "trainlist01.txt": f"{EYES}.avi 1\r\n{HANDS}.avi 2\r\n",
    "testlist01.txt": f"{HANDS_TEST}.avi\r\n",
    "trainlist03.txt": f"{HANDS_TEST}.avi 2\n",
    "testlist03.txt": f"{EYES}.avi\n",
}
UCF101 = {f"ucfTrainTestlist/{name}": text for name, text in UCF101_FILES.items()}


@pytest.mark.parametrize("lists", ["ucfTrainTestlist", f"{ARCHIVE}/ucfTrainTestlist", ARCHIVE])
@pytest.mark.parametrize("videos", ["UCF-101/{}.avi", "videos/{}.mp4", "{}.avi"])
def test_ucf101_is_recognized_with_its_folds(tree, lists, videos):
    files = [videos.format(name) for name in (EYES, HANDS, HANDS_TEST)]
    path = tree({f"{lists}/{name}": text for name, text in UCF101_FILES.items()}, *files)
    makeup, pushups, pushups_test = zip(files, ("ApplyEyeMakeup", "HandstandPushups", "HandstandPushups"), strict=True)
    assert list_folds(path, 1, 3) == [[makeup, pushups], [pushups_test], [pushups_test], [makeup]]
    assert open_manifest(path, fold=3).description == "UCF101 (fold 3 of 3), its train split, 1 rows: none is missing"
    assert open_manifest(path, fold=3).classes == ("ApplyEyeMakeup", "HandstandPushups")


# ---- HMDB51 ---------------------------------------------------------------------------------------------------------

ODD = "#20_Rhythm_clap_[u]_nm;np1_fr_goo_0"  # the names hold such characters
HMDB51_LISTS = {
    "brush_hair_test_split1.txt": "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \nAtheism_brush_hair_0.avi 2 \n",
    "clap_test_split1.txt": f"{ODD}.avi 1 \nA Beautiful Mind_2_clap_0.avi 2 \nunused_clap_0.avi 0 \n",
    "brush_hair_test_split2.txt": "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 2 \nAtheism_brush_hair_0.avi 0 \n",
    "clap_test_split2.txt": f"{ODD}.avi 0 \nA Beautiful Mind_2_clap_0.avi 1 \nunused_clap_0.avi 2 \n",
}
HMDB51 = {f"testTrainMulti_7030_splits/{name}": text for name, text in HMDB51_LISTS.items()}
HMDB51_FILES = [
    *("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "brush_hair/Atheism_brush_hair_0.avi"),
    *(f"clap/{ODD}.avi", "clap/A Beautiful Mind_2_clap_0.avi", "clap/unused_clap_0.avi"),
]


@pytest.mark.parametrize("lists", ["testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits"])
@pytest.mark.parametrize("videos", ["hmdb51_org/", "videos/", ""])
def test_hmdb51_is_recognized_with_its_folds(tree, lists, videos):
    files = [videos + name for name in HMDB51_FILES]
    path = tree({f"{lists}/{name}": text for name, text in HMDB51_LISTS.items()}, *files)
    april, atheism, odd, mind, unused = ((file, file.split("/")[-2]) for file in files)
    assert list_folds(path, 1, 2) == [[april, odd], [atheism, mind], [mind], [april, unused]]
    assert open_manifest(path).classes == open_manifest(path, fold=2).classes == ("brush_hair", "clap")
    assert open_manifest(path).description == "HMDB51 (fold 1 of 3), its train split, 2 rows: none is missing"


# ---- AVA ------------------------------------------------------------------------------------------------------------

AVA = {
    "ava_train_v2.2.csv": "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1\n-5KQ66BBWC4,0903,0.1,0.2,0.3,0.8,9,1\n"
    "053oq2xB3oU,0904,0.1,0.2,0.3,0.8,9,0\n",
    "ava_val_v2.2.csv": "1j20qq1JyX4,0902,0.002,0.118,0.714,0.977,12,0\n",
}
FILMS = ["trainval/-5KQ66BBWC4.mkv", "trainval/053oq2xB3oU.mp4", "trainval/1j20qq1JyX4.webm"]


@pytest.mark.parametrize("lists", ["", "annotations/"])
def test_ava_gives_its_films_once_each_and_no_labels(tree, lists):
    path = tree({lists + name: text for name, text in AVA.items()}, *FILMS)
    train, val = open_splits(path)
    assert list_rows(train) == [(FILMS[0], None), (FILMS[1], None)]
    assert list_rows(val) == [(FILMS[2], None)]
    assert train.classes == ()
    note = "without labels: its boxes are for detection"
    assert train.description == f"AVA v2.2, its train split, 2 rows: none is missing; {note}"
    assert list_rows(open_manifest(path / lists / "ava_val_v2.2.csv")) == [(FILMS[2], None)]


def test_the_newer_lists_of_ava_go_before_the_older_ones(tree):
    old = {"ava_train_v2.1.csv": AVA["ava_val_v2.2.csv"]}
    assert open_manifest(tree(old, *FILMS)).description.startswith("AVA v2.1")
    assert open_manifest(tree(old | AVA, *FILMS)).description.startswith("AVA v2.2")


# ---- ImageNet -------------------------------------------------------------------------------------------------------

FISH, SHARK = "n01440764", "n01484850"
WORDS = f"{FISH} tench, Tinca tinca\n{SHARK} great white shark, white shark\n"
PICTURES = [f"train/{FISH}/{FISH}_1.JPEG", f"train/{SHARK}/{SHARK}_7.JPEG", f"val/{FISH}/ILSVRC2012_val_00000001.JPEG"]
SOLUTION = (
    f"ImageId,PredictionString\nILSVRC2012_val_00000002,{SHARK} 85 1 499 272 \nILSVRC2012_val_00000001,{FISH} 1 2 3 4\n"
)


def test_imagenet_is_recognized_by_the_names_of_its_class_folders(tree):
    path = tree({}, *PICTURES)
    train, val = open_splits(path)
    assert list_rows(train) == [(f"{FISH}/{FISH}_1.JPEG", FISH), (f"{SHARK}/{SHARK}_7.JPEG", SHARK)]
    assert list_rows(val) == [(f"{FISH}/ILSVRC2012_val_00000001.JPEG", FISH)]
    assert train.classes == (FISH, SHARK)
    assert train.description == "ImageNet (2 classes), its train split, 2 rows: none is missing"


def test_imagenet_s_classes_have_the_names_of_the_mapping_and_a_thousand_are_imagenet_1k(tree):
    for mapping in ("LOC_synset_mapping.txt", "synset_words.txt"):
        path = tree({mapping: WORDS}, *PICTURES)
        classes = open_manifest(path, split="val").classes
        assert classes == (f"{FISH} tench, Tinca tinca", f"{SHARK} great white shark, white shark")
        (path / mapping).unlink()
    path = tree({}, *(f"train/n{n:08d}/a.JPEG" for n in range(998)))
    assert open_manifest(path).description.startswith("ImageNet-1K, its train split, 1,000 rows")


def test_kaggle_s_archive_of_imagenet_is_read_as_it_is_unpacked(tree):
    texts = {"LOC_synset_mapping.txt": WORDS, "LOC_val_solution.csv": SOLUTION}
    data = "ILSVRC/Data/CLS-LOC/"
    images = [*PICTURES[:2], *(f"val/ILSVRC2012_val_0000000{n}.JPEG" for n in (1, 2)), "test/ILSVRC2012_test_1.JPEG"]
    path = tree(texts, *(data + name for name in images))
    train, val = open_splits(path)
    assert [row.label for row in train.rows] == [0, 1]
    assert list_rows(val) == [
        ("ILSVRC2012_val_00000002.JPEG", f"{SHARK} great white shark, white shark"),
        ("ILSVRC2012_val_00000001.JPEG", f"{FISH} tench, Tinca tinca"),
    ]
    (path / data / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    assert open_manifest(path, split="val").description.endswith("1 rows: 1 of 2 listed are missing")


def test_pictures_of_imagenet_s_val_split_whose_classes_nothing_tells_are_refused_with_the_way_to_mend_it(tree):
    texts = {"ILSVRC2012_validation_ground_truth.txt": "490\n361\n"}
    path = tree(texts, *PICTURES[:2], "val/ILSVRC2012_val_00000001.JPEG")
    assert len(open_manifest(path).rows) == 2
    with pytest.raises(InputError, match=r"LOC_val_solution.csv, .* does not exist; put it there, or move each image"):
        open_manifest(path, split="val")


# ---- What goes before what ------------------------------------------------------------------------------------------


OWN_LIST, OWN_TABLE = {"train.csv": f"UCF-101/{EYES}.avi 5"}, {"train.csv": "path,label,youtube_id\na.mp4,0,abc\n"}
CLASS_FOLDERS = "a directory with a directory for each class"


@pytest.mark.parametrize(
    ("texts", "files", "kind"),
    [
        ({}, ["train/run/a.mp4", "val/run/b.mp4"], f"the train split of {CLASS_FOLDERS}"),
        ({}, ["train/n01440764/a.mp4"], f"the train split of {CLASS_FOLDERS}"),
        ({}, ["train/n01440764/a.JPEG", "train/cat/a.JPEG"], f"the train split of {CLASS_FOLDERS}"),
        ({}, ["n01440764/a.JPEG"], CLASS_FOLDERS),
        ({"train.txt": "a list for something else"}, ["a.mp4"], "a directory of videos"),
        ({"annotations/a.json": "{}"}, ["annotations/a.txt", "run/a.mp4"], CLASS_FOLDERS),
        # one's own lists go before the official ones, and may say from which video of YouTube a clip is
        (UCF101 | OWN_LIST, [f"UCF-101/{EYES}.avi"], "train.csv, a list of `path label` lines"),
        (
            {"annotations/train.csv": TRAIN} | OWN_LIST,
            [f"UCF-101/{EYES}.avi"],
            "train.csv, a list of `path label` lines",
        ),
        (OWN_TABLE, ["a.mp4"], "train.csv, a table of path, label, youtube_id"),
    ],
)
def test_what_has_no_official_files_is_read_as_folders_or_as_a_list(tree, texts, files, kind):
    path = tree(texts, *files)
    for data in (path, path / "train.csv") if "train.csv" in texts else (path,):
        assert open_manifest(data).description == kind


# ---- Mistakes --------------------------------------------------------------------------------------------------------

BAD_KINETICS = {
    "label,youtube_id,time_start\n": r"line 1 of .*train.csv names the columns .*, and Kinetics has time_end too",
    TRAIN + "zumba,a,1,2,train\n": r"line 5 of .*train.csv has 5 fields, its first line 6",
    TRAIN + "zumba,a,one,2,train,0\n": r"line 5 of .*train.csv has the times 'one' and '2'",
    TRAIN + ",a,1,2,train,0\n": r"line 5 of .*train.csv has the label ''; some lines have one and some have none",
    TRAIN.splitlines()[0]: r".*train.csv names no videos",
}
BAD_SSV2 = [
    ({"train": [{"id": "42", "template": "Dropping [it]"}]}, r"entry 1 of .*train.json has the template 'Dropping it'"),
    ({"train": [SSV2["train"][0], {"label": "x"}]}, r"entry 2 of .*train.json has no `id`"),
    ({"train": {}}, r".*train.json holds no list"),
    ({"labels": {"Holding something": "1"}}, r".*labels.json does not number its 1 classes from 0"),
]
BAD_UCF101 = [
    ("trainlist01.txt", "Running/v_Running_g08_c01.avi 1\n", r"line 1 of .*trainlist01.txt reads 'Running/v_Run"),
    ("trainlist01.txt", f"{EYES}.avi 2\n", r"line 1 of .*trainlist01.txt numbers ApplyEyeMakeup 2"),
    ("classInd.txt", "1 ApplyEyeMakeup\n3 Handstand\n", r"line 2 of .*classInd.txt .* should number class 2"),
]
CLAP = "testTrainMulti_7030_splits/clap_test_split1.txt"
AVA_TRAIN = "ava_train_v2.2.csv"
BROKEN_SSV2 = {"labels/train.json": '[\n{"id": "42",}\n]'}


@pytest.mark.parametrize(
    ("texts", "files", "sentence"),
    [
        *(({"train.csv": text}, [f"train/{CLIPS[0]}.mp4"], sentence) for text, sentence in BAD_KINETICS.items()),
        *((ssv2("labels/{}.json", **changed), ["videos/42.webm"], sentence) for changed, sentence in BAD_SSV2),
        (ssv2("labels/{}.json") | BROKEN_SSV2, ["videos/42.webm"], r"line 2 of .*json is no JSON"),
        *(
            (UCF101 | {f"ucfTrainTestlist/{name}": text}, [f"UCF-101/{EYES}.avi"], sentence)
            for name, text, sentence in BAD_UCF101
        ),
        *(
            (HMDB51 | {CLAP: HMDB51[CLAP] + line}, HMDB51_FILES, r"line 4 of .*clap_test_split1.txt reads 'x.avi")
            for line in ("x.avi 3", "x.avi", "x.avi one")
        ),
        ({AVA_TRAIN: AVA[AVA_TRAIN] + "a,0904\n"}, FILMS, r"line 4 of .*2.csv has 2 fields, and AVA's lists have 8"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tree, texts, files, sentence):
    with pytest.raises(InputError, match=sentence):
        open_manifest(tree(texts, *files))


UCF101_VIDEO = [f"UCF-101/{EYES}.avi"]
NO_FOLDS = "has no fold 2, as UCF101 and HMDB51 have; leave --fold at 1"
UNKNOWN_CLASS = {"LOC_val_solution.csv": SOLUTION.replace(SHARK, "n00000000")}


@pytest.mark.parametrize(
    ("texts", "files", "options", "sentence"),
    [
        ({"train.csv": TRAIN}, [f"{CLIPS[0]}.mp4"], {"split": "val"}, "no list of Kinetics's val split, only of train"),
        *(
            (UCF101, UCF101_VIDEO, {"fold": n}, f"UCF101 has the folds 1, 2 and 3; fold {n} is none of them")
            for n in (0, 4)
        ),
        (UCF101, UCF101_VIDEO, {"fold": 2}, "trainlist02.txt does not exist, the list of UCF101's fold 2"),
        (HMDB51, HMDB51_FILES, {"fold": 4}, "HMDB51 has the folds 1, 2 and 3"),
        (HMDB51, HMDB51_FILES, {"fold": 3}, r"holds no \*_test_split3.txt"),
        *(({}, [file], {"fold": 2}, NO_FOLDS) for file in ("a.mp4", "train/n01440764/a.JPEG", "train/a/a.mp4")),
        (UNKNOWN_CLASS, [*PICTURES[:2], "val/1.JPEG"], {"split": "val"}, r"line 2 of .*csv has the class 'n00000000'"),
    ],
)
def test_a_missing_split_or_fold_is_refused(tree, texts, files, options, sentence):
    with pytest.raises(InputError, match=sentence):
        open_manifest(tree(texts, *files), **options)
