"""Progress bars: drawn once there is something to tell."""

import pytest

from vidstill.utils.terminal import show_progress_bar


def test_a_bar_is_drawn_with_what_is_done_of_how_much(capsys):
    with show_progress_bar("videos") as done:
        done(1, 3)
        done(3, 3)
    printed = capsys.readouterr()
    assert "videos" in printed.err
    assert "3/3" in printed.err
    assert printed.out == ""


def test_work_that_is_refused_before_it_begins_leaves_no_bar(capsys):
    with pytest.raises(ValueError, match="refused"), show_progress_bar("videos"):
        raise ValueError("refused")
    assert capsys.readouterr().err == ""


def test_work_that_fails_on_its_way_leaves_the_bar_where_it_was(capsys):
    def work():
        with show_progress_bar("videos") as done:
            done(1, 3)
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        work()
    assert "1/3" in capsys.readouterr().err
