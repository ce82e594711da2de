"""NuTime base (2,395,328 parameters): the recipe of nutime_small.py with the published Transformer of 6 blocks and 8 heads of 64.

    nutime data download --to=archives
    nutime pretrain --config=nutime_base --workdir=runs/nutime-base

The recipe of the paper is nutime_paper.py.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "name": "nutime_base",
            "seed": 0,
            "steps": 1200,
            "batch_size": 256,
            "matmul_precision": "highest",
            # Steps take turns: most series have fewer than 512 time points, some many more.
            "view_lengths": (512, 256, 1024, 512, 128, 256),
            "model": {
                "dropout": 0.0,
                "dense_stride": 2,
                "dense_differences": True,
                "dense_width": 64,
            },
            # The temperature is the default, 0.1.
            "objective": {"kind": "simclr", "hidden_dim": 512, "output_dim": 128, "momentum": 0.99},
            "augment": {"crop_ratio": (0.5, 1.0), "transforms": ("jitter=0.3", "scale=0.22", "level_shift=0.5", "mask_blocks=0.5")},
            "optim": {"warmup_steps": 60},
            "data": {
                "sources": ("bundled", "ucr=archives/ucr", "uea=archives/uea"),
                "exclude": (),
                "synthetic_fraction": 0.25,
                "reader_threads": 2,
            },
            "run": {
                "log_every": 20,
                "checkpoint_every": 50,
                "probe_every": 400,
                "keep_period": 200,
                "best_metric": "",
                "max_to_keep": 2,
            },
            "evaluation": {
                "pooling": "all_layers+stem",
                "input_lengths": (0,),
                "num_window_offsets": 2,
                "diff_orders": (0, 1),
                "channel_differences": True,
                "fast": ("num_window_offsets=1", "diff_orders=0", "channel_differences=false"),
                "accurate": ("num_window_offsets=2", "diff_orders=0+1", "channel_differences=true"),
            },
        }
    )
