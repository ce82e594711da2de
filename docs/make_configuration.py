"""Make docs/configuration.md from the schema of configurations.

python -m docs.make_configuration
"""

from pathlib import Path

from nutime_jax.config import PretrainConfig, SweepConfig, TuningSettings
from nutime_jax.options import Option, Section, format_value, options
from studies.domains import DomainsConfig
from studies.scales import ScalesConfig
from studies.variants import VariantsConfig
from studies.windows import WindowsConfig

PAGE = Path(__file__).parent / "configuration.md"
HEAD = """# Configuration

Made by `python -m docs.make_configuration` from the schema, [nutime_jax/config.py](../nutime_jax/config.py). Defaults are the
paper's values. A configuration file, such as [configs/quickstart.py](../configs/quickstart.py), sets only what differs from the
defaults. `--config.NAME=VALUE` overrides a field; `nutime pretrain --config=NAME --help` prints the values of a configuration. In
Python, `nutime_jax.load_config(NAME, ["NAME=VALUE"])` returns a frozen dataclass.

Values of tuples are separated by commas. *Resume* marks fields that may change when a run resumes, *encoder* fields of saved encoders.
"""
SCHEMAS: dict[str, type[Section]] = {
    "nutime pretrain": PretrainConfig,
    "nutime sweep": SweepConfig,
    "Fine-tuning": TuningSettings,
    "studies.objectives": VariantsConfig,
    "studies.windows": WindowsConfig,
    "studies.domains": DomainsConfig,
    "studies.scales": ScalesConfig,
}


def make_page() -> str:
    """Return the text of the page. Of further studies it lists only the fields that the first study does not have."""
    shown: set[str] = set()
    parts = [HEAD]
    for title, schema in SCHEMAS.items():
        study = title.startswith("studies.")
        rows = [_row(option) for name, option in options(schema).items() if not (study and name in shown)]
        shown |= set(options(schema)) if study else set()
        table = ["| field | default | accepted | meaning |", "|---|---|---|---|", *rows]
        parts.append("\n".join([f"## {title}\n", *table]) + "\n")
    return "\n".join(parts)


def _row(option: Option) -> str:
    text = "" if isinstance(option.default, dict) else format_value(option.default) or "empty"
    default = f"`{text}`" if text else ""
    marks = [mark for mark, marked in (("resume", option.resume), ("encoder", option.encoder)) if marked]
    meaning = option.meaning + (f" *({', '.join(marks)})*" if marks else "")
    return f"| `{option.name}` | {default} | {option.accepted} | {meaning} |"


if __name__ == "__main__":
    PAGE.write_text(make_page())
    print(f"written to docs/{PAGE.name}")
