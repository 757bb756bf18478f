"""Each family loads from a folder and from a checkpoint file, and computes what diffusers' own pipelines compute."""

import shutil

import pytest
import torch

from tests.miniatures import SCALING, VOCABULARY
from tests.unit.model.conftest import FAMILIES

CAPTIONS = ["photo of alexq man, wearing a red shirt", "a man"]


@pytest.fixture(scope="module")
def bases(folders, load):
    return {family: load(path, name={"sd1": "sd15"}.get(family, family)) for family, path in folders.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_what_it_says(bases, family: str) -> None:
    base = bases[family]
    assert base.family == family
    assert base.prediction_type == ("v_prediction" if family == "sd2" else "epsilon")
    assert len(base.text_encoders) == len(base.tokenizers) == (2 if family == "sdxl" else 1)
    assert (base.scaling_factor, base.vae_scale, base.latent_channels) == (SCALING[family], 8, 4)
    assert not any(p.requires_grad for each in (base.unet, base.vae, *base.text_encoders) for p in each.parameters())


def test_a_sharded_unet_is_the_same_unet(bases, folders, load, tmp_path) -> None:
    """Only one of its files holds down_blocks."""
    folder = tmp_path / "sharded"
    shutil.copytree(folders["sd1"], folder)
    shutil.rmtree(folder / "unet")
    bases["sd1"].unet.save_pretrained(folder / "unet", max_shard_size="1MB")
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 1
    loaded, whole = load(folder).unet.state_dict(), bases["sd1"].unet.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_files_weights_are_the_folders_to_the_last_bit(bases, files, load, family: str) -> None:
    told = {"prediction_type": "v_prediction"} if family == "sd2" else {}
    one, other = bases[family], load(files[family], **told)
    assert (other.family, other.prediction_type) == (one.family, one.prediction_type)
    assert other.scaling_factor == one.scaling_factor
    for ours, theirs in zip((other.unet, other.vae, *other.text_encoders), (one.unet, one.vae, *one.text_encoders),
                            strict=True):
        mine, its = ours.state_dict(), theirs.state_dict()
        assert set(mine) == set(its)
        assert all(torch.equal(mine[name], its[name]) for name in its)
    for key in ("cross_attention_dim", "attention_head_dim", "use_linear_projection", "addition_embed_type",
                "block_out_channels", "upcast_attention"):
        assert _plain(other.unet.config[key]) == _plain(one.unet.config[key]), key
    assert torch.equal(other.alphas_cumprod, one.alphas_cumprod)
    with torch.no_grad():
        ours, theirs = other.text_states(CAPTIONS), one.text_states(CAPTIONS)
        # not to the last bit: where a weight lies in memory decides which instructions multiply it
        torch.testing.assert_close(ours.states_BLD, theirs.states_BLD, atol=1e-5, rtol=0)
        noisy, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
        torch.testing.assert_close(other.predict(noisy, timesteps, ours), one.predict(noisy, timesteps, theirs),
                                   atol=1e-5, rtol=0)
        pixels = torch.rand(1, 3, 64, 64)
        torch.testing.assert_close(other.encode_moments(pixels), one.encode_moments(pixels), atol=1e-4, rtol=0)


def _plain(value):
    return list(value) if isinstance(value, tuple | list) else value


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_own_pipeline_computes_the_same(bases, folders, family: str) -> None:
    base, noisy, timesteps = bases[family], torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    pipeline = _pipeline(folders[family], family)
    with torch.no_grad():
        ours = base.text_states(CAPTIONS)
        if family == "sdxl":
            states, _, pooled, _ = pipeline.encode_prompt(CAPTIONS, device="cpu", do_classifier_free_guidance=False)
            torch.testing.assert_close(ours.pooled_BP, pooled, atol=1e-5, rtol=0)
            sizes = [(768, 512, 16, 0, 64, 64), (64, 64, 0, 8, 64, 64)]
            time_ids = torch.cat([pipeline._get_add_time_ids(row[0:2], row[2:4], row[4:6], torch.float32,
                                                             text_encoder_projection_dim=128) for row in sizes])
            added = {"text_embeds": pooled, "time_ids": time_ids}
        else:
            states, _ = pipeline.encode_prompt(CAPTIONS, "cpu", 1, False)
            sizes, added = None, None
        torch.testing.assert_close(ours.states_BLD, states, atol=1e-5, rtol=0)
        theirs = pipeline.unet(noisy, timesteps, encoder_hidden_states=states, added_cond_kwargs=added).sample
        torch.testing.assert_close(base.predict(noisy, timesteps, ours, sizes), theirs, atol=1e-5, rtol=0)
        if family == "sdxl":
            other = base.predict(noisy, timesteps, ours)
            assert float((other - theirs).abs().max()) > 1e-4, "the sizes count"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_is_diffusers_own(bases, folders, family: str) -> None:
    """Same latents, same sampler: v-prediction and sizes reach it."""
    from diffusers import DPMSolverMultistepScheduler

    from sweep.evaluation.generate import Row, generate
    from sweep.evaluation.settings import Sampler
    from sweep.network.targets import find_targets
    from sweep.randomness import generator

    base = bases[family]
    pipeline = _pipeline(folders[family], family)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config, algorithm_type="dpmsolver++", use_karras_sigmas=True)
    assert pipeline.scheduler.config.prediction_type == base.prediction_type
    latents = torch.randn(1, 4, 8, 8, generator=generator(7, 0, "latents"))
    theirs = pipeline("photo of a man", negative_prompt="", num_inference_steps=3, guidance_scale=5.0, latents=latents,
                      height=64, width=64, output_type="pt").images
    sampler = Sampler(name="dpmpp_2m_karras", num_steps=3, guidance_scale=5.0, negative_prompt="")
    ours = generate(base, find_targets(base), [Row(None, 1.0, "photo of a man", 7)], sampler, resolution=64)
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_a_v_prediction_checkpoint_says_so(folders, load, tmp_path) -> None:
    from tests.miniatures import ldm_tensors, write_checkpoint

    told = write_checkpoint(tmp_path / "a.safetensors", folders["sd2"], "sd2",
                            metadata={"modelspec.architecture": "stable-diffusion-v2-768-v"})
    assert load(told).prediction_type == "v_prediction"
    from safetensors.torch import save_file

    marked = tmp_path / "b.safetensors"
    save_file({**ldm_tensors(folders["sdxl"], "sdxl"), "v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, marked)
    base = load(marked)
    assert base.prediction_type == "v_prediction" and float(base.alphas_cumprod[-1]) < 1e-6


def test_a_ckpt_of_plain_tensors_loads_and_another_never_runs(folders, bases, load, tmp_path) -> None:
    from sweep.errors import ModelError
    from tests.miniatures import ldm_tensors

    plain = tmp_path / "model.ckpt"
    torch.save({"state_dict": ldm_tensors(folders["sd1"], "sd1"), "global_step": 5}, plain)
    base = load(plain)
    assert base.family == "sd1"
    assert torch.equal(base.unet.conv_in.weight, bases["sd1"].unet.conv_in.weight)
    hostile, touched = tmp_path / "hostile.ckpt", tmp_path / "touched"

    class Runs:
        def __reduce__(self):
            return (open, (str(touched), "w"))

    torch.save({"state_dict": {"a": Runs()}}, hostile)
    with pytest.raises(ModelError, match="can't be read as plain tensors, and nothing else of a pickle is ever run"):
        load(hostile)
    assert not touched.exists()


def test_another_vae_takes_the_place_of_the_bases_own(folders, files, bases, load, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    from tests.miniatures import ldm_tensors, write_folder

    other = write_folder(tmp_path / "other", "sd1", seed=1)
    alone = {name.removeprefix("first_stage_model."): tensor for name, tensor in ldm_tensors(other, "sd1").items()
             if name.startswith("first_stage_model.")}
    save_file(alone, tmp_path / "vae.safetensors")
    expected = load_file(other / "vae" / "diffusion_pytorch_model.safetensors")["encoder.conv_in.weight"]
    for vae in (tmp_path / "vae.safetensors", other / "vae"):
        for path in (folders["sd1"], files["sd1"]):
            base = load(path, vae=str(vae))
            assert torch.equal(base.vae.encoder.conv_in.weight, expected)
            assert torch.equal(base.unet.conv_in.weight, bases["sd1"].unet.conv_in.weight)


def test_the_padding_of_each_text_encoder(bases, files, load) -> None:
    """OpenCLIP was trained with id 0 after the end, CLIP-L with the end token."""
    from_file = load(files["sdxl"])
    for base in (bases["sdxl"], from_file):
        first, second = base.tokenize(["a man"])
        assert int(first[0, 0, -1]) == base.tokenizer.eos_token_id and int(second[0, 0, -1]) == 0
    assert VOCABULARY.is_dir()


def test_a_bare_vocabulary_is_enough(base, files, load, tmp_path) -> None:
    """What `hf download openai/clip-vit-large-patch14 vocab.json merges.txt` leaves, and what old folders hold."""
    import shutil

    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(VOCABULARY / name, tmp_path / name)
    bare = load(files["sdxl"], tokenizer=str(tmp_path))
    whole = load(files["sdxl"])
    for ours, theirs in zip(bare.tokenize(CAPTIONS), whole.tokenize(CAPTIONS), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(bare.tokenize(CAPTIONS)[0], base.tokenize(CAPTIONS)[0])


def test_another_models_tokenizer_is_named(folders, load, tmp_path) -> None:
    import json
    import shutil

    from sweep.errors import ModelError

    folder = tmp_path / "sd1"
    shutil.copytree(folders["sd1"], folder)
    tree = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    tree["added_tokens"] += [{**tree["added_tokens"][0], "id": 726 + i, "content": f"<new{i}>"} for i in range(3)]
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(ModelError, match="the tokenizer knows 729 words, the text encoder 726"):
        load(folder)


def _pipeline(folder, family: str):
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    parts = {} if family == "sdxl" else {"safety_checker": None, "feature_extractor": None}
    names = _index(family)
    import json

    (folder / "model_index.json").write_text(json.dumps(names))
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _index(family: str) -> dict[str, object]:
    scheduler = {"sd1": "PNDMScheduler", "sd2": "DDIMScheduler", "sdxl": "EulerDiscreteScheduler"}[family]
    names: dict[str, object] = {
        "_class_name": "StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", scheduler]}
    if family == "sdxl":
        names |= {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
                  "tokenizer_2": ["transformers", "CLIPTokenizer"], "force_zeros_for_empty_prompt": False}
    return names
