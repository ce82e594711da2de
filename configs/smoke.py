"""A run of seconds, for tests: a tiny encoder, eight steps on the bundled series.

    nutime pretrain --config=smoke --workdir=runs/smoke

Hardware and time: two CPU cores, well under a minute. The score says nothing.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "name": "smoke",
            "seed": 0,
            "steps": 8,
            "batch_size": 16,
            "length": 64,
            "matmul_precision": "highest",
            "model": {"window": 16, "width": 16, "depth": 2, "heads": 2, "head_dim": 8, "mlp_dim": 32, "dropout": 0.1, "scale_dim": 8},
            "objective": {"hidden": 32, "dim": 16, "momentum": 0.9},
            "augment": {"crop": (0.8, 1.0)},
            "optim": {
                "rate": 1e-3,
                "warmup_rate": 1e-6,
                "final_rate": 1e-5,
                "warmup_steps": 2,
                "beta1": 0.9,
                "beta2": 0.999,
                "epsilon": 1e-8,
                "weight_decay": 0.05,
                "decay": "all",
            },
            "data": {"sources": ("ArrowHead", "PickupGestureWiimoteZ"), "dir": "", "max_length": 4096, "threads": 2},
            "run": {"log_every": 2, "checkpoint_every": 3, "probe_every": 4, "probe_sources": ("ArrowHead",), "keep": 2},
            "evaluation": {
                "sources": ("ArrowHead", "PickupGestureWiimoteZ"),
                "layer": config_dict.placeholder(int),
                "readout": "cls+mean",
                "channels": "concat",
            },
        }
    )
