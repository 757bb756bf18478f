"""Which model plays which role: known by its files before it is loaded, loaded when it is needed.

Imports no torch, so that a plan or a resume can find scores without it.
"""

from __future__ import annotations

from sweep.errors import ModelError
from sweep.evaluation.backends import pocket
from sweep.evaluation.backends.interface import Backends
from sweep.evaluation.settings import ScoringConfig
from sweep.files import sha256_of, stable_hash


def backend_identities(scoring: ScoringConfig) -> dict[str, str]:
    """Hash of each backend's files, by role. Raises ModelError naming what is missing."""
    files = {"face": pocket.face_files(scoring.weights_dir), "prompt": pocket.clip_files(scoring.weights_dir),
             "perceptual": pocket.perceptual_files(scoring.weights_dir)}
    missing = [str(path) for paths in files.values() for path in paths if not path.is_file()]
    if missing:
        raise ModelError(f"Scoring lacks {', '.join(missing)}. `python -m sweep.pocket.build` makes a set of weights; "
                         "scoring=none trains without scoring.")
    return {role: stable_hash([sha256_of(path) for path in paths]) for role, paths in files.items()}


def load_backends(scoring: ScoringConfig) -> Backends:
    """Load all of them, frozen, on the CPU. Raises ModelError naming what is missing."""
    identities = backend_identities(scoring)
    perceptual = pocket.load_perceptual(scoring.weights_dir)
    return Backends(face=pocket.load_face(scoring.weights_dir, scoring.face_confidence), subject=None,
                    prompt=pocket.load_clip(scoring.weights_dir), perceptual=perceptual, copies=perceptual,
                    identities=identities)
