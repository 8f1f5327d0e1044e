from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from synfer.networks.diffusion import load_diffusion_model
from synfer.networks.latent_codec import load_codec
from synfer.networks.stable_diffusion.base_folder import find_base
from tests.fixtures import stable_diffusion_folder as sd
from tests.fixtures.fake_hub import fake_hub
from tests.fixtures.tiny_generator import tiny_generator

NAME = "someone/faces-v1"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Returns an empty cache of the Hub, on a machine without network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def with_copies(stable_diffusion: Path, folder: Path) -> Path:
    """Returns a folder as models of the Hub are: all weights in four copies, and much beside them."""
    sd.copied(stable_diffusion, folder)
    half = sd.copied(stable_diffusion, folder.parent / "half", sd.weights_in(torch.float16, variant="fp16"))
    for part in sd.KINDS:
        (weights,) = (folder / part).glob("*.safetensors")
        (copy,) = (half / part).glob("*.safetensors")
        shutil.copy(copy, folder / part / copy.name)
        for suffix in (".bin", ".fp16.bin", ".msgpack"):
            (folder / part / f"{weights.stem}{suffix}").write_bytes(b"pickled")
    for name in ("v1-5-pruned.ckpt", "v1-5-pruned.safetensors", "safety_checker/model.safetensors", "README.md"):
        sd.with_file(name)(folder)
    return folder


def test_of_a_model_of_the_hub_one_copy_of_the_weights_is_fetched(stable_diffusion: Path, tmp_path: Path) -> None:
    folder = with_copies(stable_diffusion, tmp_path / "served")
    with fake_hub(folder, NAME, tmp_path / "hub") as fetched:
        model = load_diffusion_model(NAME, {})
        first = set(fetched)
        load_diffusion_model(NAME, {})
    assert len(fetched) == len(first)  # nothing twice
    assert {name for name in first if name.endswith((".safetensors", ".bin", ".ckpt"))} == {
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }
    assert not [name for name in first if name.startswith("safety_checker")]
    plain = load_diffusion_model(str(stable_diffusion), {})
    assert all(torch.equal(tensor, plain.unet.state_dict()[name]) for name, tensor in model.unet.state_dict().items())


def test_what_was_fetched_once_is_read_without_network(
    stable_diffusion: Path, tmp_path: Path, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_copies(stable_diffusion, tmp_path / "served")
    with fake_hub(folder, NAME, offline):
        load_diffusion_model(NAME, {})
    assert load_diffusion_model(NAME, {}).text_encoder is not None
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its attempts
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # and a Hub that does not answer
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert load_diffusion_model(NAME, {}).text_encoder is not None
    with pytest.raises(
        FileNotFoundError, match=r"model.base 'other/faces': found neither .* \(the Hub does not answer"
    ):
        load_diffusion_model("other/faces", {})


def test_a_variant_is_fetched_where_there_is_nothing_else(stable_diffusion: Path, tmp_path: Path) -> None:
    folder = sd.copied(stable_diffusion, tmp_path / "served", sd.weights_in(torch.float16, variant="fp16"))
    with fake_hub(folder, NAME, tmp_path / "hub") as fetched:
        load_diffusion_model(NAME, {})
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in fetched


def test_the_codec_alone_fetches_the_vae_alone(stable_diffusion: Path, tmp_path: Path) -> None:
    with fake_hub(stable_diffusion, NAME, tmp_path / "hub") as fetched:
        path = find_base(NAME, ["vae"]).path
    assert {name.partition("/")[0] for name in fetched} == {"vae", "model_index.json"}
    assert (path / "vae" / "config.json").is_file() and not (path / "unet").exists()


def test_a_generator_on_a_model_of_the_hub_gives_its_codec(
    stable_diffusion: Path, tmp_path: Path, offline: Path
) -> None:
    sd.in_hub_cache(stable_diffusion, offline, NAME)
    generator = tiny_generator(base=NAME, trained="adapter")
    generator.save_trained(tmp_path / "trained")
    assert load_codec(tmp_path / "trained").fingerprint() == generator.model.codec.fingerprint()


def test_a_misspelt_name_is_told_from_a_network_that_is_not_there(
    stable_diffusion: Path, tmp_path: Path, offline: Path
) -> None:
    with fake_hub(stable_diffusion, NAME, tmp_path / "other"), pytest.raises(FileNotFoundError) as misspelt:
        load_diffusion_model("someone/facse-v1", {})
    assert "found neither a folder nor a model of the Hub of this name, expected" in str(misspelt.value)
    with pytest.raises(FileNotFoundError) as absent:
        load_diffusion_model(NAME, {})
    assert f"found neither a folder nor a copy in {offline} (HF_HUB_OFFLINE is set), expected" in str(absent.value)
    with pytest.raises(FileNotFoundError, match=r"model.base 'no/such/folder': found no such folder, expected a diff"):
        load_diffusion_model("no/such/folder", {})
    assert all("\n" not in str(error.value) for error in (misspelt, absent))


def test_a_copy_of_which_a_part_is_missing_is_told(stable_diffusion: Path, tmp_path: Path, offline: Path) -> None:
    part = sd.copied(stable_diffusion, tmp_path / "part", sd.without("unet/diffusion_pytorch_model.safetensors"))
    sd.in_hub_cache(part, offline, NAME)
    with pytest.raises(FileNotFoundError, match=rf"model.base '{NAME}': found no weights in unet, expected"):
        load_diffusion_model(NAME, {})
