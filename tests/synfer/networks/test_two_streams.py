"""Two streams: queries of one network see the other's places in their window alone."""

from __future__ import annotations

import torch

from synfer.networks.two_streams import TwoStreams, brought_to, in_windows, out_of_windows, padding_of


def test_windows_come_back() -> None:
    maps = torch.randn(2, 3, 5, 5)
    tokens, count = in_windows(maps, 2)
    assert tokens.shape == (2 * 9, 4, 3) and count == 3
    assert torch.equal(tokens[0], maps[0, :, :2, :2].flatten(1).T)  # the first window of the first face
    assert torch.equal(tokens[9], maps[1, :, :2, :2].flatten(1).T)
    assert torch.equal(out_of_windows(tokens, 2, count, 5), maps)
    hidden = padding_of(maps, 2)
    assert hidden is not None and hidden.shape == (18, 4) and not hidden[0].any()
    assert hidden[2].tolist() == [False, True, False, True]  # of the last column one half
    assert padding_of(maps, 5) is None


def test_sides_are_brought_together() -> None:
    assert brought_to(torch.ones(1, 2, 7, 7), 3).shape == brought_to(torch.ones(1, 2, 2, 2), 3).shape == (1, 2, 3, 3)


def test_a_stream_asks_in_its_window_alone() -> None:
    torch.manual_seed(0)
    fusion = TwoStreams([(4, 4)], [(6, 2)], 8, depth=1, num_heads=2, window=2).eval()
    image, stream = torch.randn(2, 4, 4, 4), torch.randn(2, 6, 2, 2)
    seen: list[torch.Tensor] = []
    fusion.crosses[0].register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    found = fusion([image], [stream])
    changed = image.clone()
    changed[:, :, 2:, 2:] += 1  # the last of four windows
    assert not torch.allclose(fusion([changed], [stream]), found)
    before, after = (tokens.view(2, 4, 4, 8) for tokens in seen)
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.allclose(before[:, 3], after[:, 3])
    assert not torch.allclose(fusion([image], [stream + 1]), found)


def test_padding_is_not_seen() -> None:
    torch.manual_seed(0)
    fusion = TwoStreams([(4, 5), (4, 3)], [(6, 5), (6, 3)], 8, depth=1, num_heads=2, window=3).eval()
    image, stream = [torch.randn(2, 4, s, s) for s in (5, 3)], [torch.randn(2, 6, s, s) for s in (5, 3)]
    found = fusion(image, stream)
    assert found.shape == (2, 8) and bool(found.isfinite().all())
    torch.testing.assert_close(fusion([m[:1] for m in image], [m[:1] for m in stream]), found[:1])
