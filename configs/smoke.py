"""A run of seconds, for tests: a tiny encoder, eight steps on two bundled sets.

    nutime pretrain --config=smoke --workdir=runs/smoke

Hardware and time: two CPU cores, well under a minute. The score says nothing.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Every field is explained in quickstart.py; here is why it has its value."""
    config = ConfigDict()
    config.name = "smoke"
    config.seed = 0
    # Enough for two intervals of everything below.
    config.steps = 8
    # Divisible by the eight devices of the tests.
    config.batch_size = 16
    # Four windows.
    config.length = 64
    config.matmul_precision = "highest"
    config.accumulate = 1
    config.remat = "none"
    # Views that are encoded at a time, and once more on the way back: less memory, the same numbers but for which elements
    # are dropped. 0 is 32 on a CPU, whose caches hold what they leave, and all at once elsewhere.
    config.chunk = 0
    # Everything there is to an encoder, as small as it goes; dropout as published, so that its keys are exercised.
    config.model = ConfigDict(
        {"window": 16, "width": 16, "depth": 2, "heads": 2, "head_dim": 8, "mlp_dim": 32, "dropout": 0.1, "scale_dim": 8}
    )
    config.model.scalars = "nme"
    # A momentum at which the target visibly moves in eight steps.
    config.objective = ConfigDict({"kind": "byol", "hidden": 32, "dim": 16, "momentum": 0.9, "temperature": 0.1, "readout": "cls"})
    config.objective.update({"mask": 0.5, "mask_kind": "random"})
    config.augment = ConfigDict({"crop": (0.8, 1.0), "distort": ("jitter=0.1",)})
    # As published, with a warm-up that fits.
    config.optim = ConfigDict(
        {"rate": 1e-3, "warmup_rate": 1e-6, "final_rate": 1e-5, "warmup_steps": 2, "weight_decay": 0.05, "decay": "all"}
    )
    config.optim.update({"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8})
    # One set of equal and one of unequal lengths.
    config.data = ConfigDict({"sources": ("ArrowHead", "PickupGestureWiimoteZ"), "dir": "", "max_length": 4096, "threads": 2})
    config.data.update({"exclude": (), "weights": (), "alpha": 0.0, "synthetic": 0.0, "resident": False})
    config.parallel = ConfigDict({"fsdp": 1, "rules": ("kernel$=fsdp",)})
    # Intervals that do not divide each other.
    config.run = ConfigDict({"log_every": 2, "checkpoint_every": 3, "probe_every": 4, "probe_sources": ("ArrowHead",), "keep": 2})
    config.run.update({"keep_every": 0, "best": "probe", "hang_seconds": 60, "collapse": 0.01, "collapse_patience": 5})
    config.evaluation = ConfigDict({"sources": ("ArrowHead", "PickupGestureWiimoteZ"), "readout": "cls+mean", "channels": "concat"})
    config.evaluation.update({"layer": config_dict.placeholder(int), "lengths": (), "shifts": 1, "orders": (0,)})
    return config
