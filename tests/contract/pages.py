"""Read and run the blocks of code of a page."""

import contextlib
import io
import re
import shlex
from pathlib import Path

from nutime_jax.cli.main import main

ROOT = Path(__file__).parents[2]
QUICK = {
    "pretrain": [
        *("--config=smoke", "--devices=1", "--config.model.depth=1", "--config.steps=3"),
        *("--config.run.probe_every=0", "--config.evaluation.sources="),
    ],
    "fit": ["--strategy=head", "--epochs=1", "--learning_rates=1e-3"],
    "sweep": ["--config.protocols=ridge", "--config.baselines=raw_1nn", "--config.sources=GunPoint"],
}
"""Arguments that shorten a command to seconds; of a repeated flag the last counts."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return language and text of every block of code, in order."""
    return re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL)


def commands(text: str) -> list[str]:
    """Return the commands of a block, one per line or joined by &&."""
    lines = text.replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines if not line.startswith("#") for part in line.split("&&") if part.strip()]


def shell_commands(page: Path) -> list[str]:
    return [line for language, text in blocks(page) if language == "bash" for line in commands(text)]


def run_page(page: Path, *, skip: tuple[str, ...] = ()) -> tuple[dict, list[str]]:
    """Run a page from top to bottom. Python names last from block to block.

    Args:
        page: the page.
        skip: subcommands of nutime that are not run.

    Returns:
        The names, and what each block of Python printed.
    """
    names, printed = {}, []
    for number, (language, text) in enumerate(blocks(page)):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, f"{page.name}, block {number}", "exec"), names)
            printed.append(out.getvalue())
        elif language == "bash":
            for line in commands(text):
                program, *argv = shlex.split(line)
                if program == "nutime" and argv[0] not in skip:
                    quick = [] if argv[0] == "fit" and "--strategy=full" not in argv else QUICK.get(argv[0], [])
                    assert main([*argv, *quick]) == 0, line
    return names, printed
