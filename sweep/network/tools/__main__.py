"""Tools for LoRA files:  python -m sweep.network.tools extract|merge|bake|resize|inner ...

extract TUNED BASE OUT --rank 32          the LoRA that turns BASE into TUNED, as far as the rank goes
merge OUT A B --strengths .6 .7           one LoRA that adds what A and B add together
bake OUT BASE A B --strengths .6 .7       BASE with the LoRAs in its weights, in BASE's own layout
resize IN OUT --rank 16 | --keep .95      a smaller LoRA, by rank or by kept energy per layer
inner IN OUT --rank 16                    a DyLoRA's first ranks

TUNED and BASE: pocket, pocket_rv, a folder in diffusers layout, or one checkpoint file. LoRA files are read in any form
and written in kohya's. What was written is read back and compared with what was asked; `python evaluate.py lora=OUT`
scores a LoRA.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweep.errors import AdapterFileError, SweepError
from sweep.network.tools.layers import Done

_PRECISIONS = ("fp32", "fp16", "bf16")


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        _check(given)
        done: Done = given.run(given)
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    ranks = Counter(done.ranks.values())
    low, high = min(ranks), max(ranks)
    print(f"{given.out}: {len(done.ranks)} layers of rank {low if low == high else f'{low} to {high}'}; read back, it "
          f"holds {done.kept_frac:.4%} of the energy that was asked for (what is lacking has the norm {done.left:.3g} "
          f"of {done.asked:.3g})")
    for note in done.notes:
        print(f"note: {note}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sweep.network.tools", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    tools = parser.add_subparsers(required=True, metavar="extract|merge|bake|resize|inner")
    tool = tools.add_parser("extract", help="a LoRA from a fine-tuned base")
    tool.add_argument("tuned", metavar="TUNED")
    tool.add_argument("base", metavar="BASE")
    tool.add_argument("out", metavar="OUT", type=Path)
    tool.add_argument("--rank", type=int, required=True, help="at least 1")
    tool.add_argument("--conv-rank", type=int, help="of 3x3 convolutions; without it they are left out")
    tool.add_argument("--device", default="cpu", help="where singular values are computed: cpu (default), cuda")
    tool.add_argument("--precision", choices=_PRECISIONS, default="fp16", help="of the file; default fp16")
    tool.set_defaults(run=_extract)
    tool = tools.add_parser("merge", help="one LoRA of several")
    tool.add_argument("out", metavar="OUT", type=Path)
    _add_sources(tool)
    tool.add_argument("--rank", type=int, help="of the merged file; without it the ranks add up and nothing is lost")
    tool.add_argument("--precision", choices=_PRECISIONS, default="fp16", help="of the file; default fp16")
    _add_base(tool)
    tool.set_defaults(run=_merge)
    tool = tools.add_parser("bake", help="LoRAs into a base's weights")
    tool.add_argument("out", metavar="OUT", type=Path, help="a new folder for a folder, a new file for a file")
    tool.add_argument("base", metavar="BASE")
    _add_sources(tool)
    tool.add_argument("--precision", choices=_PRECISIONS, help="of the weights; default: as BASE has them")
    tool.set_defaults(run=_bake)
    tool = tools.add_parser("resize", help="a LoRA of another rank")
    tool.add_argument("source", metavar="IN", type=Path)
    tool.add_argument("out", metavar="OUT", type=Path)
    tool.add_argument("--rank", type=int, help="of every layer; with --keep the most that a layer may have")
    tool.add_argument("--keep", type=float, help="share of each layer's energy to keep, above 0 to 1")
    _add_base(tool)
    tool.set_defaults(run=_resize)
    tool = tools.add_parser("inner", help="a DyLoRA at one of its inner ranks")
    tool.add_argument("source", metavar="IN", type=Path)
    tool.add_argument("out", metavar="OUT", type=Path)
    tool.add_argument("--rank", type=int, required=True, help="how many of its ranks, from the first")
    _add_base(tool)
    tool.set_defaults(run=_inner)
    return parser


def _add_sources(tool: argparse.ArgumentParser) -> None:
    tool.add_argument("sources", metavar="LORA", type=Path, nargs="+")
    tool.add_argument("--strengths", type=float, nargs="+", help="one for each LoRA; default 1")


def _add_base(tool: argparse.ArgumentParser) -> None:
    tool.add_argument("--base", default="pocket",
                      help="whose layers they are: pocket (default), pocket_rv, a folder, a file")


def _check(given: argparse.Namespace) -> None:
    values = vars(given)
    for name in ("rank", "conv_rank"):
        if values.get(name) is not None and values[name] < 1:
            raise AdapterFileError(f"--{name.replace('_', '-')} {values[name]}: a rank is at least 1.")
    if "keep" in values:
        if values["keep"] is None and values["rank"] is None:
            raise AdapterFileError("resize to what? Give --rank, or --keep with the share of the energy to keep.")
        if values["keep"] is not None and not 0 < values["keep"] <= 1:
            raise AdapterFileError(f"--keep {values['keep']:g}: a share above 0, at most 1.")
    if "strengths" in values:
        given.strengths = given.strengths or [1.0] * len(given.sources)
        if len(given.strengths) != len(given.sources):
            raise AdapterFileError(f"{len(given.sources)} LoRAs, but {len(given.strengths)} --strengths; give one for "
                                   "each.")
    is_base = given.run is _bake
    if not is_base and given.out.suffix != ".safetensors":
        raise AdapterFileError(f"OUT = {given.out} must end in .safetensors.")
    if any(given.out.resolve() == source.resolve() for source in [*values.get("sources", []), values.get("source")]
           if source is not None):
        raise AdapterFileError(f"OUT = {given.out} is one of the files that are read; give a new name.")


def _extract(given: argparse.Namespace) -> Done:
    from sweep.network.tools.make import extract

    return extract(given.tuned, given.base, given.out, rank=given.rank, conv_rank=given.conv_rank,
                   dtype=_dtype(given.precision), device=given.device)


def _merge(given: argparse.Namespace) -> Done:
    from sweep.network.tools.base_weights import read_targets
    from sweep.network.tools.make import merge

    return merge(given.sources, given.strengths, given.out, read_targets(given.base), rank=given.rank,
                 dtype=_dtype(given.precision))


def _bake(given: argparse.Namespace) -> Done:
    from sweep.network.tools.make import bake

    return bake(given.sources, given.strengths, given.base, given.out,
                None if given.precision is None else _dtype(given.precision))


def _resize(given: argparse.Namespace) -> Done:
    from sweep.network.tools.base_weights import read_targets
    from sweep.network.tools.make import resize

    return resize(given.source, given.out, read_targets(given.base), rank=given.rank, keep=given.keep)


def _inner(given: argparse.Namespace) -> Done:
    from sweep.network.tools.base_weights import read_targets
    from sweep.network.tools.make import inner

    return inner(given.source, given.out, read_targets(given.base), rank=given.rank)


def _dtype(precision: str) -> Any:
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


if __name__ == "__main__":
    sys.exit(main())
