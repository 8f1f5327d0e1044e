"""A layout that was kept is the layout that would be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.generator import ExpressionGenerator
from synfer.synthesis.diffusion.layout_cache import LayoutCache, layout_identity, layout_keys
from tests.fixtures.tiny_generator import request_for, state_for, tiny_generator

IDENTITY = {"kind": "layout", "network": "abc"}
LIKE = torch.zeros(6, 2, 3, 3)


class Inversion:
    """Layouts by number, and how often they were made."""

    def __init__(self, scale: float = 1.0) -> None:
        self.made: list[int] = []
        self.all = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0)) * scale

    def __call__(self, numbers: Tensor) -> Tensor:
        self.made += numbers.tolist()
        return self.all[numbers]


def keys(n: int = 6) -> list[bytes]:
    return [bytes([i]) * 16 for i in range(n)]


def ask(cache: LayoutCache, inversion: Inversion, chosen: list[int] | None = None, **identity: Any) -> Tensor:
    chosen = list(range(6)) if chosen is None else chosen
    wanted = [keys()[i] for i in chosen]
    return cache.layouts({**IDENTITY, **identity}, wanted, LIKE, lambda new: inversion(torch.tensor(chosen)[new]))


def test_kept_layouts_equal_made_ones_and_are_made_once(tmp_path: Path) -> None:
    inversion, cache = Inversion(), LayoutCache(tmp_path, 10**6)
    first = ask(cache, inversion, [0, 1, 1, 2])
    second = ask(cache, inversion)
    assert inversion.made == [0, 1, 2, 3, 4, 5] and (cache.found, cache.made) == (4, 6)
    assert torch.equal(first, second[[0, 1, 1, 2]]) and first.dtype == torch.float32
    torch.testing.assert_close(second, inversion.all, atol=2e-3, rtol=1e-3)
    cache.close()
    again = LayoutCache(tmp_path, 10**6)
    assert torch.equal(ask(again, inversion), second) and len(inversion.made) == 6
    assert again.holds(IDENTITY, keys(), LIKE) == [True] * 6


def test_another_generator_schedule_or_number_of_steps_has_its_own(tmp_path: Path) -> None:
    inversion, cache = Inversion(), LayoutCache(tmp_path, 10**6)
    ask(cache, inversion)
    ask(cache, inversion, network="abd")
    assert len(inversion.made) == 12
    ask(cache, inversion)  # the first one's were written when the second came
    assert len(inversion.made) == 12


def test_ranks_read_what_others_have_written(tmp_path: Path) -> None:
    inversion = Inversion()
    ranks = [LayoutCache(tmp_path, 10**6) for _ in range(2)]
    assert torch.equal(ask(ranks[0], inversion, [0, 1]), ask(ranks[1], inversion, [0, 1]))  # nobody waits for another
    ranks[0].flush()
    ask(ranks[1], inversion, [0, 1])
    ask(LayoutCache(tmp_path, 10**6), inversion, [0, 1])
    assert inversion.made == [0, 1, 0, 1]


def test_a_full_cache_is_said_once_and_changes_no_layout(tmp_path: Path) -> None:
    inversion, cache = Inversion(), LayoutCache(tmp_path, 10)
    expected = ask(LayoutCache(tmp_path / "other", 10**6), inversion)
    assert torch.equal(ask(cache, inversion), expected)
    with pytest.warns(UserWarning, match=r"layout.cache_dir '.*': found it full within layout.cache_bytes=10: further"):
        cache.flush()
    assert torch.equal(ask(cache, inversion), expected)
    cache.flush()
    assert inversion.made == list(range(6)) * 3 and all(cache.holds(IDENTITY, keys(), LIKE))


def test_a_folder_that_cannot_be_used_is_said_and_changes_no_layout(tmp_path: Path) -> None:
    inversion = Inversion()
    (tmp_path / "file").write_text("")
    cache = LayoutCache(tmp_path / "file", 10**6)
    with pytest.warns(UserWarning, match=r"layout.cache_dir '.*file': cannot be used .*: layouts are inverted each"):
        first = ask(cache, inversion)
    assert torch.equal(first, ask(cache, inversion)) and len(inversion.made) == 12


@pytest.mark.parametrize("how", ["cut short", "text", "archive"])
def test_a_damaged_or_foreign_file_is_said_in_one_line_and_made_again(how: str, tmp_path: Path) -> None:
    inversion, cache = Inversion(), LayoutCache(tmp_path, 10**6)
    expected = ask(cache, inversion)
    cache.close()
    (shard,) = tmp_path.glob("features-*/shard-*")
    if how == "cut short":
        content = (shard / "features.npy").read_bytes()
        (shard / "features.npy").write_bytes(content[:-7])
    elif how == "text":
        (shard / "features.npy").write_text("not ours")
    else:
        torch.save({"a": torch.zeros(2)}, shard / "features.npy")  # a zip file, which numpy opens too
    with pytest.warns(UserWarning, match=r"shard .* is damaged .*computed again") as said:
        found = ask(LayoutCache(tmp_path, 10**6), inversion)
    assert len(said) == 1 and torch.equal(found, expected) and len(inversion.made) == 12


def test_a_file_in_a_shard_s_place_is_left_alone(tmp_path: Path) -> None:
    inversion, cache = Inversion(), LayoutCache(tmp_path, 10**6)
    expected = ask(cache, inversion)
    cache.close()
    (folder,) = tmp_path.glob("features-*")
    (folder / "shard-notes").write_text("somebody's")
    again = LayoutCache(tmp_path, 10**6)
    with pytest.warns(UserWarning, match=r"shard-notes is a file and no shard of ours"):
        assert torch.equal(ask(again, inversion), expected)
    assert (folder / "shard-notes").exists() and len(inversion.made) == 6


def test_what_float16_cannot_hold_is_used_and_not_kept(tmp_path: Path) -> None:
    inversion, cache = Inversion(scale=1e6), LayoutCache(tmp_path, 10**6)
    assert torch.equal(ask(cache, inversion), inversion.all)
    assert torch.equal(ask(cache, inversion), inversion.all) and len(inversion.made) == 12


# ---------------------------------------------------------------- what a layout depends on


@pytest.fixture(scope="module")
def generator() -> ExpressionGenerator:
    return tiny_generator().eval()


def test_identity_holds_all_that_an_inversion_depends_on(generator: ExpressionGenerator) -> None:
    def of(
        inverted: int = 3, iterations: int = 0, network: str = "abc", size: int | None = None, **settings: Any
    ) -> Any:
        state = state_for(generator, request_for(**{"num_steps": 10, **settings}))
        state = state if size is None else replace(state, image_size=size)
        return layout_identity(state, network, inverted, iterations)

    same = [of(), of(guidance_scale=7.0), of(seed=4), of(negative_prompt="a sad face")]
    assert all(one == same[0] for one in same)
    others = [of(inverted=4), of(iterations=1), of(network="b"), of(size=8), of(num_steps=11), of(au_scale=0.5)]
    assert all(one != same[0] for one in others)
    assert of(scheduler="dpm_solver++", num_steps=7) != of(num_steps=7)


def test_weights_and_build_are_in_the_name_of_the_network(generator: ExpressionGenerator) -> None:
    before = generator.synthesiser.network_fingerprint()
    other = tiny_generator()
    assert other.synthesiser.network_fingerprint() == before
    with torch.no_grad():
        other.model.unet.conv_in.bias[0] += 1
    assert other.synthesiser.network_fingerprint() != before
    built = tiny_generator(codec_config={"patch": 4, "channels": 3, "scaling_factor": 1.5})
    assert built.synthesiser.network_fingerprint() != before


def test_keys_tell_faces_and_captions_apart() -> None:
    faces = torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8)
    plain = layout_keys(faces, ["a", "a", "a"])
    assert len(set(plain)) == 3 and layout_keys(faces[1:], ["a", "a"]) == plain[1:]
    assert layout_keys(faces[:1], ["b"]) != plain[:1]
