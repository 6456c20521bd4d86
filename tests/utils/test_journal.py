"""A journal holds what is done, whatever kills the process that writes it."""

from pathlib import Path

import pytest

from vidstill.utils.journal import Journal
from vidstill.utils.types import InputError


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "features.npz"


def test_records_of_all_ranks_come_back_by_their_keys(out: Path):
    for rank in range(2):
        with Journal(out, {"views": (1, 3)}, rank) as journal:
            journal.append({"key": ["train", rank], "rows": rank}, {"key": "both", "rows": rank})
    with Journal(out, {"views": [1, 3]}) as journal:
        assert journal.done() == {
            ("train", 0): {"key": ["train", 0], "rows": 0},
            ("train", 1): {"key": ["train", 1], "rows": 1},
            "both": {"key": "both", "rows": 1},
        }
        assert len(list(journal.gather())) == 4
        journal.remove()
    assert not journal.directory.exists()


@pytest.mark.survival("torn file: a journal's last line", "1→1", "same bits")
def test_a_cut_line_is_skipped_and_the_next_record_is_whole(out: Path):
    with Journal(out, {}) as journal:
        journal.append({"key": 1}, {"key": 2})
    records = journal.directory / "records-0.jsonl"
    records.write_bytes(records.read_bytes()[:-4])
    with Journal(out, {}) as journal:
        assert list(journal.done()) == [1]
        journal.append({"key": 3})
        assert list(journal.done()) == [1, 3]


def test_records_of_other_settings_are_refused_and_stay(out: Path):
    with Journal(out, {"pool": "mean"}) as journal:
        journal.append({"key": 1})
    message = (
        r"npz.journal holds unfinished work with other settings \(pool is mean, here it is max\); delete it, or cho"
    )
    with pytest.raises(InputError, match=message):
        Journal(out, {"pool": "max"}).open()
    assert journal.read_settings() == {"pool": "mean"}
    assert list(journal.done()) == [1]


def test_a_directory_that_is_no_journal_is_refused(out: Path):
    journal = Journal(out, {})
    journal.directory.mkdir()
    (journal.directory / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not a journal of unfinished work; move it away"):
        journal.check()


def test_a_journal_has_one_writer_for_each_rank(out: Path):
    with Journal(out, {}), pytest.raises(InputError, match="is being written by"):
        Journal(out, {}).open()
    with Journal(out, {}), Journal(out, {}, rank=1):
        pass


@pytest.mark.survival("full disk while a journal is written", "1→1", "refused with a sentence")
def test_a_full_disk_is_one_sentence(out: Path):
    journal = Journal(out, {})
    journal.directory.mkdir()
    (journal.directory / "records-0.jsonl").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left"), journal:
        journal.append({"key": 1})
