"""The benchmark's peer: one LoRA run as a user would write it who follows diffusers' documentation of DreamBooth with
LoRA (examples/dreambooth/train_dreambooth_lora.py): diffusers and PEFT, one trial, nothing of this project.

It is given what makes it fast without making it long: the latents are encoded once instead of at every step, AdamW is
PyTorch's fused one, no validation images, one file at the end. The layers are those of our default LoRA, so that both
train the same thing.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from torch.nn.functional import mse_loss
from torchvision.transforms.functional import to_tensor
from transformers import CLIPTextModel, CLIPTokenizer

UNET_LAYERS = ["to_k", "to_q", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train one LoRA with diffusers and PEFT.")
    parser.add_argument("--pretrained_model_name_or_path", required=True)
    parser.add_argument("--instance_data_dir", type=Path, required=True, help="photos with captions in .txt files")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--lora_alpha", type=float, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--text_encoder_lr", type=float, default=5e-5)
    parser.add_argument("--max_train_steps", type=int, default=300)
    parser.add_argument("--max_grad_norm", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    base = args.pretrained_model_name_or_path
    tokenizer = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(base, subfolder="text_encoder")
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae")
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
    noise_scheduler = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
    for model in (text_encoder, vae, unet):
        model.requires_grad_(False).to(torch.float32)

    unet.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.lora_alpha, init_lora_weights=True,
                                target_modules=UNET_LAYERS))
    text_encoder.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.lora_alpha, init_lora_weights=True,
                                        target_modules=TEXT_LAYERS))
    unet_params = [param for param in unet.parameters() if param.requires_grad]
    text_params = [param for param in text_encoder.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW([{"params": unet_params}, {"params": text_params, "lr": args.text_encoder_lr}],
                                  lr=args.learning_rate, weight_decay=1e-2, fused=True)

    distributions, token_ids = [], []
    for path in sorted(args.instance_data_dir.rglob("*.png")):
        image = Image.open(path).convert("RGB").resize((args.resolution, args.resolution), Image.Resampling.LANCZOS)
        with torch.no_grad():
            distributions.append(vae.encode(to_tensor(image)[None] * 2 - 1).latent_dist)
        caption = path.with_suffix(".txt").read_text().strip()
        token_ids.append(tokenizer(caption, padding="max_length", max_length=tokenizer.model_max_length,
                                   truncation=True, return_tensors="pt").input_ids)

    unet.train()
    text_encoder.train()
    order: list[int] = []
    for step in range(args.max_train_steps):
        order = order or random.sample(range(len(token_ids)), len(token_ids))
        i = order.pop()
        latents = distributions[i].sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, noise_scheduler.config.num_train_timesteps, (1,))
        noisy = noise_scheduler.add_noise(latents, noise, timesteps)
        predicted = unet(noisy, timesteps, text_encoder(token_ids[i])[0], return_dict=False)[0]
        is_v = noise_scheduler.config.prediction_type == "v_prediction"
        target = noise_scheduler.get_velocity(latents, noise, timesteps) if is_v else noise
        loss = mse_loss(predicted, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet_params + text_params, args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)

    StableDiffusionPipeline.save_lora_weights(
        args.output_dir, unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(unet)),
        text_encoder_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(text_encoder)))


if __name__ == "__main__":
    main()
