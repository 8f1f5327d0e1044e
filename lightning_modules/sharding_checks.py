"""What goes with a UNet whose weights are sharded over the ranks, asked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from synfer.foundation.validate import check_setting


def check_sharding(settings: Mapping[str, Any], trainer: Any) -> None:
    """Refuses, of a strategy that shards, what would have ranks wait for each other or cannot be put together again.

    Each pass of a sharded network is a collective: all ranks must make the same number of them, which faces and
    validation rows do not allow.

    Args:
        settings: of the generator.
        trainer: with any strategy.

    Raises:
        ValueError: names the setting.
    """
    check_setting(
        not isinstance(trainer.strategy, FSDPStrategy),
        "strategy",
        "FSDPStrategy, whose shards the average over weights cannot follow",
        "lightning.pytorch.strategies.ModelParallelStrategy (FSDP2)",
        group="trainer",
    )
    if not isinstance(trainer.strategy, ModelParallelStrategy):
        return
    check_setting(settings["base"] is not None, "base", None, "a base: small models need no sharding")
    learns_whole = settings["trained"] in ("all", "unet_only")
    check_setting(learns_whole, "trained", settings["trained"], "all or unet_only with a sharding strategy")
    optimizer = settings["optimizer"]
    check_setting(optimizer == "adamw", "optimizer", optimizer, "adamw with a sharded UNet: Muon needs whole matrices")
    features = settings["alignment"]["features"]
    check_setting(features is None, "alignment.features", features, "null with a sharded UNet")
    check_setting(settings["grid_samples"] == 0, "grid_samples", settings["grid_samples"], "0 with a sharded UNet")
    rounds = settings["execution"]["bf16_weights"]
    check_setting(not rounds, "execution.bf16_weights", rounds, "false with a sharded UNet")
    validates = trainer.limit_val_batches not in (0, 0.0) and trainer.state.fn == "fit"
    check_setting(
        not validates, "limit_val_batches", trainer.limit_val_batches, "0 with a sharded UNet", group="trainer"
    )
    world = trainer.strategy.device_mesh["data_parallel"].size()
    check_setting(
        world == trainer.world_size,
        "strategy.init_args.data_parallel_size",
        world,
        f"{trainer.world_size}, the number of ranks, beside tensor_parallel_size 1",
        group="trainer",
    )
