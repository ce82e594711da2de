"""A small encoder on the real series that come with aeon, for a laptop: 209,536 parameters.

    nutime pretrain --config=quickstart --workdir=runs/quickstart

Hardware and time: two CPU cores, 7 minutes, 1.4 GB. Score: 80.3 % (seeds 0, 1, 2: 78.9, 80.2, 81.9), mean test accuracy of
a linear ridge classifier on the eight bundled datasets; the untrained baseline scores 74.7 %, and 76.3 % with the kernel ridge
classifier of the table that the command prints.

Selected by cross-validation within the *train* splits of the bundled datasets, one run each: batch size (128 and 64 scored
above 256 at the same number of series), crop ratio (0.5 to 1 above 0.8 to 1 and 0.3 to 1), momentum (0.99 above 0.996).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "name": "quickstart",
            "seed": 0,
            "steps": 1400,
            "batch_size": 128,
            "matmul_precision": "highest",
            "model": {"width": 64, "depth": 4, "num_heads": 4, "head_dim": 16, "mlp_dim": 256, "dropout": 0.0},
            "objective": {"hidden_dim": 512, "output_dim": 64, "momentum": 0.99},
            "augment": {"crop_ratio": (0.5, 1.0)},
            "optim": {"warmup_steps": 50},
            "data": {"sources": ("bundled",), "exclude": (), "reader_threads": 2},
            "run": {"log_every": 20, "checkpoint_every": 200, "probe_every": 200, "max_to_keep": 2},
        }
    )
