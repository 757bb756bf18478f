"""`python evaluate.py inner_ranks=[32,16,8,4]`: a DyLoRA file beside the smaller files that lie in it.

Each inner rank becomes a file of its own (network/tools), so it is drawn, scored and kept like any other, and can be
used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.comparison import are_tied
from sweep.errors import ScoringError
from sweep.evaluation.choice import best_of
from sweep.evaluation.lora_files import FoundLora, trained_header
from sweep.files import sha256_of
from sweep.trial import Score

if TYPE_CHECKING:
    from sweep.network.targets import Target

_DOWN = (".lora_down.weight", ".lora_A.weight")


def check_inner_ranks(loras: Sequence[FoundLora], ranks: Sequence[int]) -> None:
    """By the files' headers alone. Raises ScoringError for a rank that a file lacks, or a file that is no DyLoRA."""
    for lora in loras if ranks else ():
        header = trained_header(lora.path)
        module = header.metadata.get("ss_network_module", "")
        if module and "dylora" not in f"{module} {header.metadata.get('ss_network_args', '')}".lower():
            raise ScoringError(f"inner_ranks={list(ranks)}: {lora.path} was made by {module} and is no DyLoRA, so its "
                               "first ranks were not trained to stand by themselves. Leave inner_ranks out; `python -m "
                               "sweep.network.tools resize` makes such a file smaller.")
        dims = [shape[0] for name, shape in header.shapes.items() if name.endswith(_DOWN)]
        if not dims:
            raise ScoringError(f"inner_ranks={list(ranks)}: {lora.path} is no LoRA of two matrices, so it has no "
                               "ranks. Leave inner_ranks out.")
        if any(rank >= max(dims) for rank in ranks):
            raise ScoringError(f"inner_ranks={list(ranks)}: {lora.path} has rank {max(dims)}; give ranks below it.")


def with_inner_ranks(loras: Sequence[FoundLora], ranks: Sequence[int], folder: Path,
                     targets: Sequence[Target]) -> list[FoundLora]:
    """Each file, then its inner ranks, the largest first, written to `folder`."""
    from sweep.network.tools.make import inner

    found = []
    for lora in loras:
        found.append(lora)
        for rank in sorted(set(ranks), reverse=True):
            path = folder / sha256_of(lora.path)[:8] / f"{lora.path.stem}-rank{rank}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            inner(lora.path, path, targets, rank=rank)
            found.append(replace(lora, path=path, name=f"{lora.called.removesuffix('.safetensors')}-rank{rank}"
                                 ".safetensors"))
    return found


def smallest_as_good(scores: Sequence[Score], files: Sequence[FoundLora]) -> str:
    """Which is the smallest file that can't be told apart from the best one; empty if usefulness can't be known."""
    best = scores[best_of(scores)[0]]
    size_of = {score.file_sha256: lora.path.stat().st_size for score, lora in zip(scores, files, strict=True)}
    good = [score for score in scores if score is best or are_tied(best, score)]
    if best.axes["usefulness"].value is None:
        return ""
    smallest = min(good, key=lambda score: size_of[score.file_sha256])
    num_mb = size_of[smallest.file_sha256] / 1e6
    return (f"The smallest file that can't be told apart from the best one at strength {best.strength:g}: "
            f"{smallest.file} ({num_mb:.1f} MB, of {size_of[best.file_sha256] / 1e6:.1f})")
