"""What a person can mend before a training:  python -m sweep.data.check FOLDER [key=value ...]

Reads the photos and captions of FOLDER as `python train.py dataset.dir=FOLDER key=value ...` would and says what is
wrong with them, what is advised, by whom, and how sure that is. Nothing is written; a base model is loaded with --base
alone, to see how strongly it draws something for the trigger already (seconds on a GPU, minutes without).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sweep.errors import SweepError

_OF_PHOTOGRAPHS = 128  # pixels of the shorter side: the pocket base's own photos have 64


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sweep.data.check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="photos, or <repeats>_<trigger> <class> folders of "
                                                                    "them")
    parser.add_argument("overrides", metavar="key=value", nargs="*",
                        help="as for train.py, e.g. base_model=sd15 trigger=alexq max_train_epochs=10")
    parser.add_argument("--base", action="store_true", help="ask the base model about the trigger too")
    parser.add_argument("--device", default="cpu", help="for --base: cpu (default), cuda")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    given = parser.parse_intermixed_args(arguments)
    try:
        return _report(given.folder, given.overrides, as_json=given.json, device=given.device if given.base else None)
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _report(folder: Path, overrides: list[str], *, as_json: bool, device: str | None) -> int:
    """device: where the base model is asked; None = it is not."""
    from sweep.config import compose
    from sweep.data.check.report import check, lines_of, tree_of
    from sweep.data.folder import read_dataset

    overrides = [f"dataset.dir={json.dumps(str(folder))}", *overrides]
    config = compose(overrides).train
    dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun, repeats=config.repeats,
                           images_per_epoch=config.images_per_epoch)
    assumed = not any(each.startswith("base_model=") for each in overrides)
    if assumed and min(min(photo.size) for photo in dataset.photos) >= _OF_PHOTOGRAPHS:
        config = compose(["base_model=sd15", *overrides]).train
    findings = check(dataset, config)
    if device is not None:
        from sweep.data.check.strength import strength_finding
        from sweep.model.loading import load_base

        base = load_base(config.base_model, identity="", device=device)
        findings.append(strength_finding(base, dataset.trigger, dataset.class_noun))
    if as_json:
        print(json.dumps(tree_of(findings, dataset), indent=1))
        return 0
    print("\n".join(lines_of(findings, dataset)))
    if assumed:
        print(f"\nchecked for base_model={config.base_model.name} at {config.base_model.resolution} pixels; say "
              "base_model=... for another")
    return 0


if __name__ == "__main__":
    sys.exit(main())
