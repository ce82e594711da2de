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

Made by `python -m docs.make_configuration` from the schema, [nutime_jax/config.py](../nutime_jax/config.py). A file of a
configuration, such as [configs/quickstart.py](../configs/quickstart.py), sets only what differs from the defaults, which
are the published values. `--config.NAME=VALUE` overrides a field, and `nutime pretrain --config=NAME --help` prints the
values of a configuration. In Python, `nutime_jax.load_config(NAME, ["NAME=VALUE"])` returns a frozen dataclass.

Values of tuples are separated by commas. "resume" marks fields that may change when a run resumes, "encoder" those that a
saved encoder has.
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
    """Return the text of the page; of a study after the first, the fields that it alone has."""
    shown: set[str] = set()
    parts = [HEAD]
    for title, schema in SCHEMAS.items():
        study = title.startswith("studies.")
        rows = [_row(one) for name, one in options(schema).items() if not (study and name in shown)]
        shown |= set(options(schema)) if study else set()
        table = ["| field | default | accepted | meaning |", "|---|---|---|---|", *rows]
        parts.append("\n".join([f"## {title}\n", *table]) + "\n")
    return "\n".join(parts)


def _row(one: Option) -> str:
    text = "" if isinstance(one.default, dict) else format_value(one.default) or "empty"
    default = f"`{text}`" if text else ""
    marks = [mark for mark, marked in (("resume", one.resume), ("encoder", one.encoder)) if marked]
    meaning = one.meaning + (f" *({', '.join(marks)})*" if marks else "")
    return f"| `{one.name}` | {default} | {one.accepted} | {meaning} |"


if __name__ == "__main__":
    PAGE.write_text(make_page())
    print(f"written to docs/{PAGE.name}")
