"""Are the photos fit to measure with? Said before anything is scored: in words, with the files' names.

Shapes: R photos, F faces of one photo, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MAX_LISTED = 12


def face_notes(photos: Sequence[Path], faces_R: Sequence[Tensor], same_face: float) -> list[str]:
    """faces_R: embeddings [F, D] of each photo's faces, the largest first."""
    notes = []
    faceless = [path for path, faces_FD in zip(photos, faces_R, strict=True) if not len(faces_FD)]
    if faceless:
        notes.append(f"no face was found in {len(faceless)} of {len(photos)} photos, so they can't say what the "
                     f"subject looks like: {listed(faceless)}")
    crowded = [path for path, faces_FD in zip(photos, faces_R, strict=True) if len(faces_FD) > 1]
    if crowded:
        notes.append(f"{len(crowded)} of {len(photos)} photos show several faces, of which the largest is taken for "
                     f"the subject's; crop the others away: {listed(crowded)}")
    shown = [path for path, faces_FD in zip(photos, faces_R, strict=True) if len(faces_FD)]
    people = _people([faces_FD[0] for faces_FD in faces_R if len(faces_FD)], same_face)
    if len(people) > 1:
        others = [shown[i] for group in people[1:] for i in group]
        who = "two people" if len(people) == 2 and len(people[1]) > 1 else "more than one person"
        notes.append(f"the photos seem to show {who}: the faces of {len(others)} of {len(shown)} are unlike the "
                     f"others' (mean similarity below {same_face:g}); take them out if they are someone else: "
                     f"{listed(others)}")
    return notes


def duplicate_notes(photos: Sequence[Path], duplicates: Sequence[int]) -> list[str]:
    """duplicates: indices of photos that are near-duplicates of earlier ones."""
    if not duplicates:
        return []
    return [f"{len(duplicates)} of {len(photos)} training photos are near-duplicates of others and count once where "
            f"copies are looked for: {listed([photos[i] for i in duplicates])}"]


def holdout_notes(holdout: Sequence[Path], distances: Sequence[float], duplicate_distance: float) -> list[str]:
    """distances: of each held-out photo to the nearest training photo."""
    trained_on = [path for path, distance in zip(holdout, distances, strict=True) if distance < duplicate_distance]
    if not trained_on:
        return []
    return [f"{len(trained_on)} of {len(holdout)} held-out photos are in the training set too, or nearly; what is held "
            f"out must not be trained on, or a copy passes for a likeness: {listed(trained_on)}"]


def listed(paths: Sequence[Path]) -> str:
    """Names, at most a dozen of them."""
    names = ", ".join(path.name for path in paths[:MAX_LISTED])
    return names if len(paths) <= MAX_LISTED else f"{names} and {len(paths) - MAX_LISTED} more"


def _people(faces_RD: Sequence[Tensor], same_face: float) -> list[list[int]]:
    """Groups of photos of one person each, the largest first: average-linkage clustering of the cosines, cut at
    `same_face` (Sokal & Michener 1958)."""
    import torch

    if len(faces_RD) < 2:
        return [[i] for i in range(len(faces_RD))]
    embeddings_RD = torch.stack(list(faces_RD))
    cosines_RR = embeddings_RD @ embeddings_RD.T
    groups = [[i] for i in range(len(faces_RD))]
    while len(groups) > 1:
        pairs = [(float(cosines_RR[one][:, other].mean()), a, b) for a, one in enumerate(groups)
                 for b, other in enumerate(groups) if a < b]
        similarity, a, b = max(pairs)
        if similarity < same_face:
            break
        groups[a] += groups.pop(b)
    return sorted(groups, key=len, reverse=True)
