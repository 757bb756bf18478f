"""Train the pocket base from nothing: `python -m sweep.pocket.build`.

The weights go to the package's own folder unless `--out` says otherwise. Stages keep their checkpoints in
`build/pocket`, so the same command again goes on where it was. After `tokenizer,pictures`, the first two of these
may run at the same time (two one-thread processes use two cores best), and the others follow one by one:

    python -m sweep.pocket.build --threads 1 --stages vae,latents,decoder,decoded,face
    python -m sweep.pocket.build --threads 1 --stages judge,perceptual,clip
    python -m sweep.pocket.build --threads 1 --processes 2 --stages unet
    python -m sweep.pocket.build --stages export
    python -m sweep.pocket.build --threads 1 --stages rv
    python -m studies.pocket_figures

`rv` needs nothing but an exported set (and peft); it makes the second base, pocket_rv.
The last one measures the set; it is no stage, since it looks with the project's own scoring.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sweep.pocket import WEIGHTS_DIR
from sweep.pocket.recipe import SEED, STAGE_ORDER


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sweep.pocket.build", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=WEIGHTS_DIR, help="folder of the weight set")
    parser.add_argument(
        "--work", type=Path, default=Path("build/pocket"), help="folder of pictures and checkpoints (about 2 GB)"
    )
    parser.add_argument("--stages", default=",".join(STAGE_ORDER), help="comma separated, of " + ", ".join(STAGE_ORDER))
    parser.add_argument("--budget", choices=("full", "first"), default="full", help="first: a quick, poor set")
    parser.add_argument("--num-steps", type=int, help="length of the one training stage given by --stages")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda, of the unet stage; others use the CPU")
    parser.add_argument("--threads", type=int, help="CPU threads of each process")
    parser.add_argument("--processes", type=int, default=1, help="processes that share the unet stage's batches")
    parser.add_argument("--untrained", action="store_true", help="only write random weights in the set's layout")
    parser.add_argument("--export-now", action="store_true", help="export the checkpoints as they stand")
    parser.add_argument("--seed", type=int, default=SEED, help="of --untrained")
    options = parser.parse_args(arguments)
    unknown = [stage for stage in options.stages.split(",") if stage not in STAGE_ORDER]
    if unknown:
        parser.error(f"unknown stages {', '.join(unknown)}; known: {', '.join(STAGE_ORDER)}")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the stages asked for, in the recipe's order."""
    options = parse_arguments(arguments)
    from sweep.pocket.models import import_hubs

    import_hubs()
    if options.untrained:
        from sweep.pocket.export import export_untrained

        export_untrained(options.out, options.seed)
        return
    from sweep.pocket.stages import Build

    build = Build.from_options(options)
    chosen = ["export"] if options.export_now else [s for s in STAGE_ORDER if s in options.stages.split(",")]
    for stage in chosen:
        print(f"== {stage}", flush=True)
        build.run(stage)


if __name__ == "__main__":
    main()
