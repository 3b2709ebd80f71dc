"""Near-duplicates: pictures of which a copy, a crop or the next one of a burst is in another split.

Thumbnails find who may look alike, and the details of the images decide.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch.nn.functional import interpolate, normalize

from impon_hpo.training.images import Images
from impon_hpo.training.pixel_store import Filling, Notes, kept_array, name_of

log = logging.getLogger("impon_hpo")

Rows = NDArray[np.int64]

LEAST_SIDE = 32
"""Side in pixels below which only copies count: small digits or shirts look alike anyway."""
LOOKED_AT, COMPARED = 10_000, 5 * 10**8
"""Pictures of a split that are looked at for the log, and pairs with those that are trained on; of
more, so many are drawn."""
FURTHEST = 0.05
"""Distance, 1 - correlation of thumbnails, above which pictures never look alike."""
UNUSUAL = 0.1
"""Share of the distance at which a picture usually finds a neighbour, below which they do."""
SAMPLE, USUAL = 500, 10
"""A picture's usual distance is that to its tenth neighbour among 500 others: a
burst or a scene may have a few of them."""
UNUSUAL_DETAIL = 0.5
"""The same share for what a thumbnail does not show."""
CONTRAST = 4
"""Standard deviation within a thumbnail, of 255, below which there is nothing to compare."""
NEIGHBOURS, DIRECTIONS = 9, 16
"""Neighbours of a picture that are looked at, itself among them, and directions of the search."""
AT_A_TIME = 1024


def twins(images: Images, among: Images, usual: Images | None = None) -> tuple[Rows, Rows]:
    """Return pairs of rows (k,) of `images` and (k,) of `among` that look alike.

    Their thumbnails, without the mean of each channel, correlate far more than those of other
    pictures, and so do their details at 32 × 32 pixels. So brightness and colour may differ, and
    the crop a little. Of images below 32 pixels only equal ones count. Plain images never do.

    Args:
        images: The images that are looked at.
        among: Those that they are compared with; nine of them at most are found for each.
        usual: Images that tell how much alike pictures usually are, five or more; default `among`.

    Example:
        >>> import numpy as np
        >>> from impon_hpo.training.images import Images
        >>> from impon_hpo.training.near_duplicates import twins
        >>> photographs = np.random.default_rng(0).integers(0, 200, (50, 32, 32, 3), dtype=np.uint8)
        >>> brighter = Images(photographs[7:9] + np.uint8(30))
        >>> twins(brighter, Images(photographs))
        (array([0, 1]), array([7, 8]))
    """
    images, among = images.on_host(), among.on_host()
    if images.thumbnails.shape[1:] != among.thumbnails.shape[1:]:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if min(*images.shape[1:3], *among.shape[1:3]) < LEAST_SIDE:
        return _copies(images, among)
    return _look_alikes(images, among, (usual or among).on_host())


def _copies(images: Images, among: Images) -> tuple[Rows, Rows]:
    row_of: dict[bytes, int] = {}
    for row, content in _contents(among):
        row_of.setdefault(content, row)
    pairs = [(row, row_of[content]) for row, content in _contents(images) if content in row_of]
    rows, others = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return rows, others


def _contents(images: Images) -> list[tuple[int, bytes]]:
    """Return row and pixels of each image that is not plain."""
    plain = np.concatenate([~part.any(1) for part in _all_shapes(images)])
    parts = images.split(AT_A_TIME)
    every = (image.tobytes() for part in parts for image in part.numpy())
    return [(row, content) for row, content in enumerate(every) if not plain[row]]


def _look_alikes(images: Images, among: Images, usual: Images) -> tuple[Rows, Rows]:
    some = _spread(len(usual), SAMPLE)
    rank = min(USUAL, len(some) // 5)
    if rank == 0 or len(images) == 0:  # too few to know what is usual
        return np.zeros(0, np.int64), np.zeros(0, np.int64)

    def usually(part: NDArray[np.float32], sample: NDArray[np.float32]) -> NDArray[np.float32]:
        return 1 - np.partition(part @ sample.T, -rank, 1)[:, -rank]

    sample, details = _shapes(usual, some), _details(usual, some)
    distances = np.concatenate([usually(part, sample) for part in _all_shapes(images)])
    limits = np.minimum(FURTHEST, UNUSUAL * distances)
    # In few directions pictures lie closer than in all of them, so that none is overlooked.
    spread = _shapes(among, _spread(len(among), 5000))
    _, directions = np.linalg.eigh(spread.T @ spread)
    directions = directions[:, -DIRECTIONS:]
    tree = KDTree(np.concatenate([part @ directions for part in _all_shapes(among)]))
    reach = float(np.sqrt(2 * limits.max()))
    pairs = []
    for rows, part in zip(_parts(len(images)), _all_shapes(images), strict=True):
        found, others = tree.query(part @ directions, NEIGHBOURS, distance_upper_bound=reach)
        at, nth = np.nonzero(np.isfinite(found))
        other = others[at, nth]
        distance = 1 - (part[at] * _shapes(among, other)).sum(1)
        near = distance <= limits[rows][at]
        row, other = rows[at[near]], other[near]
        if len(row):
            mine, theirs = _details(images, row), _details(among, other)
            same = 1 - (mine * theirs).sum(1) <= UNUSUAL_DETAIL * usually(mine, details)
            pairs.append(np.stack([row[same], other[same]]))
    rows, others = np.concatenate(pairs, 1) if pairs else np.zeros((2, 0), np.int64)
    return rows, others


def _spread(n: int, count: int) -> Rows:
    return np.linspace(0, n - 1, min(n, count)).astype(np.int64)


def _parts(n: int) -> list[Rows]:
    return np.split(np.arange(n), range(AT_A_TIME, n, AT_A_TIME))


def _all_shapes(images: Images) -> Iterator[NDArray[np.float32]]:
    return (_shapes(images, rows) for rows in _parts(len(images)))


def _shapes(images: Images, rows: Rows) -> NDArray[np.float32]:
    """Return what a thumbnail shows, (k, d) of length 1 without the mean of each channel; of plain
    images 0."""
    small = images.thumbnails[torch.from_numpy(rows)].float()
    small = (small - small.mean((1, 2), keepdim=True)).flatten(1)
    length = small.norm(dim=1, keepdim=True)
    plain = length < CONTRAST * small.shape[1] ** 0.5
    shapes: NDArray[np.float32] = torch.where(plain, 0.0, small / length.clamp_min(1)).numpy()
    return shapes


def _details(images: Images, rows: Rows) -> NDArray[np.float32]:
    """Return what a thumbnail does not show of images at 32 × 32 pixels, (k, d) of length 1."""
    parts = []
    for some in torch.from_numpy(rows).split(64):
        planes = images.index_select(0, some).float().permute(0, 3, 1, 2)
        planes = interpolate(planes, (LEAST_SIDE, LEAST_SIDE), mode="area")
        coarse = interpolate(planes, images.thumbnails.shape[1:3], mode="area")
        parts.append((planes - interpolate(coarse, planes.shape[2:], mode="bilinear")).flatten(1))
    details: NDArray[np.float32] = normalize(torch.cat(parts)).numpy()
    return details


def say_twins(
    trained: tuple[Images, Sequence[str]], judged: Mapping[str, tuple[Images, Sequence[str]]]
) -> None:
    """Say in the log how many pictures look like one that is trained on, if any do.

    It is found out once for the same pictures, and kept in the user's cache folder.

    Args:
        trained: Images that are trained on, and their names.
        judged: Those of each other split, by its name.
    """
    judged_by = (images.fingerprint for images, _ in judged.values())
    name = name_of("twins 1", trained[0].fingerprint, *judged_by)

    def look(filling: Filling) -> Notes:
        return {"said": _said(trained, judged)}

    _, notes = kept_array(name, lambda: (1,), np.uint8, look, "what looks alike")
    if notes["said"]:
        log.warning("%s", notes["said"])


def _said(
    trained: tuple[Images, Sequence[str]], judged: Mapping[str, tuple[Images, Sequence[str]]]
) -> str:
    counts, example = [], ""
    images, names = trained
    for kind, (others, their_names) in judged.items():
        n = min(LOOKED_AT, 1 + COMPARED // len(images))
        looked_at = np.sort(np.random.default_rng(0).permutation(len(others))[:n])
        rows, same = twins(others.on_host().of(torch.from_numpy(looked_at)), images)
        more = " that were looked at" if len(looked_at) < len(others) else ""
        if len(rows):
            counts.append(f"{len(np.unique(rows)):,} of {len(looked_at):,} {kind} pictures{more}")
            example = example or f"'{their_names[looked_at[rows[0]]]}' and '{names[same[0]]}'"
    if not counts:
        return ""
    return (
        f"near-duplicates: {' and '.join(counts)} look like one that is trained on ({example}). "
        "`impon-hpo duplicates` lists them, for the setting groups"
    )
