"""Settings of trained modules by the names that they had when a file was written."""

from __future__ import annotations

from synfer.foundation.renamed_settings import present_settings, with_added


def test_a_generator_s_settings_stand_in_groups() -> None:
    stored = {"image_size": 16, "codec": "space_to_depth", "unet": None, "drop_au": 0.5, "warmup_share": 0.25}
    assert present_settings("diffusion", {**stored, "bf16_sampling": False, "judge": None}) == {
        "image_size": 16,
        "network": {"codec": "space_to_depth", "unet": None},
        "drop": {"au": 0.5},
        "execution": {"bf16_sampling": False},
        "warmup_fraction": 0.25,
    }


def test_what_stands_in_a_group_already_stays() -> None:
    stored = {"network": {"codec": "autoencoder_kl"}, "drop": {"text": 0.5}}
    assert present_settings("diffusion", stored) == stored
    both = present_settings("diffusion", {**stored, "codec": "space_to_depth", "unet": {}})
    assert both["network"] == {"codec": "autoencoder_kl", "unet": {}} and "codec" not in both
    assert stored["network"] == {"codec": "autoencoder_kl"}


def test_another_module_s_settings_stay() -> None:
    assert present_settings("classifier", {"channels_last": True}) == {"channels_last": True}


def test_settings_that_came_later_mean_what_was_so_without_them() -> None:
    now = {"num_steps": 3, "expression_strength": 1.0}
    assert with_added("sampling", {"num_steps": 3}, now) == now
    assert with_added("sampling", {"num_steps": 3, "expression_strength": 0.5}, now)["expression_strength"] == 0.5
    assert with_added("sampling", {"strength": 1.0}, {"strength": 1.0}) == {"strength": 1.0}  # of a VAE-GAN
    assert with_added("seed", 1, 1) == 1 and with_added("sampling", None, now) is None
