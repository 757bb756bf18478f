"""Which model plays which role: known by its files before it is loaded, loaded when it is needed.

What the config names is what scores: where its weights are missing, that is an error that says how to get them, never a
silent substitute. Imports no torch, so that a plan or a resume can find scores without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweep.errors import ModelError
from sweep.evaluation.backends import files, pocket
from sweep.evaluation.backends.interface import Backends
from sweep.evaluation.settings import BackendConfig, ScoringConfig
from sweep.files import sha256_of, stable_hash


def backend_identities(scoring: ScoringConfig) -> dict[str, str]:
    """Hash of each backend's name and files, by role. Raises ModelError naming all that is missing, at once."""
    if problems := what_is_missing(scoring):
        raise ModelError(in_one(problems))
    found = {role: (config.name, _files(role, config, scoring)) for role, config in scoring.backends.by_role().items()}
    return {role: stable_hash([name, [sha256_of(path) for path in paths]]) for role, (name, paths) in found.items()}


def what_is_missing(scoring: ScoringConfig) -> list[str]:
    """Each with how to get it; what two roles want is named once."""
    problems: dict[tuple[str | None, ...], str] = {}
    for role, config in scoring.backends.by_role().items():
        for part_role, part in _parts(role, config, scoring):
            try:
                _part_files(part_role, part)
            except ModelError as error:
                # a role needs a path of its own, and of the pocket's folder files of its own
                is_own = part.path is None or part.name == "pocket"
                problems.setdefault((part.name, part.path, part_role if is_own else None), str(error))
    return list(dict.fromkeys(problems.values()))


def in_one(problems: Sequence[str]) -> str:
    """One message of several, so that what is missing can be fetched in one go."""
    if len(problems) == 1:
        return problems[0]
    listed = (f"  {i}. {text}" for i, text in enumerate(problems, 1))
    return "\n".join([f"Scoring lacks {len(problems)} things:", *listed])


def load_backends(scoring: ScoringConfig) -> Backends:
    """Load all of them, frozen, on the CPU. Raises ModelError naming what is missing."""
    identities = backend_identities(scoring)
    roles = scoring.backends
    perceptual = _load("perceptual", roles.perceptual, scoring)
    subject = None if roles.subject.name == "none" else _load("subject", roles.subject, scoring)
    copies = perceptual if roles.copies.name == "perceptual" else _load("copies", roles.copies, scoring)
    if roles.copies.name == "dino_lpips":
        from sweep.evaluation.backends.embedders import DinoLpips

        copies = DinoLpips(copies, perceptual)
    return Backends(face=None if roles.face.name == "none" else _load("face", roles.face, scoring), subject=subject,
                    prompt=_load("prompt", roles.prompt, scoring), perceptual=perceptual, copies=copies,
                    identities=identities)


def _files(role: str, config: BackendConfig, scoring: ScoringConfig) -> list[Path]:
    """The files that decide what a backend answers."""
    return [path for part_role, part in _parts(role, config, scoring) for path in _part_files(part_role, part)]


def _parts(role: str, config: BackendConfig, scoring: ScoringConfig) -> list[tuple[str, BackendConfig]]:
    """What a backend is made of: itself, another role's, or both."""
    perceptual = ("perceptual", scoring.backends.perceptual)
    if config.name == "dino_lpips":
        return [(role, _as_dino(config)), perceptual]
    return {"none": [], "perceptual": [perceptual]}.get(config.name, [(role, config)])


def _part_files(role: str, config: BackendConfig) -> list[Path]:
    if config.name == "pocket":
        paths = {"face": pocket.face_files, "prompt": pocket.clip_files, "subject": pocket.clip_files,
                 "perceptual": pocket.perceptual_files}[role](config.path)
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise ModelError(f"Scoring lacks {', '.join(missing)}. `python -m sweep.pocket.build` makes a set of "
                             "weights; scoring=none trains without scoring.")
        files.check_hash(paths, config, role)
        return paths
    if config.name in files.MODEL_TYPES:
        return files.transformers_files(config, role)
    return {"dlib": files.dlib_files, "insightface": files.insightface_files, "sscd": files.sscd_files,
            "lpips": files.lpips_files}[config.name](config)


def _load(role: str, config: BackendConfig, scoring: ScoringConfig) -> Any:
    if config.name == "pocket":
        if role == "face":
            return pocket.load_face(config.path, scoring.face_confidence)
        return pocket.load_perceptual(config.path) if role == "perceptual" else pocket.load_clip(config.path)
    from sweep.evaluation.backends import embedders, faces

    paths = _files(role, config, scoring)
    if config.name == "dlib":
        from sweep.data.dlib_models import FaceRecogniser

        return faces.DlibFace(FaceRecogniser(paths[0].parent), scoring.face_confidence)
    if config.name == "insightface":
        return faces.load_insightface(paths, scoring.face_confidence)
    if config.name in ("clip", "siglip"):
        return embedders.load_clip(files.transformers_folder(config, role), is_siglip=config.name == "siglip")
    if config.name in ("dino", "dino_lpips"):
        return embedders.load_dino(files.transformers_folder(_as_dino(config), role))
    return embedders.load_sscd(paths[0]) if config.name == "sscd" else embedders.load_lpips(paths[0])


def _as_dino(config: BackendConfig) -> BackendConfig:
    return BackendConfig(name="dino", path=config.path, sha256=config.sha256, download=config.download)

