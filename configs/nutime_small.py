"""NuTime small (556,736 parameters), an encoder for CPUs pretrained with SimCLR: the recipe of the weights `nutime-small`.

    nutime data download --to=archives
    nutime pretrain --config=nutime_small --workdir=runs/nutime-small

Hardware and time: two shared CPU cores, one host device per core, 1.1 GB, 340 view pairs per second without other load
(921,600 pairs would take 45 minutes; the run was interrupted). Data of the weights: the train splits of 63 UCR and 10 UEA
datasets, of 22 more UCR datasets and of the bundled ones. Score: 82.3 % on those 63 datasets and 84.1 % on those 10 (test
accuracy of a ridge classifier on features of all layers, of the series and its first difference, 8 window offsets; one
seed); the untrained baseline scores 76.6 and 80.8 %. Search: docs/weights.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "name": "nutime_small",
            "seed": 0,
            "steps": 3600,
            "batch_size": 256,
            "matmul_precision": "highest",
            "model": {"depth": 4, "head_dim": 16, "mlp_dim": 256, "dropout": 0.0},
            # The temperature is the default, 0.1.
            "objective": {"kind": "simclr", "hidden_dim": 512, "output_dim": 128, "momentum": 0.99},
            "augment": {"crop_ratio": (0.5, 1.0), "transforms": ("jitter=0.3", "scale=0.22", "level_shift=0.5", "mask_blocks=0.5")},
            "optim": {"warmup_steps": 180},
            "data": {
                "sources": ("bundled", "ucr=archives/ucr", "uea=archives/uea"),
                "exclude": (),
                "synthetic_fraction": 0.25,
                "reader_threads": 2,
            },
            "run": {
                "log_every": 20,
                "checkpoint_every": 200,
                "probe_every": 400,
                "keep_period": 600,
                "best_metric": "",
                "max_to_keep": 2,
            },
            "evaluation": {"pooling": "all_layers", "num_window_offsets": 8, "diff_orders": (0, 1)},
        }
    )
