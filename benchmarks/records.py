"""Records of benchmarks: results with machine, versions and commit."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def machine(*packages: str) -> dict[str, object]:
    """Return the commit, the processor, and the versions of packages."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "commit": git.stdout.strip(),
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def replace_tables(text: str, page: Path, *, maker: str) -> None:
    """Write tables into a page, between the marker of the script `maker` and the next end marker."""
    before, _, after = split_page(page, maker=maker)
    page.write_text(f"{before}\n\n{text}\n\n{after}")


def split_page(page: Path, *, maker: str) -> tuple[str, str, str]:
    """Return a page up to the marker of the script `maker`, the tables after it, and the page from the next end marker.

    Raises:
        ValueError: the page has no such marker.
    """
    begin, end = f"<!-- made by python -m {maker} -->", "<!-- end -->"
    before, marker, rest = page.read_text().partition(begin)
    if not marker:
        raise ValueError(f"{page} has no marker {begin}")
    tables, _, after = rest.partition(end)
    return before + begin, tables, end + after


def write_results(results: dict, out: Path | None) -> None:
    """Print results as JSON, and write them to a file if `out` is given."""
    text = json.dumps(results, indent=2)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
