"""Whether the faces of a test are training faces again: in features, in pixels, and beside their layout's source."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from callbacks.scoring_networks import BATCH, ScoringNetworks, as_float
from datamodules.rows.near_copies import NEAR_COPY, pixel_correlation
from datamodules.rows.reference_faces import ReferenceFaces
from synfer.foundation.counter_based_random import keys_of
from synfer.metrics.face_set_report import ComparedFaces, FaceSetReport, Rows
from synfer.metrics.nearest_reference import NearestReference


@torch.no_grad()
def nearest_training(
    faces: ComparedFaces, training: ReferenceFaces, networks: ScoringNetworks, rank: int, world_size: int
) -> tuple[Tensor, Tensor]:
    """Returns distance and row of the nearest training face, first of the generated faces, then of the real ones.

    A collective: each rank searches its share of the training faces.

    Args:
        faces: the compared faces.
        training: what is searched.
        networks: give the features.
        rank: of this process.
        world_size: number of ranks.
    """
    queries = torch.cat([faces.generated["features"], faces.real["features"]])
    search = NearestReference(queries)
    for rows in torch.arange(rank, len(training), world_size).split(BATCH):
        features = networks.features(as_float(training.images(rows), networks.device))
        search.update(features.to(queries.device), rows.to(queries.device))
    return search.compute()


def near_copies(datamodule: Any, made: dict[str, Tensor], device: torch.device) -> dict[str, float]:
    """Returns the share of near copies of training faces; nothing where the training split cannot be read.

    Args:
        datamodule: searches its training faces.
        made: "images" uint8 (n, 3, H, W) and, where something discards faces, "kept" (n,).
        device: where they are compared.
    """
    try:
        search = datamodule.near_copies()
    except (FileNotFoundError, KeyError, ValueError) as error:
        rank_zero_warn(f"test/near_copies is not measured, the training split cannot be read: {error}")
        return {}
    copies = search.find(made["images"].to(device)).cpu()
    metrics = {"test/near_copies": float(copies.double().mean()), "test/near_copies_real": search.held_out_share()}
    kept = made.get("kept", torch.ones_like(copies))
    if not kept.all():
        metrics |= {
            "test/kept": float(kept.double().mean()),
            "test/near_copies_kept": float(copies[kept].double().mean()),
        }
    rows, found = _sources_of(datamodule, made)
    if len(rows):
        # Sources at their own size: resized twice, their pixels would not be those that are searched.
        sources, parts = datamodule.train_table.images, zip(rows.split(BATCH), found.split(BATCH), strict=True)
        others = [search.find(made["images"][a].to(device), sources.batch(b.numpy())).cpu() for a, b in parts]
        metrics["test/near_copies_of_others"] = float(torch.cat(others).double().mean())
    return metrics


def against_sources(
    datamodule: Any, made: dict[str, Tensor], fake: Rows, networks: ScoringNetworks, report: FaceSetReport
) -> dict[str, float]:
    """Compares faces with the training faces that they, or their layouts, come from; nothing where there are none.

    Args:
        datamodule: has the training faces.
        made: "images" uint8 (n, 3, H, W) and "layout_source", keys of their sample ids, (n,).
        fake: what the networks see in these faces.
        networks: score the sources.
        report: compares the two.
    """
    rows, found = _sources_of(datamodule, made)
    if not len(rows):
        return {}
    training = ReferenceFaces(datamodule.train_table, made["images"].shape[-1])
    similarities, probabilities = [], []
    for chunk, own in zip(rows.split(BATCH), found.split(BATCH), strict=True):
        shown = training.images(own)
        similarities.append(pixel_correlation(made["images"][chunk], shown))
        probabilities.append(networks.score(as_float(shown, networks.device))["probabilities"])
    similarity = torch.cat(similarities)
    mine = {name: fake[name][rows.to(fake[name].device)] for name in ("label", "probabilities")}
    in_sources = {"label": mine["label"], "probabilities": torch.cat(probabilities)}
    copies = {"test/source_copies": float((similarity > NEAR_COPY).double().mean())}
    return report.against_sources(similarity, mine, in_sources) | copies


def _sources_of(datamodule: Any, made: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns which faces name a row of this run as their source, int64 (m,), and these rows, int64 (m,)."""
    keys = made.get("layout_source", torch.zeros(0))
    table = datamodule.train_table
    if not keys.any() or table is None:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    place = {key: row for row, key in enumerate(keys_of(table.sample_id.tolist()).astype(np.int64).tolist())}
    rows = torch.tensor([i for i, key in enumerate(keys.tolist()) if key in place], dtype=torch.int64)
    return rows, torch.tensor([place[key] for key in keys[rows].tolist()], dtype=torch.int64)
