"""Methods of pre-training: two ranks are one process, teachers follow, and each learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from synfer.networks.backbone import build_backbone
from synfer.representation.heads import JoinedBatchNorm
from synfer.representation.masked_faces import MaskedFaces, patches_of
from synfer.representation.methods import BYOL, MAE, DecoderSettings, HeadSettings, Method, MoCoV3, SimCLR
from synfer.representation.momentum import cosine_momentum

HEAD = HeadSettings(hidden=12, out=8, layers=2, predictor_layers=2)
FACES, SIDE = 8, 8


def vit() -> nn.Module:
    kwargs = {"img_size": SIDE, "patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return build_backbone("vit_tiny_patch16_224", 0, image_size=SIDE, kwargs=kwargs)


def decoder(network: nn.Module) -> MaskedFaces:
    return MaskedFaces(network, "vit", SIDE, 3, hidden_share=0.75, width=8, depth=1, num_heads=2)


METHODS: dict[str, Callable[[nn.Module], Method]] = {
    "simclr": lambda network: SimCLR(16, HEAD, 0.2),
    "moco_v3": lambda network: MoCoV3(network, 16, HEAD, 0.2),
    "byol": lambda network: BYOL(network, 16, HEAD),
    "mae": lambda network: MAE(decoder(network)),
}


def built(name: str) -> tuple[nn.Module, Method]:
    torch.manual_seed(0)
    network = vit()
    method = METHODS[name](network)
    if method.has_teacher:  # another one than the student, as after some steps
        with torch.no_grad():
            for index, p in enumerate(method.teacher.parameters()):  # type: ignore[union-attr]
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(index)))
    return network.train(), method.train()


def faces() -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(3)
    views = [torch.randn(FACES, 3, SIDE, SIDE, generator=generator) for _ in range(2)]
    return views, torch.rand(FACES, 16, generator=generator)


def step(name: str, mine: slice) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Returns loss, gradients and buffers of one step on some of the faces."""
    network, method = (module.double() for module in built(name))  # float32 leaves 1e-5 of gradients of size 7
    views, numbers = faces()
    views = [view.double() for view in views]
    loss, _ = method.loss(network, [v[mine] for v in views][: method.num_views], lambda columns: numbers[mine])
    loss.backward()
    whole = nn.ModuleDict({"network": network, "method": method})
    gradients = {n: p.grad for n, p in whole.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, {n: b for n, b in whole.named_buffers() if b.is_floating_point()}


def one_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    try:
        half = FACES // 2
        found = {}
        for name in METHODS:
            loss, gradients, buffers = step(name, slice(rank * half, (rank + 1) * half))
            for tensor in (loss, *gradients.values()):  # as DDP does
                torch.distributed.all_reduce(tensor)
                tensor /= 2
            found[name] = {"loss": loss, "gradients": gradients, "buffers": buffers}
        torch.save(found, f"{folder}/rank{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.ddp
@pytest.mark.slow
def test_two_ranks_are_one_process_with_the_joined_batch(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(one_rank, (str(tmp_path),), nprocs=2, start_method="fork")
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for name in METHODS:
        loss, gradients, buffers = step(name, slice(None))
        assert len(gradients) > 10
        for rank in ranks:
            found = rank[name]
            assert torch.allclose(found["loss"], loss, atol=1e-9), name
            assert found["gradients"].keys() == gradients.keys()
            for key, wanted in gradients.items():
                assert (found["gradients"][key] - wanted).abs().max() < 1e-9, (name, key)
            for key, wanted in buffers.items():
                assert torch.allclose(found["buffers"][key], wanted, atol=1e-9), (name, key)


def test_without_the_gathered_gradients_the_test_would_fail() -> None:
    """Half of the batch alone is far from the whole: what the comparison above can see."""
    whole, half = step("simclr", slice(None))[1], step("simclr", slice(FACES // 2))[1]
    assert max(float((half[key] - whole[key]).abs().max()) for key in whole) > 1e-3


@pytest.mark.parametrize("name", list(METHODS))
def test_everything_that_learns_gets_a_gradient_and_teachers_none(name: str) -> None:
    network, method = built(name)
    views, numbers = faces()
    loss, embedding = method.loss(network, views[: method.num_views], lambda columns: numbers[:, :columns])
    loss.backward()
    assert embedding.shape[0] == FACES and loss.isfinite()
    for key, p in (*network.named_parameters(), *method.named_parameters()):
        if key.startswith("teacher."):
            assert not p.requires_grad
        else:
            assert p.grad is not None, key


@pytest.mark.parametrize("name", ["moco_v3", "byol"])
def test_the_teacher_follows(name: str) -> None:
    network, method = built(name)
    before = {n: p.clone() for n, p in method.teacher.named_parameters()}  # type: ignore[union-attr]
    method.follow(network, 0.9)
    student = nn.ModuleDict({"backbone": network, "projector": method.projector})  # type: ignore[dict-item]
    for key, p in student.named_parameters():
        now = method.teacher.get_parameter(key)  # type: ignore[union-attr]
        assert torch.allclose(now, 0.9 * before[key] + 0.1 * p, atol=1e-6)


def test_momentum_rises_along_a_cosine() -> None:
    assert cosine_momentum(0, 100, 0.99) == pytest.approx(0.99)
    assert cosine_momentum(50, 100, 0.99) == pytest.approx(0.995)
    assert cosine_momentum(100, 100, 0.99) == cosine_momentum(200, 100, 0.99) == 1
    assert cosine_momentum(7, float("inf"), 0.99) == 0.99


def test_joined_norm_alone_is_torchs_own() -> None:
    torch.manual_seed(0)
    ours, theirs, x = JoinedBatchNorm(5), nn.BatchNorm1d(5), torch.randn(6, 5)
    assert torch.equal(ours(x), theirs(x)) and torch.equal(ours.running_var, theirs.running_var)


def test_patches_are_cut_row_by_row() -> None:
    image = torch.arange(2 * 3 * 4 * 4).float().view(2, 3, 4, 4)
    cut = patches_of(image, 2)
    assert cut.shape == (2, 4, 12)
    assert torch.equal(cut[0, 1], image[0, :, :2, 2:].permute(1, 2, 0).flatten())
    assert torch.equal(cut[1, 2], image[1, :, 2:, :2].permute(1, 2, 0).flatten())


def test_mae_does_not_see_what_is_hidden() -> None:
    network, method = built("mae")
    assert isinstance(method, MAE)
    seen: list[Tensor] = []
    network.blocks.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))  # type: ignore[operator, union-attr]
    views, numbers = faces()
    method.loss(network.eval(), views[:1], lambda columns: numbers)
    hidden = numbers.argsort(1)[:, 4:]
    changed = views[0].clone()
    for face in range(FACES):
        for patch in hidden[face].tolist():
            row, column = divmod(patch, 4)
            changed[face, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 1
    method.loss(network, [changed], lambda columns: numbers)
    assert seen[0].shape == (FACES, 1 + 4, 16) and torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("name", ["resnet10t", "vit_base_patch16_siglip_224"])
def test_mae_needs_a_plain_vit(name: str) -> None:
    network = nn.Linear(1, 1) if name == "resnet10t" else vit()
    if name != "resnet10t":
        network.global_pool = "map"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=f"found '{name}' with the method mae, expected a plain ViT"):
        MaskedFaces(network, name, SIDE, 3, 0.75, 8, 1, 2)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_mae_trains_every_weight_of_the_vit(pool: str) -> None:
    kwargs = {"img_size": SIDE, "patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2, "global_pool": pool}
    network = build_backbone("vit_tiny_patch16_224", 0, image_size=SIDE, kwargs=kwargs)
    views, numbers = faces()
    loss, _ = decoder(network).loss(network, views[0], numbers)
    loss.backward()
    assert all(p.grad is not None for p in network.parameters())


def test_ranges() -> None:
    with pytest.raises(ValueError, match=r"model\.head\.layers"):
        HeadSettings(layers=0)
    with pytest.raises(ValueError, match=r"model\.decoder\.num_heads"):
        DecoderSettings(width=10, num_heads=4)
    with pytest.raises(ValueError, match=r"model\.decoder\.hidden_share"):
        DecoderSettings(hidden_share=1.0)
