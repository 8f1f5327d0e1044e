from __future__ import annotations

from typing import Any

import pytest
import torch

from synfer.networks.vae_gan import VAEGAN, VAEGANSettings


def networks(image_size: int = 16, num_classes: int = 3, **changes: Any) -> VAEGAN:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"widths": (8, 16), "latent_size": 5, "channels": 1}
    return VAEGAN(VAEGANSettings(**{**settings, **changes}), image_size, num_classes)


@pytest.mark.parametrize("image_size", [32, 48, 64, 112])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_at_any_size(image_size: int, channels: int) -> None:
    model = networks(image_size, widths=(8, 8, 16), channels=channels)
    face, label = torch.rand(2, channels, image_size, image_size) * 2 - 1, torch.tensor([0, 2])
    mean, log_variance = model.encoder(face)
    assert mean.shape == log_variance.shape == (2, 5) and mean.dtype == log_variance.dtype == torch.float32
    made = model.decoder(mean, label)
    assert made.shape == face.shape
    logit, maps = model.discriminator(made, label)
    assert logit.shape == (2,) and logit.dtype == torch.float32
    side = image_size // 4
    assert [tuple(m.shape) for m in maps] == [(2, 8, side, side), (2, 16, side // 2, side // 2)]


def test_the_discriminator_may_be_narrower() -> None:
    model = networks(discriminator_widths=(8, 8))
    assert model.discriminator.last.in_channels == 8 and model.encoder.output.in_features == 16 * 4 * 4


@torch.no_grad()
def test_the_label_counts_where_the_networks_are_told_and_nowhere_else() -> None:
    code, face = torch.randn(2, 5), torch.rand(2, 1, 16, 16)
    one, other = torch.tensor([0, 1]), torch.tensor([2, 1])
    told = networks()
    assert told.num_classes == 3
    torch.nn.init.normal_(told.decoder.norm.change.weight)  # equal for all classes at the start
    for network, x in ((told.decoder, code), (told.discriminator, face)):
        first, second = ((y[0] if isinstance(y, tuple) else y) for y in (network(x, one), network(x, other)))
        assert (first[0] - second[0]).abs().max() > 1e-3 and torch.equal(first[1], second[1])
        with pytest.raises(ValueError, match="found no label, expected one of 3 for each face"):
            network(x)
    untold = networks(class_conditional=False)
    assert untold.num_classes == 0 and not [name for name, _ in untold.named_parameters() if "projection" in name]
    assert torch.equal(untold.decoder(code), untold.decoder(code, one))
    assert torch.equal(untold.discriminator(face)[0], untold.discriminator(face, one)[0])


@torch.no_grad()
def test_what_a_face_gets_does_not_depend_on_its_batch() -> None:
    model = networks()
    face, label = torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(model.encoder(face)[0][:1], model.encoder(face[:1])[0])
    torch.testing.assert_close(model.discriminator(face, label)[0][2:], model.discriminator(face[2:], label[2:])[0])


@torch.no_grad()
def test_memory_format_changes_no_number() -> None:
    face = torch.rand(2, 1, 16, 16)
    made = [model.decoder(model.encoder(face)[0], torch.tensor([0, 1])) for model in map(of_format, (True, False))]
    torch.testing.assert_close(made[0], made[1])
    assert of_format(True).encoder.body[2].weight.is_contiguous(memory_format=torch.channels_last)


def of_format(channels_last: bool) -> VAEGAN:
    return networks(channels_last=channels_last)


@torch.no_grad()
def test_a_log_variance_stays_in_its_range() -> None:
    model = networks()
    model.encoder.output.bias.fill_(1000.0)
    assert model.encoder(torch.zeros(1, 1, 16, 16))[1].unique().tolist() == [4.0]


def test_pictures_become_faces_and_come_back() -> None:
    image = torch.rand(2, 3, 16, 16)
    colour, grey = networks(channels=3), networks()
    torch.testing.assert_close(colour.images(colour.faces(image)), image)
    face = grey.faces(image)
    assert face.shape == (2, 1, 16, 16) and face.min() >= -1 and face.max() <= 1
    torch.testing.assert_close(grey.images(face), image.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    assert grey.images(3 * torch.ones(1, 1, 16, 16)).max() == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"widths": (8,)}, r"model.network.widths: found \[8\], expected at least two positive multiples of 8"),
        ({"widths": (8, 12)}, r"model.network.widths: found \[8, 12\], expected at least two"),
        ({"discriminator_widths": (8, 8, 8)}, "model.network.discriminator_widths: .* expected 2 widths, as many as"),
        ({"latent_size": 0}, "model.network.latent_size: found 0, expected a number above 0"),
        ({"channels": 2}, r"model.network.channels: found 2, expected 1 \(grey\) or 3 \(RGB\)"),
        ({"image_size": 18}, "model.image_size: found 18, expected a multiple of 4 with 2 model.network.widths"),
    ],
)
def test_bad_sizes_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        networks(**changes)
