"""The chosen LoRA, ready to hand on: results/<sweep>/publish with file, card, samples and how to train it again.

Photos and the folders of this machine stay out of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.files import sha256_of, write_text
from sweep.methods import LORA, method_of
from sweep.record.best import best_results
from sweep.record.facts import Record
from sweep.record.how_to_use import folders, prompt_words
from sweep.record.kohya.write import experiment_of, kohya_command, kohya_toml
from sweep.record.sentences import answer_sentence, as_sentence, figure, value_text, verdict_sentence
from sweep.trial import AXES, Answer, TrialResult, trial_folder

PUBLISH = "publish"
LICENCES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("pocket", "pocket_rv"), ("apache-2.0", "The pocket base is under Apache 2.0.")),
    "sd15": ("creativeml-openrail-m", "Stable Diffusion 1.x is under CreativeML OpenRAIL-M: its restrictions of use "
             "(attachment A) hold for this file too and must be passed on with it."),
    "sd2": ("openrail++", "Stable Diffusion 2.x is under CreativeML Open RAIL++-M: its restrictions of use (attachment "
            "A) hold for this file too and must be passed on with it."),
    "sdxl": ("openrail++", "Stable Diffusion XL is under CreativeML Open RAIL++-M: its restrictions of use (attachment "
             "A) hold for this file too and must be passed on with it."),
}
_OTHER = ("other", "The base's author says what may be done with models made from it; look it up before you publish.")
_TAGS = {"lora": ["lora", "template:sd-lora"], "checkpoint": ["dreambooth"], "embedding": ["textual_inversion"]}
_PLACES = ("dir", "reg_dir", "holdout_dir", "mask_dir", "path", "vae", "tokenizer")


def chosen(record: Record) -> TrialResult | None:
    """The trial to hand on: the best; of a tie the one with the greatest cautious usefulness."""
    best, _ = best_results(record.results)
    return best if best is not None and file_of(record, best).exists() else None


def file_of(record: Record, result: TrialResult) -> Path:
    assert result.answer is not None
    return trial_folder(record.results_dir, result.trial.train_id).checkpoints / result.answer.file


def write_publish(record: Record) -> Path | None:
    """Write the folder anew and return it; None (and no folder) if there is no file to name."""
    folder = record.dir / PUBLISH
    result = chosen(record)
    if result is None or result.answer is None:
        return None
    answer, source = result.answer, file_of(record, result)
    others = {folder / r.answer.file for r in record.results if r.answer is not None and r.answer.file != answer.file}
    for stale in (path for other in others for path in (other, other.with_suffix(".toml"))):
        stale.unlink(missing_ok=True)  # what an earlier answer left; a user's own files stay
    folder.mkdir(parents=True, exist_ok=True)
    copy_file(source, folder / answer.file)
    sheet = sheet_of(record, result)
    if sheet is not None:
        shutil.copyfile(sheet, folder / "samples.png")
    config, name = without_places(result.trial.config), source.stem
    if answer.kind == "lora":
        write_text(folder / f"{name}.toml", kohya_toml(config, name))
    write_text(folder / "experiment.yaml", experiment_of(config, f"{record.entry.name}, trial {result.trial.number}."))
    write_text(folder / "README.md", card_text(record, result, has_samples=sheet is not None))
    return folder


def card_text(record: Record, result: TrialResult, *, has_samples: bool) -> str:
    """A model card in the hub's form: front matter, then how to use it, how good it is, how it was made."""
    import yaml

    assert result.answer is not None
    answer, entry, config = result.answer, record.entry, without_places(result.trial.config)
    words, name = entry.subject_words, Path(answer.file).stem
    licence, terms = LICENCES.get(entry.base_model, _OTHER)
    base = _base_name(config)
    front = {"base_model": base, "license": licence, "library_name": "diffusers", "pipeline_tag": "text-to-image",
             "tags": [*_TAGS[answer.kind], "stable-diffusion", "text-to-image", "lora-sweep"],
             **({"instance_prompt": words} if words else {})}
    figures = "\n".join(f"| {axis} | {figure(answer.score.axes.get(axis))} |" for axis in AXES)
    notes = " ".join(map(as_sentence, answer.score.notes))
    sampler = ", ".join(f"{key} {value_text(value)}" for key, value in record.facts.sampler.items() if value != "")
    parts = [
        "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---",
        f"# {name}",
        *(["![Samples with their prompts and figures](samples.png)"] if has_samples else []),
        f"## Use\nTrigger words: `{words}`. {_strength(answer)}Base: {base}.\n\n"
        f"```\n{prompt_words(words, answer)}\n```\n\n"
        + folders(answer) + " " + as_sentence(answer.reason),
        f"## How good it is\n{verdict_sentence(answer.score.verdict)} {notes}".rstrip()
        + f"\n\n| | figure (90 % interval) |\n| --- | --- |\n{figures}\n\n"
        f"Measured on {answer.score.num_images} images ({answer.score.stage}). 0 is the base model without the LoRA, 1 "
        f"is a real photo (likeness) or the base model (adherence, diversity); of memorisation 0 is best. "
        f"Drawn with {sampler}.",
        f"## How it was made\n{_settings(config, result)}\n\n{_one_of(record)}",
        f"With this program: put `experiment.yaml` into `conf/experiment/` and run `python train.py "
        f"experiment=experiment dataset.dir=YOUR_PHOTOS`.{_with_sd_scripts(config, answer)}",
        f"## Licence\n{terms} A picture of a real person needs that person's consent.",
    ]
    return "\n\n".join(parts) + "\n"


