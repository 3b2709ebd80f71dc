"""The picture files of a folder: its splits, its classes, and what is left out."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import StubImageFile

from impon_hpo.errors import DataError
from impon_hpo.files import readable_name

# Paths are text here, and os.path joins them: for many files that is several times as fast.
# ruff: noqa: PTH110, PTH116, PTH118, PTH122

log = logging.getLogger("impon_hpo")

KINDS = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What the word in a folder's name says of its pictures."""
NAMED = re.compile(rf"((?:.*[^a-z])?)({'|'.join(KINDS)})((?:[^a-z].*)?)")
"""A name that has such a word, such as "seg_train" or "val2017", in lower case."""

NO_PICTURES = {"EPS", "MPEG"}
"""Formats that Pillow opens, but of which it needs another program to see a picture, or sees none;
those of which it knows only the kind are left out, too."""

EVALUATED = [
    form
    for word, kind in KINDS.items()
    if kind != "training"
    for form in (word, word.title(), word.upper())
]
"""Names of folders that nothing is trained on."""

OF_THE_SYSTEM = {"@eadir", "__macosx", "thumbs.db", "desktop.ini", "lost+found", "$recycle.bin"}
"""What systems leave in folders beside what they hide; in lower case."""


@dataclass(frozen=True)
class PictureFiles:
    """The pictures of one split.

    Args:
        folder: The folder of the class folders.
        place: The same, relative to the folder of all splits; "" for training pictures.
        names: (n,) files relative to `folder`, as the disk has them: class by class, and in each
            in the order of their paths, part by part.
        labels: (n,) int64 class indices.
    """

    folder: str
    place: str
    names: tuple[str, ...]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of a folder, by what they are for.

    Args:
        class_names: The folders of the training pictures, sorted, as the disk has them.
        training: Pictures to train on.
        validation: Pictures of validation, if it has a folder of their own.
        test: Pictures of the test, likewise.
    """

    class_names: tuple[str, ...]
    training: PictureFiles
    validation: PictureFiles | None
    test: PictureFiles | None


def find_pictures(root: Path) -> PictureFolder:
    """Find the pictures in the layout of `torchvision.datasets.ImageFolder`, and say in the log
    what was found and what was left out.

    The folders of the splits are recognised by the words train, training; val, valid, validation,
    dev; test, testing, in any case, also as in "seg_train". Without them the class folders lie in
    `root` itself. A folder that has nothing but one folder of folders is entered. Links are
    followed.

    Raises:
        DataError: It cannot be told which folder is which, a folder cannot be read, a class has no
            picture, or validation or test have a class that the training pictures do not have.
    """
    walk = _Walk()
    top = walk.enter(str(root), EVALUATED)
    places = _splits(walk, top)
    folder = walk.enter(places["training"]) if places else top
    classes = walk.inside(folder).folders
    if not classes:
        raise DataError(
            f"'{readable_name(folder)}' must have one folder of images for each class, but it has "
            "no folder."
        )
    training = walk.pictures(folder, "", classes)
    counts = np.bincount(training.labels, minlength=len(classes))
    if not counts.all():
        left_out = walk.summary()
        empty = readable_name(os.path.join(folder, classes[int(counts.argmin())]))
        raise DataError(
            f"Class folder '{empty}' has no image that can be read here. Add images or remove "
            f"the folder.{f' Left out in all folders: {left_out}.' if left_out else ''}"
        )
    found: dict[str, PictureFiles] = {}
    for kind in sorted(places.keys() - {"training"}, reverse=True):
        place = walk.enter(places[kind], classes)
        unknown = sorted(set(walk.inside(place).folders) - set(classes))
        if unknown:
            raise DataError(
                f"'{readable_name(place)}' has classes that '{readable_name(folder)}' does not "
                f"have: {[readable_name(name) for name in unknown]}."
            )
        found[kind] = walk.pictures(place, os.path.relpath(place, top), classes)
        if not found[kind].names:
            raise DataError(
                f"'{readable_name(place)}' has no image that can be read here. Fill it, or remove "
                "it."
            )
    parts = [f"{len(training.names):,} to train on, of {len(classes)} classes"] + [
        f"{len(part.names):,} of {kind} ('{readable_name(part.place)}')"
        for kind, part in found.items()
    ]
    log.info("pictures in '%s': %s", readable_name(folder), "; ".join(parts))
    if walk.summary():
        log.info("left out: %s", walk.summary())
    return PictureFolder(classes, training, found.get("validation"), found.get("test"))


def picture_extensions() -> frozenset[str]:
    """Return the extensions, such as ".jpg", of the files in which Pillow can see a picture here;
    plugins that are registered count."""
    Image.init()
    return frozenset(
        extension
        for extension, name in Image.registered_extensions().items()
        if name in Image.OPEN
        and name not in NO_PICTURES
        and not (isinstance(kind := Image.OPEN[name][0], type) and issubclass(kind, StubImageFile))
    )


def _splits(walk: _Walk, top: str) -> dict[str, str]:
    """Return the folders in `top` by what they are for; none where `top` has the classes."""
    folders = walk.inside(top).folders
    # Beside the word a name may have others, the same in all splits: "seg_train" and "seg_test".
    groups: dict[tuple[str, str], dict[str, list[str]]] = {("", ""): {}}
    for name in folders:
        match = NAMED.fullmatch(name.lower())
        if match:
            kinds = groups.setdefault((match[1], match[3]), {})
            kinds.setdefault(KINDS[match[2]], []).append(name)
    plain = groups[("", "")]

    def has_classes(name: str) -> bool:
        inside = walk.inside(os.path.join(top, name))
        # A class may have a folder beside its pictures; a split, a picture beside its classes.
        return len(inside.folders) > bool(inside.pictures)

    def has_training(kinds: dict[str, list[str]]) -> bool:
        return any(map(has_classes, kinds.get("training", [])))

    if has_training(plain):
        usable = [plain]
    else:  # a class may be called "train station"
        usable = [kinds for kinds in groups.values() if len(kinds) > 1 and has_training(kinds)]
    if not usable:
        _check_classes(walk, top, [name for names in plain.values() for name in names])
        return {}
    if len(usable) > 1:
        raise _several("training", top, [name for kinds in usable for name in kinds["training"]])
    chosen = {}
    for kind, names in usable[0].items():
        good = [name for name in names if has_classes(name)]
        if len(good) > 1:
            raise _several(kind, top, good)
        if good:
            chosen[kind] = os.path.join(top, good[0])
        elif not any(walk.inside(os.path.join(top, name)).pictures for name in names):
            raise DataError(
                f"'{readable_name(os.path.join(top, names[0]))}' must have one folder of images "
                "for each class, but it has no folder. Fill it, or remove it."
            )
    others = [name for name in folders if os.path.join(top, name) not in chosen.values()]
    rivals = [
        readable_name(name)
        for name in others
        if not NAMED.fullmatch(name.lower()) and walk.inside(os.path.join(top, name)).pictures
    ]
    if len(chosen) == 1 and rivals:
        raise DataError(
            f"'{readable_name(chosen['training'])}' may have the training pictures, or be a class "
            f"beside {rivals}. Give it as data_dir, or rename it."
        )
    walk.folders_left_out += others
    return chosen


def _check_classes(walk: _Walk, top: str, named: Sequence[str]) -> None:
    """Raise `DataError` where what would be classes looks like splits without a training split."""
    folders = set(walk.inside(top).folders)
    for name in named:
        inside = set(walk.inside(os.path.join(top, name)).folders)
        if len(named) == len(folders) or (inside and inside < folders):
            raise DataError(
                f"'{readable_name(top)}' has the folder '{name}', but no folder 'train' that has "
                "one folder of images for each class. Add it, or give the folder of the classes as "
                "data_dir."
            )


def _several(kind: str, top: str, names: Sequence[str]) -> DataError:
    listed = " and ".join(f"'{readable_name(name)}'" for name in sorted(names))
    return DataError(
        f"In '{readable_name(top)}', {listed} may each have the {kind} pictures. Keep one, or "
        "rename the others."
    )


@dataclass(frozen=True)
class _Inside:
    """The names of the folders and of the pictures right inside a folder, each sorted."""

    folders: tuple[str, ...]
    pictures: tuple[str, ...]
    left_out: Counter[str]
    identity: tuple[int, int]


@dataclass
class _Walk:
    """Reads folders, and counts what is no picture."""

    folders_left_out: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    extensions: frozenset[str] = field(default_factory=picture_extensions)

    def inside(self, folder: str) -> _Inside:
        folders, pictures = [], []
        left_out: Counter[str] = Counter()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    extension = os.path.splitext(name)[1].lower()
                    if name[0] == "." or name.lower() in OF_THE_SYSTEM:
                        left_out["hidden or of the system"] += 1
                    elif _is_folder(entry):
                        folders.append(name)
                    elif extension in self.extensions:
                        pictures.append(name)
                    elif entry.is_symlink() and not os.path.exists(entry.path):
                        raise DataError(
                            f"'{readable_name(entry.path)}' is a link to what does not exist, "
                            "perhaps to a class folder. Mend it, or remove it."
                        )
                    else:
                        left_out[readable_name(extension) or "without an extension"] += 1
            found = os.stat(folder)
        except OSError as error:
            raise DataError(
                f"'{readable_name(folder)}' cannot be read: {error.strerror}"
            ) from error
        identity = (found.st_dev, found.st_ino)
        return _Inside(tuple(sorted(folders)), tuple(sorted(pictures)), left_out, identity)

    def enter(self, folder: str, barred: Sequence[str] = ()) -> str:
        """Return the first folder, from `folder` on, that has more than one folder inside. One that
        has a name of `barred`, or has pictures, is not entered."""
        inside, above = self.inside(folder), set[tuple[int, int]]()
        while len(inside.folders) == 1 and not inside.pictures and inside.identity not in above:
            above.add(inside.identity)
            below = os.path.join(folder, inside.folders[0])
            deeper = self.inside(below)
            if inside.folders[0] in barred or deeper.pictures or not deeper.folders:
                break
            folder, inside = below, deeper
        return folder

    def pictures(self, folder: str, place: str, classes: Sequence[str]) -> PictureFiles:
        """List the pictures in the class folders in `folder`; one may be missing."""
        outside = self.inside(folder)
        self.left_out += outside.left_out
        self.left_out += Counter({"outside the class folders": len(outside.pictures)})
        names: list[str] = []
        counts = []
        for label in classes:
            before = len(names)
            if label in outside.folders:
                self._extend(names, folder, label)
            counts.append(len(names) - before)
        labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
        return PictureFiles(folder, place, tuple(names), labels)

    def _extend(self, names: list[str], root: str, label: str) -> None:
        """Append the pictures of a class, in order."""
        # A folder waits with those above it, since a link may lead back there; a picture with None.
        waiting: list[tuple[str, frozenset[tuple[int, int]] | None]] = [(label, frozenset())]
        while waiting:
            name, above = waiting.pop()
            if above is None:
                names.append(name)
                continue
            inside = self.inside(os.path.join(root, name))
            if inside.identity in above:
                self.left_out["link to a folder that it lies in"] += 1
                continue
            self.left_out += inside.left_out
            if not inside.folders:
                names += [f"{name}/{picture}" for picture in inside.pictures]
                continue
            above |= {inside.identity}
            below = dict.fromkeys(inside.folders, above) | dict.fromkeys(inside.pictures)
            waiting += [(f"{name}/{entry}", below[entry]) for entry in sorted(below, reverse=True)]

    def summary(self) -> str:
        """Return what is left out, in words; "" where nothing is."""
        shown = sorted(self.left_out.items(), key=lambda kind: (-kind[1], kind[0]))[:12]
        folders = [f"folder '{readable_name(name)}'" for name in self.folders_left_out]
        files = [f"{count:,} × {what}" for what, count in shown]
        more = self.left_out.total() - sum(count for _, count in shown)
        return ", ".join(folders + files + ([f"{more:,} × other files"] if more else []))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading the file says so
        return False
