"""A base's tensors as LDM's layout names them: an independent table (tests/miniatures.py) has the same."""

import pytest
import torch

from sweep.model.ldm_layout import ldm_tensors
from tests.miniatures import ldm_tensors as expected_tensors
from tests.unit.model.conftest import FAMILIES


def written(base) -> dict[str, torch.Tensor]:
    return ldm_tensors(base.unet.state_dict(), base.vae.state_dict(),
                       [each.state_dict() for each in base.text_encoders], base.family,
                       base.unet.config.layers_per_block)


@pytest.mark.parametrize("family", FAMILIES)
def test_names_and_tensors_are_those_of_the_layout(folders, load, family: str) -> None:
    found = written(load(folders[family], **({"prediction_type": "v_prediction"} if family == "sd2" else {})))
    expected = {name: tensor for name, tensor in expected_tensors(folders[family], family).items()
                # what such files hold besides, which the base does not have
                if not name.endswith(("position_ids", "alphas_cumprod", "model_ema.decay", "logit_scale",
                                      "cond_stage_model.transformer.text_projection.weight",
                                      "embedders.0.transformer.text_projection.weight"))
                and not (family == "sd2" and name.endswith("text_projection"))}
    assert set(found) == set(expected)
    unused = "cond_stage_model.model.transformer.resblocks.4."  # 2.x's last layer, which stands for nothing
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items() if not name.startswith(unused))
