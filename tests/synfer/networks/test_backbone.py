from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from synfer.networks.backbone import build_backbone, normalisation

TINY = {"channels": [8, 8, 16, 16]}


def first_stage_size(network: nn.Module, size: int = 48) -> int:
    sizes: list[int] = []
    handle = network.layer1.register_forward_hook(lambda module, inputs, output: sizes.append(inputs[0].shape[-1]))
    network.eval()(torch.zeros(1, 3, size, size))
    handle.remove()
    return sizes[0]


@pytest.mark.parametrize(
    ("stem", "image_size", "expected"),
    [("small", 48, 48), ("half", 48, 24), ("native", 48, 12), ("auto", 64, 48), ("auto", 112, 12)],
)
def test_stem_decides_the_resolution_of_the_first_stage(stem: str, image_size: int, expected: int) -> None:
    network = build_backbone("resnet10t", 7, stem=stem, image_size=image_size, kwargs=TINY)  # type: ignore[arg-type]
    assert first_stage_size(network) == expected


def test_large_kernel_is_cropped_to_its_centre() -> None:
    torch.manual_seed(0)
    native = build_backbone("resnet18", 7, stem="native", kwargs=TINY)
    torch.manual_seed(0)
    small = build_backbone("resnet18", 7, stem="small", kwargs=TINY)
    assert small.conv1.weight.shape[-2:] == (3, 3)
    assert small.conv1.stride == (1, 1)
    centre = native.conv1.weight[:, :, 2:5, 2:5]
    ratio = small.conv1.weight / centre
    torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio))
    torch.testing.assert_close(small.conv1.weight.norm(), native.conv1.weight.norm())
    assert isinstance(small.maxpool, nn.Identity)
    assert first_stage_size(small) == 48


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("densenet121", {"growth_rate": 4, "block_config": [1, 1, 1, 1]}),
        ("regnetx_002", {"stem_width": 8}),
        ("ese_vovnet19b_slim", {"stem_chs": [8, 8, 8], "stage_conv_chs": [8] * 4, "stage_out_chs": [8] * 4}),
        ("mobilenetv3_small_050", {}),
        ("repvgg_a0", {}),  # several convolutions read the image side by side
        ("mobileone_s0", {}),
    ],
)
@pytest.mark.parametrize("stem", ["small", "half", "native"])
def test_other_families_work(name: str, kwargs: dict, stem: str) -> None:
    network = build_backbone(name, 5, stem=stem, kwargs=kwargs).eval()  # type: ignore[arg-type]
    assert network(torch.zeros(2, 3, 48, 48)).shape == (2, 5)


@pytest.mark.parametrize("name", ["ese_vovnet19b_slim", "resnet26d"])
def test_half_stem_halves_in_its_first_convolution_alone(name: str) -> None:
    stem = build_backbone(name, 5, stem="half").get_submodule("stem" if "vovnet" in name else "conv1")
    strides = [m.stride for m in stem.modules() if isinstance(m, nn.Conv2d)]
    assert strides == [(2, 2), (1, 1), (1, 1)]


def test_every_branch_of_a_stem_changes_its_stride() -> None:
    for stem, stride in (("small", (1, 1)), ("half", (2, 2))):
        branches = build_backbone("repvgg_a0", 5, stem=stem).get_submodule("stem")  # type: ignore[arg-type]
        assert {m.stride for m in branches.modules() if isinstance(m, nn.Conv2d)} == {stride}


def test_auto_leaves_a_stem_that_cannot_be_made_small() -> None:
    network = build_backbone("hgnetv2_b0", 5, image_size=32).eval()
    assert next(m for m in network.modules() if isinstance(m, nn.Conv2d)).stride == (2, 2)
    with pytest.raises(ValueError, match=r"'hgnetv2_b0' with stem: small cannot take 3×32×32: Sizes of tensors"):
        build_backbone("hgnetv2_b0", 5, stem="small", image_size=32)


def test_a_network_for_another_size_is_refused_when_it_is_built() -> None:
    with pytest.raises(ValueError, match=r"'levit_128s' with stem: auto cannot take 3×48×48: .* \{img_size: 48\}"):
        build_backbone("levit_128s", 7)


def test_an_unknown_stem_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.stem: found 'tiny', expected one of auto, small, half, native"):
        build_backbone("resnet10t", 7, stem="tiny", kwargs=TINY)  # type: ignore[arg-type]


def test_a_network_that_cuts_patches_keeps_its_stem() -> None:
    kwargs = {"img_size": 48, "depth": 1, "embed_dim": 24, "num_heads": 2}
    network = build_backbone("vit_tiny_patch16_224", 7, stem="auto", kwargs=kwargs).eval()
    assert network(torch.zeros(1, 3, 48, 48)).shape == (1, 7)
    with pytest.raises(ValueError, match=r"model\.stem: 'vit_tiny_patch16_224' has no convolutional stem"):
        build_backbone("vit_tiny_patch16_224", 7, stem="small", kwargs=kwargs)
    with pytest.raises(ValueError, match=r"model.stem: 'vit_tiny_patch16_224' has no convolution that halves"):
        build_backbone("vit_tiny_patch16_224", 7, stem="half", kwargs=kwargs)
    with pytest.raises(ValueError, match=r"model.stem: 'poolformer_s12' has no convolution that halves"):
        build_backbone("poolformer_s12", 7, stem="half")


def test_weights_from_a_file_with_another_head(tmp_path: Path) -> None:
    source = build_backbone("resnet18", 5, stem="native", kwargs=TINY)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    path = str(tmp_path / "weights.safetensors")
    loaded = build_backbone("resnet18", 7, stem="native", kwargs=TINY, pretrained_path=path)
    torch.testing.assert_close(loaded.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    assert loaded.fc.weight.shape[0] == 7
    with pytest.raises(ValueError, match=r"weights in .* do not fit 'resnet18'"):
        build_backbone("resnet18", 7, stem="native", kwargs={"channels": [8, 8, 8, 8]}, pretrained_path=path)


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no network 'resnet81', did you mean"):
        build_backbone("resnet81", 7)
    with pytest.raises(ValueError, match=r"model\.backbone_kwargs do not fit 'resnet18': .*widths"):
        build_backbone("resnet18", 7, kwargs={"widths": [1]})
    with pytest.raises(ValueError, match="'num_classes' is set by the classifier"):
        build_backbone("resnet18", 7, kwargs={"num_classes": 3})
    with pytest.raises(FileNotFoundError, match="no file at"):
        build_backbone("resnet18", 7, pretrained_path=str(tmp_path / "absent.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        build_backbone("resnet18", 7, pretrained_path=str(tmp_path / "broken.safetensors"))


def test_normalisation_is_that_of_the_weights() -> None:
    mean, std = normalisation(build_backbone("resnet10t", 7, kwargs=TINY))
    assert mean == pytest.approx([0.485, 0.456, 0.406])
    assert std == pytest.approx([0.229, 0.224, 0.225])
    assert normalisation(nn.Linear(1, 1))[0] == pytest.approx([0.485, 0.456, 0.406])
