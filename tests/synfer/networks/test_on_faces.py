from __future__ import annotations

import torch

from synfer.faces.face_shape import resize_faces
from synfer.networks.on_faces import OnFaces


def test_faces_come_in_the_networks_size_and_colours() -> None:
    image = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    faces = OnFaces([0.5, 0.25, 0.0], [0.5, 1.0, 2.0], "bicubic")
    faces.image_size = 8
    small = resize_faces(image, 8, "bicubic").clamp(0, 1)
    expected = (small - torch.tensor([0.5, 0.25, 0.0]).view(3, 1, 1)) / torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1)
    assert torch.equal(faces.prepare(image), expected)
    assert list(faces.state_dict()) == ["mean", "std"]


def test_a_network_for_grey_images_gets_the_mean_of_the_colours() -> None:
    grey = OnFaces([0.5], [0.5])
    grey.image_size = 4
    image = torch.rand(1, 3, 4, 4, requires_grad=True)
    found = grey.prepare(image)
    torch.testing.assert_close(found, image.mean(1, keepdim=True) * 2 - 1)
    found.sum().backward()
    assert image.grad is not None and bool((image.grad != 0).all())
