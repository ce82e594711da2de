"""Frozen protocols on the bundled datasets: a pretrained encoder, its untrained baseline, and methods on raw series.

nutime sweep --config=sweep --out=results/quickstart
nutime report results/quickstart/results.csv --out=results/quickstart/report.html
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "encoders": ("pretrained=runs/quickstart", "untrained=untrained:runs/quickstart"),
            "finetune": {"epochs": 100},
        }
    )
