"""Results as a table on the terminal and as a CSV file."""

import csv
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nutime_jax.evaluation.sweep import Result


def write_csv(results: Sequence[Result], path: Path) -> None:
    """Writes one row a result, replacing the file in one move."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Result)])
        writer.writeheader()
        for result in results:
            writer.writerow({**dataclasses.asdict(result), "accuracy": f"{result.accuracy:.6f}"})
    os.replace(temporary, path)


def format_table(results: Sequence[Result], columns: dict[tuple[str, str], str]) -> str:
    """Accuracies in percent, a row a set and their mean below.

    Args:
        columns: (method, probe) -> heading.
    """
    cells = {(result.dataset, result.method, result.probe): result.accuracy for result in results}
    names = list(dict.fromkeys(result.dataset for result in results))
    rows = [[cells[name, *key] for key in columns] for name in names]
    table = [["set", *columns.values()]]
    table += [[name, *(f"{100 * value:.1f}" for value in row)] for name, row in zip(names, rows, strict=True)]
    table += [[f"mean of {len(names)}", *(f"{100 * value:.1f}" for value in np.mean(rows, axis=0))]]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]) for row in table]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
