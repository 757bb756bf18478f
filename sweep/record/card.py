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
from sweep.record.best import best_results, eligible
from sweep.record.facts import Record
from sweep.record.figures import FIGURES, figure_of
from sweep.record.how_to_use import folders, prompt_words
from sweep.record.kohya.names import EMBEDDED
from sweep.record.kohya.write import experiment_of, kohya_command, kohya_toml
from sweep.record.sentences import as_sentence, each_of, figure, value_text, verdict_sentence
from sweep.schema import flat
from sweep.trial import Answer, TrialResult, trial_folder

PUBLISH = "publish"
LICENCES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(EMBEDDED, ("apache-2.0", "The pocket base is under Apache 2.0.")),
    "sd15": ("creativeml-openrail-m", "Stable Diffusion 1.x is under CreativeML OpenRAIL-M: its restrictions of use "
             "(attachment A) hold for this file too and must be passed on with it."),
    "sd2": ("openrail++", "Stable Diffusion 2.x is under CreativeML Open RAIL++-M: its restrictions of use (attachment "
            "A) hold for this file too and must be passed on with it."),
    "sdxl": ("openrail++", "Stable Diffusion XL is under CreativeML Open RAIL++-M: its restrictions of use (attachment "
             "A) hold for this file too and must be passed on with it."),
}
_OTHER = ("other", "The base's author says what may be done with models made from it; look it up before you publish.")
_TAGS = {"lora": ["lora", "template:sd-lora"], "checkpoint": ["dreambooth"], "embedding": ["textual_inversion"]}
_HUB_IDS = ("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5",
            "stabilityai/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1-base",
            "stabilityai/stable-diffusion-xl-base-1.0")
_KOHYAS = {"dataset.dir": "train_data_dir", "dataset.reg_dir": "reg_data_dir", "base_model.vae": "vae",
           "base_model.path": "pretrained_model_name_or_path"}
_PLACES = ("dir", "reg_dir", "holdout_dir", "mask_dir", "path", "vae", "tokenizer")


def chosen(record: Record) -> TrialResult | None:
    """The trial to hand on: the best; of a tie the one with the greatest cautious usefulness."""
    best, _ = best_results(record.results)
    return best if best is not None and file_of(record, best).exists() else None


def file_of(record: Record, result: TrialResult) -> Path:
    assert result.answer is not None
    return trial_folder(record.results_dir, result.trial.train_id).checkpoints / result.answer.file


def base_of(result: TrialResult) -> str:
    """The option that a trial's base model is, which a sweep may vary: its licence is what the file's users must
    know."""
    return str(result.trial.config["base_model"]["name"])


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
    if answer.kind == "lora" and base_of(result) not in EMBEDDED:
        write_text(folder / f"{name}.toml", kohya_toml(config, name))
    else:
        (folder / f"{name}.toml").unlink(missing_ok=True)
    write_text(folder / "experiment.yaml", experiment_of(config, f"{record.entry.name}, trial {result.trial.number}."))
    write_text(folder / "README.md", card_text(record, result, has_samples=sheet is not None))
    return folder


def card_text(record: Record, result: TrialResult, *, has_samples: bool) -> str:
    """A model card in the hub's form: front matter, then how to use it, how good it is, how it was made."""
    import yaml

    assert result.answer is not None
    answer, entry, config = result.answer, record.entry, without_places(result.trial.config)
    words, name = entry.subject_words, Path(answer.file).stem
    licence, terms = LICENCES.get(base_of(result), _OTHER)
    base, hub_id = _base_name(config), _hub_id(result.trial.config)
    front = {**({"base_model": hub_id} if hub_id else {}), "license": licence,
             "library_name": "diffusers", "pipeline_tag": "text-to-image",
             "tags": [*_TAGS[answer.kind], "stable-diffusion", "text-to-image", "lora-sweep"],
             **({"instance_prompt": words} if words else {})}
    figures = "\n".join(f"| {name} | {figure(figure_of(answer.score, name))} |" for name in FIGURES)
    notes = " ".join(map(as_sentence, answer.score.notes))
    sampler = ", ".join(value_text(value) if key == "name" else f"{key} {value_text(value)}"
                        for key, value in record.facts.sampler.items() if value != "")
    parts = [
        "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---",
        f"# {name}",
        *(["![Samples with their prompts and figures](samples.png)"] if has_samples else []),
        f"## Use\nTrigger words: `{words}`. {_strength(answer)}Base: {hub_id or base}.\n\n"
        f"```\n{prompt_words(words, answer)}\n```\n\n"
        f"{_where_to_put(base_of(result), answer)} {as_sentence(answer.reason)}",
        f"## How good it is\n{verdict_sentence(answer.score.verdict)} {notes}".rstrip()
        + f"\n\n| | figure (90 % interval) |\n| --- | --- |\n{figures}\n\n"
        f"Measured on {answer.score.num_images} images ({answer.score.stage}). 0 is the base model without the LoRA, 1 "
        f"is a real photo (likeness) or the base model (adherence, diversity); of memorisation and bleed (the class "
        f"without the trigger) 0 is best. "
        f"Drawn with {sampler}.",
        f"## How it was made\n{_settings(config, result)}\n\n{how_picked(record)}",
        _how_to_retrain(result.trial.config, answer),
        f"## Licence\n{terms} A picture of a real person needs that person's consent.",
    ]
    return "\n\n".join(parts) + "\n"


