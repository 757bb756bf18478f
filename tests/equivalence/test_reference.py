"""Our step against a plain training loop written with diffusers and PEFT, as their documentation shows it."""

import copy

import pytest
import torch

from sweep.training.loop import train
from sweep.training.pack import Pack
from tests.equivalence.trials import member, run

UNET_TARGETS = r".*attentions.*(to_q|to_k|to_v|to_out\.0|ff\.net\.0\.proj|ff\.net\.2|proj_in|proj_out)"
TEXT_TARGETS = r".*(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


@pytest.fixture
def reference(base, targets):
    """A copy of the base's UNet and text encoder with PEFT's LoRA in it, holding our initial weights."""
    from peft import LoraConfig, inject_adapter_in_model

    unet, text_encoder = copy.deepcopy(base.unet), copy.deepcopy(base.text_encoder)
    for model, pattern in ((unet, UNET_TARGETS), (text_encoder, TEXT_TARGETS)):
        inject_adapter_in_model(LoraConfig(r=8, lora_alpha=4, target_modules=pattern), model)
    pack = Pack(base, targets, [member("a", alpha=4)])
    ours = pack.weights_of(pack.members[0])
    parameters = {}
    for prefix, model in (("lora_unet_", unet), ("lora_te_text_model_", text_encoder)):
        for name, module in model.named_modules():
            if not hasattr(module, "lora_A"):
                continue
            key = prefix + name.removeprefix("text_model.").replace(".", "_")
            down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
            with torch.no_grad():
                down.copy_(ours[key]["lora_down.weight"].reshape(down.shape))
                up.copy_(ours[key]["lora_up.weight"].reshape(up.shape))
            parameters[key] = (down, up)
    assert set(parameters) == set(ours), "both train the same layers"
    return unet, text_encoder, parameters


def reference_loss(base, unet, text_encoder, trial) -> torch.Tensor:
    """DDPM loss as in diffusers' examples, on the same draws as ours (the draws are data, not under test)."""
    from diffusers import DDPMScheduler

    from sweep.training.objective import noised_batch

    [batch] = trial.data.batches_at(trial.step)
    moments = batch.moments_BMHW
    draws = noised_batch(batch, base.alphas_cumprod, base.scaling_factor, "epsilon", trial.config)
    noise, timesteps = draws.target_BCHW, draws.timesteps_B
    # recover the clean latents independently of add_noise: posterior sample as diffusers' DiagonalGaussian defines it
    from sweep.randomness import generator

    epsilon = torch.randn(moments[:, :4].shape, generator=generator(trial.config.seed, trial.step, "posterior"))
    latents = (moments[:, :4] + moments[:, 4:] * epsilon) * base.scaling_factor
    noisy = DDPMScheduler.from_config(base.scheduler_config).add_noise(latents, noise, timesteps)
    ids = base.tokenizer(batch.captions[0], padding="max_length", truncation=True, max_length=77,
                         return_tensors="pt").input_ids
    predicted = unet(noisy, timesteps, encoder_hidden_states=text_encoder(ids)[0]).sample
    return torch.nn.functional.mse_loss(predicted, noise)


def adamw(parameters) -> torch.optim.AdamW:
    """With our rates of the two parts."""
    groups = [{"params": [p for key, pair in parameters.items() if key.startswith(prefix) for p in pair], "lr": lr}
              for prefix, lr in (("lora_unet", 1e-4), ("lora_te", 5e-5))]
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)


def test_gradients_of_the_first_two_steps(base, targets, reference) -> None:
    """Up starts at 0, so that only the second step has gradients of the down matrices."""
    unet, text_encoder, parameters = reference
    trial, optimizer = member("a", alpha=4), adamw(parameters)
    pack = Pack(base, targets, [member("a", alpha=4)])
    steps = train(pack)
    for trial.step in range(2):
        optimizer.zero_grad()
        loss = reference_loss(base, unet, text_encoder, trial)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for pair in parameters.values() for p in pair], 1.0)
        [row] = next(steps)
        assert row.loss == pytest.approx(float(loss.detach()), rel=1e-5)
        assert row.grad_norm == pytest.approx(float(norm), rel=1e-4)
        group, _ = pack.bank.group_of(0)
        for is_up, name in enumerate(("lora_down.weight", "lora_up.weight")):
            pairs = [(leaves[name].grad[0].flatten(), parameters[key][is_up].grad.flatten())
                     for key, leaves in group.leaves.items()]
            if trial.step == 0 and not is_up:
                assert all(ours.norm() == theirs.norm() == 0 for ours, theirs in pairs)
                continue
            worst = max(float((ours - theirs).norm() / theirs.norm()) for ours, theirs in pairs)
            assert 0 < worst < 1e-4, f"worst layer {worst:.1e}"
            all_ours, all_theirs = (torch.cat(side) for side in zip(*pairs, strict=True))
            assert (all_ours - all_theirs).norm() / all_theirs.norm() < 1e-5
        optimizer.step()


def test_losses_over_twenty_steps(base, targets, reference) -> None:
    unet, text_encoder, parameters = reference
    trial = member("a", alpha=4)
    optimizer = adamw(parameters)
    theirs = []
    for trial.step in range(20):
        loss = reference_loss(base, unet, text_encoder, trial)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for pair in parameters.values() for p in pair], 1.0)
        optimizer.step()
        theirs.append(float(loss))
    ours = run(Pack(base, targets, [member("a", alpha=4)]))["a"]
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert len(set(ours)) == 20
