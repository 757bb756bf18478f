"""Whether pocket_rv still does what prompts ask for, and looks otherwise: `python -m studies.pocket_rv`.

Both bases draw the same prompts from the same noise. Writes rv.json, rv.md and rv.png into results/pocket/.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from studies.estimates import Figure, mean
from studies.pocket_base import adherence_figures, open_studio
from studies.pocket_figures import OUT
from sweep.files import sha256_of, write_json, write_text
from sweep.model.sources import DIFFERENCE
from sweep.pocket import WEIGHTS_DIR
from sweep.pocket.dataset import held_out_pictures
from sweep.pocket.look import render_photo
from sweep.pocket.models import load_judge
from sweep.pocket.render import render
from sweep.pocket.sheets import write_sheet
from sweep.pocket.world import ATTRIBUTES
from sweep.record.provenance import commit, hardware

NUM_PROMPTS = 150
COLUMNS = 12
BASES = ("pocket", "pocket_rv")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, measure and report."""
    parser = argparse.ArgumentParser(prog="python -m studies.pocket_rv", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS_DIR, help="folder of a weight set (default: shipped)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder to write (default: {OUT.as_posix()})")
    parser.add_argument("--num-prompts", type=int, default=NUM_PROMPTS, help="24 to 300")
    asked = parser.parse_args(arguments)
    write_report(asked.weights, asked.out, asked.num_prompts)


@torch.no_grad()
def write_report(folder: Path, out: Path, num_prompts: int) -> None:
    """Figures of both bases and of true pictures of both looks, and a sheet: pocket above, pocket_rv below."""
    out.mkdir(parents=True, exist_ok=True)
    made_by = commit()
    figures: dict[str, dict[str, Figure]] = {}
    drawn = {}
    for name in BASES:
        figures[name], drawn[name], prompts = adherence_figures(open_studio(folder, name), folder, num_prompts)
        figures[name] |= look_figures(drawn[name])
    judge = load_judge(folder / "judge.safetensors")
    _, people, shots = held_out_pictures(1, seed=21, photos_only=False)
    for name, draw in (("renders", render), ("renders_rv", render_photo)):
        images = draw(people, shots).images_BCHW
        found = judge.attributes(images)
        figures[name] = {f"base_{a}": mean((found[a].argmax(dim=1) == getattr(shots, a)).float()) for a in ATTRIBUTES}
        figures[name] |= look_figures(images)
    pairs = torch.stack([drawn[name][: 3 * COLUMNS].view(3, COLUMNS, 3, 64, 64) for name in BASES], dim=1)
    write_sheet(out / "rv.png", pairs.flatten(0, 2), num_columns=COLUMNS)
    facts = {"command": "python -m studies.pocket_rv", "date": time.strftime("%Y-%m-%d", time.gmtime()),
             "hardware": hardware(), "commit": made_by, "num_prompts": num_prompts,
             "difference_bytes": (folder / DIFFERENCE).stat().st_size,
             "difference_sha256": sha256_of(folder / DIFFERENCE)}
    write_json(out / "rv.json", {**facts, "figures": figures, "first_prompts": prompts[: 3 * COLUMNS]})
    write_text(out / "rv.md", page(facts, figures))


def look_figures(images_BCHW: torch.Tensor) -> dict[str, Figure]:
    """What the other look changes, of all pictures: warmth (red less blue), contrast, and how dark the corners are."""
    grey_BHW = images_BCHW.mean(dim=1)
    corners_B = torch.stack([grey_BHW[:, :6, :6], grey_BHW[:, :6, -6:]]).mean(dim=(0, 2, 3))
    top_B = grey_BHW[:, :6, 20:44].mean(dim=(1, 2))
    return {"look_warmth": mean((images_BCHW[:, 0] - images_BCHW[:, 2]).mean(dim=(1, 2))),
            "look_contrast": mean(grey_BHW.flatten(1).std(dim=1)),
            "look_dark_corners": mean(top_B - corners_B)}


def page(facts: Mapping[str, object], figures: Mapping[str, Mapping[str, Figure]]) -> str:
    """The figures side by side."""
    lines = ["# pocket_rv: the pocket base in another light", "",
             f"`{facts['command']}` on {facts['date']}, {facts['hardware']}, commit `{facts['commit']}`.",
             f"The difference: {facts['difference_bytes']:,} bytes, sha256 `{facts['difference_sha256']}`.", "",
             "`base_*`: how often the attribute judge, which knows the ordinary look only, finds what a prompt names;",
             f"{facts['num_prompts']} prompts, the same noise for both bases. `renders`: true pictures of held-out",
             "people in both looks, so what the judge itself loses by the other look. 90 % intervals. `rv.png`: three",
             "rows of pairs, pocket above, pocket_rv below; the prompts stand in `rv.json`.", "",
             "| figure | pocket | pocket_rv | renders | renders in the other look |", "|---|---|---|---|---|"]
    columns = (*BASES, "renders", "renders_rv")
    for name in figures["pocket"]:
        lines.append(f"| {name} | " + " | ".join(_cell(figures[column].get(name)) for column in columns) + " |")
    return "\n".join(lines) + "\n"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    interval = f" ({figure['low']:.3f} to {figure['high']:.3f})" if "low" in figure else ""
    return f"{figure['value']:.3f}{interval}"


if __name__ == "__main__":
    main()
