"""Continued pretraining of an encoder on your own series, with the recipe of `nutime-small` and a low learning rate.

    nutime pretrain --config=continued --init_from=nutime-small --workdir=runs/mine --config.data.sources=my_folder

Model, lengths and features are those of the encoder that `--init_from` names: a pretrained name, a folder or a workdir.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "name": "continued",
            "seed": 0,
            "steps": 600,
            "batch_size": 128,
            "objective": {"kind": "simclr", "hidden_dim": 512, "output_dim": 128},
            "augment": {"crop_ratio": (0.5, 1.0), "transforms": ("jitter=0.3", "scale=0.22", "level_shift=0.5", "mask_blocks=0.5")},
            # A tenth of the published rate: the heads are new, the encoder is not.
            "optim": {"lr": 2e-4, "min_lr": 2e-6, "warmup_steps": 60},
            "data": {"sources": (), "exclude": (), "reader_threads": 2},
            "run": {"log_every": 20, "checkpoint_every": 200, "probe_every": 0, "best_metric": "", "max_to_keep": 2},
            "evaluation": {"sources": ()},
        }
    )
