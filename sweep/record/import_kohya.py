"""`python -m sweep.record.import_kohya FILE`: a kohya training becomes an experiment file.

FILE: a command line (text), a TOML of --config_file, a JSON of bmaltais' GUI, or a LoRA with its ss_* metadata.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from sweep.command_line import CONF_DIR
from sweep.errors import ConfigError
from sweep.files import write_text
from sweep.record.command import run_command
from sweep.record.kohya.names import EMBEDDED
from sweep.record.kohya.read import read_options
from sweep.record.kohya.translate import Imported, to_ours
from sweep.record.kohya.write import experiment_yaml


def import_file(path: Path, out: Path) -> Imported:
    """Write the experiment file; returns what could and what could not be carried over. Raises ConfigError."""
    kind, options = read_options(path)
    imported = to_ours(options, assume_its_defaults=path.suffix.lower() != ".safetensors")
    if out.exists():
        raise ConfigError(f"{out} exists. Choose another with --out, or delete it.")
    write_text(out, experiment_yaml(imported, f"From {path.name}, {kind}."))
    return imported


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sweep.record.import_kohya", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path,
                        help="the experiment file to write; default: conf/experiment/<FILE's name>.yaml")
    given = parser.parse_args(arguments)
    name = re.sub(r"\W+", "_", given.file.stem).strip("_") or "imported"
    out = given.out or CONF_DIR / "experiment" / f"{name}.yaml"
    imported = import_file(given.file, out)
    print(f"wrote {out}")
    for key, value in imported.assumed.items():
        print(f"  sd-scripts' default, not named there: {key} = {value}")
    for key, why in imported.unmapped.items():
        print(f"  not carried over: {key} {why}")
    experiments = (CONF_DIR / "experiment").resolve()
    if out.resolve().is_relative_to(experiments):
        name = out.resolve().relative_to(experiments).with_suffix("").as_posix()
    else:
        name = out.stem
        print(f"move it to {experiments / out.name}; then:")
    unscored = "" if imported.groups.get("base_model", "pocket") in EMBEDDED else " scoring=none"
    print(f"python train.py experiment={name}{unscored}                       # the same training again")
    print(f"python train.py -m experiment={name}{unscored} network_dim=8,32   # a sweep around it")
    if unscored:
        print("scoring=person scores photographs, with models that you bring: see conf/scoring/person.yaml")
    return 0


if __name__ == "__main__":
    run_command(main)
