"""Frozen protocols of a pretrained encoder and of its untrained baseline on the bundled datasets, and classical methods.

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
