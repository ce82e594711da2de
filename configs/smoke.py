"""A run of seconds for tests: a tiny encoder, eight steps on two bundled datasets.

    nutime pretrain --config=smoke --workdir=runs/smoke

Hardware and time: two CPU cores, well under a minute. The score has no meaning.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "name": "smoke",
            "seed": 0,
            # Two probe intervals, and not a multiple of the checkpoint interval.
            "steps": 8,
            # Divisible by the eight devices of the tests.
            "batch_size": 16,
            # Four windows.
            "length": 64,
            "matmul_precision": "highest",
            # The dropout rate is the default, so that its keys are used.
            "model": {"width": 16, "depth": 2, "num_heads": 2, "head_dim": 8, "mlp_dim": 32, "scale_dim": 8},
            # The target network moves noticeably in eight steps.
            "objective": {"hidden_dim": 32, "output_dim": 16, "momentum": 0.9},
            "augment": {"transforms": ("jitter=0.1",)},
            "optim": {"lr": 1e-3, "warmup_lr": 1e-6, "min_lr": 1e-5, "warmup_steps": 2},
            # One dataset of equal lengths, one of unequal lengths.
            "data": {"sources": ("ArrowHead", "PickupGestureWiimoteZ"), "exclude": (), "reader_threads": 2},
            # Intervals that do not divide each other.
            "run": {
                "log_every": 2,
                "checkpoint_every": 3,
                "probe_every": 4,
                "probe_sources": ("ArrowHead",),
                "max_to_keep": 2,
            },
            "evaluation": {"sources": ("ArrowHead", "PickupGestureWiimoteZ")},
        }
    )
