"""Phrases that are hard to understand do not return (docs/glossary.md has the terms and the style rules)."""

import io
import re
import tokenize

import pytest

from tests.contract.pages import ROOT

BANNED = {
    r"\btold (from|apart|by)\b|\btells? \w+ apart\b": "distinguished from",
    r"\btold to stop\b": "received SIGTERM",
    r"\b(on|for) the way back\b": "in the backward pass",
    r"\b(go|goes|going|went) on (where|from|with|elsewhere)\b": "resume",
    r"\bsame command (once more|goes on)\b": "rerun the same command",
    r"\bmade small\b": "minimised",
    r"\btwins?\b": "untrained baseline, PyTorch reference implementation",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\banew\b": "again, from scratch",
    r"\bin one move\b": "atomically",
    r"\bpassed over\b": "skipped",
    r"\b(has|have|had) \d\d\.\d\b": "scores",
    r"\b(series|cases?|steps?|samples?|pairs) an? (second|class|step|case|set|line)\b": "per",
    r"\b(labels|points|rows?|files?|nouns?|numbers?|features|tasks?|hours?|lines?) an? (class|window|file|set|case|run|row|second"
    r"|channel|process|chip|noun|line|step|series|cell|command|format|objective)\b": "per",
    r"\bis no (number|label|series|file|folder|encoder|set|dataset|share|whole|array|split|one|run|table)\w*\b": "is not a",
    r"\bof which there\b": "has no, not found",
    r"^ *\"\"\"(What|Where|Whatever|How|Whoever) ": "start with a noun or a verb",
    r"\bthe release('s|d code)?\b(?! of)": "the official implementation",
    r"\bas (released|published)\b": "paper default, official default",
    r"\bencoders? of scalars\b": "scalar encoder",
    r"\bside by side\b": "concatenated, in parallel, non-overlapping",
    r"\bways? of reading\b|\bread alike\b": "feature settings",
    r"\bhidden (windows?|tokens?|places)\b|\bwindows? (that are |are )?hidden\b": "masked",
    r"\bdistort(s|ed|ion|ions|ing)?\b": "augment",
    r"\b(are|is|were|was) not here\b": "you do not have",
    r"\bby the compiler\b|\bat peaks\b": "compiler estimate, roofline estimate",
    r"\bbehind the run's back\b": "asynchronously",
    r"\bcarved?s?\b": "held out from",
    r"\bin a sentence\b|\bwithout a word\b": "with an error message, silently",
    r"\bmonitored (series|sets?|points)\b": "point anomaly",
    r"\bcompany\b": "batch composition",
    r"\bdeal(s|t)?\b": "split, assign",
    r"\b(to seal|seals|sealed)\b": "bundle",
    r"\bdrills?\b": "fault-injection test",
    r"\bas likely as any other\b": "sampled uniformly",
    r"\bstands? alone\b": "self-contained",
    r"\bforeign\b": "unexpected",
    r"\bresident\b": "on-device",
    r"\bexchanges?\b": "collective communication",
    r"(?<![`{.])\bdecades?\b(?! is|,)": "order of magnitude, log10 units",
    r"(?<![-`])\bblind\b": "insensitive to",
    r"\b(eight shifts|several shifts|at \w+ shifts)\b": "window offsets",
    r"\bwhat (it|they|he) (is|are) worth\b|\bwhat \w+ makes of\b": "results, output of",
    r"\bso many\b|\bso much\b": "N, the requested number",
}
"""Regular expression (multi-line, any case) -> standard wording."""

FOLDERS = ("nutime_jax", "configs", "docs", "launch", "benchmarks", "studies", "notebooks")
SUFFIXES = (".py", ".md", ".sh", ".sbatch", ".yaml", ".yml")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)
FILES += [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "setup.cfg"]


def prose(path):
    """Return comments, docstrings and strings of Python; the full text of other files; the unreleased part of CHANGELOG."""
    text = path.read_text()
    if path.name == "CHANGELOG.md":
        return text.partition("\n### Renamed")[0]
    if path.suffix == ".md":
        return re.sub(r"^#+ .*$", "", text, flags=re.MULTILINE)  # titles may be questions
    if path.suffix != ".py":
        return text
    kinds = [tokenize.COMMENT, tokenize.STRING]
    kinds += [tokenize.FSTRING_MIDDLE] if hasattr(tokenize, "FSTRING_MIDDLE") else []
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join(token.string for token in tokens if token.type in kinds)


def find_banned(text):
    return [
        f"{match[0]!r}: write {better}"
        for pattern, better in BANNED.items()
        for match in re.finditer(pattern, text, re.MULTILINE | re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_language(path):
    assert not find_banned(prose(path))
