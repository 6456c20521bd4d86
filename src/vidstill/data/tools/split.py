"""Split a dataset into lists to train and to validate on, which are a dataset; whole groups stay on one side."""

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vidstill.data.manifest.hold_out import SplitBy, count_groups, hold_out, list_missing_classes
from vidstill.data.manifest.made import check_has_files
from vidstill.data.manifest.manifest import Manifest, Split
from vidstill.data.manifest.open import list_splits, open_manifest
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.tools.inspect import SplitSummary, format_split, summarize_split
from vidstill.utils.files import write_bytes
from vidstill.utils.output_dir import open_output_dir
from vidstill.utils.text import format_one_line, join_first, pluralize, shorten
from vidstill.utils.types import InputError

SPLIT_FILE = "split.json"
_MAX_CLASS_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What the lists of a split hold."""

    out: Path  # directory of the lists
    by: SplitBy  # which videos stayed together
    groups: dict[Split, int]  # number of files, groups or directories of each list
    splits: dict[Split, SplitSummary]
    one_sided_classes: tuple[str, ...]  # those without a video in one of the lists

    def format_lines(self) -> list[str]:
        """Return a line for each list, and a warning where a class is in one list only."""
        lines = [f"split: {self.out}"]
        for name, split in self.splits.items():
            groups = "" if self.by == "clip" else f"{pluralize(self.groups[name], self.by)}, "
            lines.append(f"{name}: {groups}{format_split(split)}")
        for name in self.splits if self.one_sided_classes else ():
            if missing := [each for each in self.one_sided_classes if not self.splits[name].class_counts[each]]:
                noun, classes = self.splits[name].noun, join_first(missing, _MAX_CLASS_NAMES)
                lines.append(f"warning: no {noun} of {classes} in {name}; add others, or split by clip")
        return list(map(format_one_line, lines))


def split_dataset(
    data: PathOrUrl,
    out: Path,
    *,
    val_share: float,
    by: SplitBy = "clip",
    seed: int = 0,
    root: PathOrUrl | None = None,
) -> SplitReport:
    """Write `train.csv`, `val.csv` and `classes.txt` to a directory, which is a dataset then; see `hold_out`.

    Its paths are absolute, so that it can be anywhere. The classes keep their numbers and names.

    Args:
        val_share: Share of the videos that `val.csv` has, of each class alike.
        by: Which videos stay together.
        seed: Random seed.
        root: As for `open_manifest`.

    Raises:
        InputError: The dataset has a val split already, is packed, or cannot be split so; or the directory holds
            something else or cannot be written.
    """
    check_has_files(data)
    if "val" in list_splits(data):
        raise InputError(f"{data} has a val split already; to split it anew, give a list of all its videos")
    manifest = open_manifest(data, root=root)
    if (manifest.rows.column("shard") >= 0).any():
        raise InputError(f"{data} is packed; split the videos before they are packed, then pack what is written here")
    train, val = hold_out(manifest, val_share, by=by, seed=seed)
    lists: dict[Split, Manifest] = {"train": train, "val": val}
    contents = {f"{name}.csv": _format_list(part) for name, part in lists.items()}
    if manifest.classes:
        contents["classes.txt"] = "".join(f"{_check_text(name, 'class')}\n" for name in manifest.classes)
    identity = {
        "settings": {"val_share": val_share, "by": by, "seed": seed},
        "data": {"source": str(manifest.source), "fingerprint": manifest.fingerprint},
    }
    with open_output_dir(out, identity, kind="a split", marker=SPLIT_FILE):
        for name, text in reversed(contents.items()):  # train.csv last: the directory is a dataset with it
            write_bytes(out / name, text.encode())
    return SplitReport(
        out=out,
        by=by,
        groups={name: count_groups(part, by) for name, part in lists.items()},
        splits={name: summarize_split(part) for name, part in lists.items()},
        one_sided_classes=tuple(list_missing_classes(train, val)),
    )


def _format_list(manifest: Manifest) -> str:
    """Return a table of the rows' paths, labels and classes; and of their groups and frames where these are stated."""
    rows, columns = manifest.rows, list[Mapping[str, object]]()
    groups, frames = rows.column("group").tolist(), rows.column("frames")
    for index, row in enumerate(rows):
        path = row.source if isinstance(row.source, str) else os.path.abspath(str(row.source))
        values: dict[str, object] = {"path": _check_text(path, "path")}
        if manifest.multi_label:  # a name may have a semicolon, and classes.txt has the names
            values["labels"] = ";".join(map(str, row.labels))
        elif row.label is not None:
            values |= {"label": row.label, "class": manifest.classes[row.label]}
        if rows.groups:
            values["group"] = rows.groups[groups[index]] if groups[index] >= 0 else ""
        if frames.any():
            values["frames"] = row.frames or ""
        columns.append(values)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(columns)
    return text.getvalue()


def _check_text(text: str, what: str) -> str:
    """Return a path or a name, or raise an InputError if no line of a list can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        is_line = False
    else:
        is_line = text == text.strip() and text.splitlines() == [text] and "\0" not in text
    if not is_line:
        raise InputError(f"the {what} {shorten(text)} cannot stand in a list; rename it")
    return text
