from __future__ import annotations

import json
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler

from synfer.networks.stable_diffusion.noise_schedule import noise_schedule
from tests.fixtures.stable_diffusion_folder import BETAS

CLASSES = [
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
]


def stored(kind: Any, **settings: Any) -> dict[str, Any]:
    """Returns what a scheduler writes into its folder."""
    return dict(json.loads(kind(**settings).to_json_string()))


def levels(config: dict[str, Any]) -> torch.Tensor:
    return DDIMScheduler.from_config(config).alphas_cumprod


# diffusers' KDPM2 calls numpy in a form that is on its way out.
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("settings", [BETAS, {}], ids=["Stable Diffusion", "defaults"])
def test_noise_levels_are_those_of_the_stored_scheduler(name: str, settings: dict[str, Any]) -> None:
    kind = getattr(diffusers, name)
    its = kind(**settings)
    config = noise_schedule("base", stored(kind, **settings))
    torch.testing.assert_close(levels(config), its.alphas_cumprod, rtol=0, atol=1e-6)
    assert config["prediction_type"] == its.config.get("prediction_type", "epsilon")
    assert config["num_train_timesteps"] == its.config.num_train_timesteps
    for key in ("timestep_spacing", "steps_offset", "set_alpha_to_one"):
        if key in its.config:
            assert config[key] == its.config[key]


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_a_schedule_to_pure_noise_stays_one(name: str) -> None:
    settings = {**BETAS, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    config = noise_schedule("base", stored(getattr(diffusers, name), **settings))
    assert float(levels(config)[-1]) == 0
    assert config["prediction_type"] == "v_prediction" and config["rescale_betas_zero_snr"]


def test_latents_are_never_clipped() -> None:
    for kind in (diffusers.DDPMScheduler, diffusers.DDIMScheduler):
        assert kind().config.clip_sample  # diffusers' own default
        assert noise_schedule("base", stored(kind))["clip_sample"] is False
    without = {key: value for key, value in stored(diffusers.PNDMScheduler).items() if key != "clip_sample"}
    assert noise_schedule("base", without)["clip_sample"] is False


def test_betas_of_a_form_that_ddim_has_not_are_handed_over() -> None:
    its = diffusers.DDPMScheduler(beta_schedule="sigmoid")
    with pytest.raises(NotImplementedError):
        DDIMScheduler(beta_schedule="sigmoid")
    config = noise_schedule("base", stored(diffusers.DDPMScheduler, beta_schedule="sigmoid"))
    torch.testing.assert_close(levels(config), its.alphas_cumprod, rtol=0, atol=1e-6)


def test_a_class_that_is_not_here_is_known_by_its_keys() -> None:
    config = {"_class_name": "SchedulerOfTomorrow", **BETAS, "num_train_timesteps": 500, "use_everything": True}
    found = noise_schedule("base", config)
    torch.testing.assert_close(levels(found), DDIMScheduler(**BETAS, num_train_timesteps=500).alphas_cumprod)
    assert "use_everything" not in found
    with pytest.raises(ValueError, match=r"model.base 'base': found the scheduler SchedulerOfTomorrow, which cannot"):
        noise_schedule("base", {"_class_name": "SchedulerOfTomorrow", "sigma_max": 80.0})


@pytest.mark.parametrize(
    "name",
    [
        "FlowMatchEulerDiscreteScheduler",
        "EDMEulerScheduler",
        "EDMDPMSolverMultistepScheduler",
        "IPNDMScheduler",
        "ScoreSdeVeScheduler",
        "CMStochasticIterativeScheduler",
    ],
)
def test_schedulers_without_noise_levels_of_betas_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^model.base 'base': found the scheduler {name}.*, expected one whose"):
        noise_schedule("base", stored(getattr(diffusers, name)))


def test_flow_matching_within_another_class_is_refused() -> None:
    for settings in ({"use_flow_sigmas": True}, {"prediction_type": "flow_prediction"}):
        config = {**stored(diffusers.UniPCMultistepScheduler), **settings}
        with pytest.raises(ValueError, match="UniPCMultistepScheduler of flow matching"):
            noise_schedule("base", config)
