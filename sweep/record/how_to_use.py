"""How a file of each kind is used in A1111 and ComfyUI, in words."""

from __future__ import annotations

from pathlib import Path

from sweep.methods import CHECKPOINT, EMBEDDING
from sweep.trial import Answer


def prompt_tag(answer: Answer) -> str:
    """What a LoRA puts into a prompt, <lora:NAME:0.8>; other files put nothing there."""
    return f"<lora:{Path(answer.file).stem}:{answer.strength:g}>" if answer.kind == "lora" else ""


def prompt_words(words: str, answer: Answer) -> str:
    """What to write: the subject's words and a LoRA's tag. A1111 knows an embedding by its file's name, which stands in
    the trigger's place.

    words: trigger and class noun.
    """
    if answer.kind == EMBEDDING:
        _, _, noun = words.partition(" ")
        return " ".join(filter(None, [Path(answer.file).stem, noun]))
    return " ".join(filter(None, [words, prompt_tag(answer)]))


def how(answer: Answer) -> str:
    """Behind the file's place: at which strength, or where it goes."""
    if answer.kind == "lora":
        return f"at strength {answer.at}"
    guidance = "" if answer.guidance_scale is None else f", at guidance {answer.guidance_scale:g}"
    return ("as the model" if answer.kind == CHECKPOINT else "in the folder `embeddings`") + guidance


def at_strength(answer: Answer) -> str:
    return f" at {answer.at}" if answer.kind == "lora" else ""


def one_file(answer: Answer) -> str:
    """Behind a file's name, without the subject's words."""
    if answer.kind == CHECKPOINT:
        return ", a whole checkpoint to choose as the model"
    if answer.kind == EMBEDDING:
        return f", an embedding: `{Path(answer.file).stem}` stands for the trigger"
    return f" at {answer.at}: `{prompt_tag(answer)}`"


def folders(answer: Answer) -> str:
    """Where A1111 and ComfyUI look for it."""
    if answer.kind == CHECKPOINT:
        return (f"It is a whole model. A1111: put `{answer.file}` into `models/Stable-diffusion`; ComfyUI: into "
                "`models/checkpoints`; then choose it as the model.")
    if answer.kind == EMBEDDING:
        return (f"A1111: put `{answer.file}` into `embeddings`, where its name is the word for the prompt; ComfyUI: "
                "into `models/embeddings`, and write `embedding:` before the name.")
    return f"A1111: put `{answer.file}` into `models/Lora`; ComfyUI: into `models/loras`."
