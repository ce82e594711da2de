"""NuTime base (2,395,328 parameters): the recipe of nutime_small.py with the published Transformer, for the weights `nutime-base`.

    nutime data download --to=archives
    nutime pretrain --config=nutime_base --workdir=runs/nutime-base

Hardware and time: two shared CPU cores, one host device per core, 60 to 100 view pairs per second beside other work (307,200 pairs).
Data as in nutime_small.py. Scores: docs/weights.md. The recipe of the paper is nutime_paper.py.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = runpy.run_path(str(Path(__file__).with_name("nutime_small.py")))["get_config"]()
    config.update(
        {
            "name": "nutime_base",
            "steps": 1200,
            "model": {"depth": 6, "head_dim": 64, "mlp_dim": 512},
            "optim": {"warmup_steps": 60},
            "run": {"checkpoint_every": 50, "keep_period": 200},
        }
    )
    return config
