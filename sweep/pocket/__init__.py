"""The embedded base: a miniature Stable Diffusion of 64x64 portraits, the world it was trained on, its recipe.

Read `world.py` (what exists), `render.py` (how it looks), `captions.py` (what is said about it), `models.py`
(the networks and how to load them), `build.py` (how they are trained). Importing this package loads no torch.
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS_DIR: Path = Path(__file__).parent / "weights"
"""The shipped weight set: `sd/`, `clip/`, `face.safetensors`, `perceptual.safetensors`, `judge.safetensors`."""

SUBJECT_DIR: Path = Path(__file__).parent / "subject_photos"
"""The default subject: `train/<repeats>_<trigger> <class>/`, `holdout/`, `subject.json`."""