def _strength(answer: Answer) -> str:
    return f"Recommended strength: {answer.at}. " if answer.kind == "lora" else ""


def _with_sd_scripts(config: Mapping[str, Any], answer: Answer) -> str:
    if answer.kind != "lora":
        return ""
    name = Path(answer.file).stem
    return f"\nWith sd-scripts: `{kohya_command(config, name + '.toml')}` (set `train_data_dir` first)."


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose folders and files are named without the way to them, which is nobody's business."""
    def shortened(key: str, value: Any) -> Any:
        is_place = key in _PLACES and isinstance(value, str) and (Path(value).is_absolute() or Path(value).exists())
        return Path(value).name if is_place else value

    return {group: {key: shortened(key, value) for key, value in tree.items()} if isinstance(tree, Mapping) else tree
            for group, tree in config.items()}


def sheet_of(record: Record, result: TrialResult) -> Path | None:
    """The contact sheet that the answer's figures were measured on."""
    assert result.answer is not None
    path = trial_folder(record.results_dir, result.trial.train_id).images / f"{result.answer.score.score_id}.png"
    return path if path.exists() else None


def copy_file(source: Path, target: Path) -> None:
    """Copy by way of a temporary name, unless the same bytes are there."""
    if target.exists() and target.stat().st_size == source.stat().st_size and sha256_of(target) == sha256_of(source):
        return
    temporary = target.with_name(f"{target.name}.tmp")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def _settings(config: Mapping[str, Any], result: TrialResult) -> str:
    method = method_of(config)
    made = {"network": config.get("network", {}).get("name")} if method["name"] == LORA else {
        "method": method["name"], **{key: value for key, value in method.items() if key != "name"}}
    named = {**made, "optimizer": config["optimizer"]["name"],
             "scheduler": config["scheduler"]["name"]} if "network" in config else {}
    keys = ("network_dim", "network_alpha", "conv_dim", "conv_alpha", "unet_lr", "text_encoder_lr", "train_batch_size",
            "noise_offset", "min_snr_gamma", "clip_skip", "seed")
    rows = {**named, **{key: config[key] for key in keys if config.get(key) is not None
                        and not (method["name"] != LORA and key.startswith("network_"))}}
    answer: Answer | None = result.answer
    steps = f"{answer.step} of {result.step}" if answer else str(result.step)
    return ", ".join([*(f"{key} = {value_text(value)}" for key, value in rows.items()), f"steps = {steps}"])


def _one_of(record: Record) -> str:
    answer = answer_sentence(record.entry, record.results, record.results_dir.name)
    return (f"{record.entry.num_photos} photos. One of {len(record.results)} trials of the sweep "
            f"{record.entry.name}. {answer}")


def _base_name(config: Mapping[str, Any]) -> str:
    base = config.get("base_model", {})
    return str(base.get("path") or base.get("name") or "unknown") if isinstance(base, Mapping) else "unknown"