def _strength(answer: Answer) -> str:
    return f"Recommended strength: {answer.at}. " if answer.kind == "lora" else ""


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


def how_picked(record: Record) -> str:
    """How it was picked, without the places of this machine."""
    _, ties = best_results(record.results)
    num_rivals = len(eligible(record.results)) - 1
    best = chosen(record)
    photos = record.facts.photos.get(record.facts.photos_of.get(best.trial.train_id, ""), ()) if best else ()
    start = (f"{len(photos) or record.entry.num_photos} photos. One of {len(record.results)} trials of the sweep "
             f"{record.entry.name}")
    if ties:
        return (f"{start}; the most promising of {1 + len(ties)} whose files can't be told apart on "
                f"the same prompts, so none of them is the winner.")
    if num_rivals < 1:
        return f"{start}; nothing else was scored to compare it with."
    return (f"{start}; it beats the file of {each_of(num_rivals)} on the same prompts by more than chance. Picked as "
            f"the best of {num_rivals + 1}, its own figure leans high.")


def _where_to_put(base_model: str, answer: Answer) -> str:
    if base_model in EMBEDDED:
        return (f"The pocket base is this program's own, so neither A1111 nor ComfyUI can use the file: `python "
                f"evaluate.py lora={answer.file} base_model={base_model}` draws and scores it.")
    return folders(answer)


def _how_to_retrain(config: Mapping[str, Any], answer: Answer) -> str:
    """The two commands, with what each must be told that is not published: where photos and base lie."""
    cut = _cut(config)
    ours = " ".join(["python train.py experiment=experiment", *(f"{key}=YOURS" for key in cut)])
    text = f"With this program: put `experiment.yaml` into `conf/experiment/` and run `{ours}`."
    if answer.kind != "lora":
        return text
    if config["base_model"]["name"] in EMBEDDED:
        return f"{text} sd-scripts can't: it has no pocket base."
    missing = [_KOHYAS[key] for key in cut if key in _KOHYAS]
    first = f" (set `{'` and `'.join(missing)}` in it first)" if missing else ""
    return f"{text}\nWith sd-scripts: `{kohya_command(config, Path(answer.file).stem + '.toml')}`{first}."


def _cut(config: Mapping[str, Any]) -> list[str]:
    """The keys whose way `without_places` leaves out."""
    short = flat(without_places(config))
    return [key for key, value in flat(config).items() if short[key] != value]


def _hub_id(config: Mapping[str, Any]) -> str | None:
    """Of the base, where its path tells: an id itself, the hub's cache, or a folder of a well-known name."""
    base = config.get("base_model", {})
    path = str(base.get("path") or "") if isinstance(base, Mapping) else ""
    for part in Path(path).parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/", 1)
    if path.count("/") == 1 and not Path(path).is_absolute() and not Path(path).exists():
        return path
    return next((hub_id for hub_id in _HUB_IDS if path and Path(path).name == hub_id.split("/")[1]), None)


def _base_name(config: Mapping[str, Any]) -> str:
    base = config.get("base_model", {})
    return str(base.get("path") or base.get("name") or "unknown") if isinstance(base, Mapping) else "unknown"
