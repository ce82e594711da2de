"""Makes docs/api.md of the docstrings of the public names and of the flags of the commands.

    python -m docs.make_api

Sources are read and not imported, but for the command line, so that the page is the same wherever it is made.
"""

import argparse
import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import nutime_jax
from nutime_jax.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"


def make_page() -> str:
    """The text of the page."""
    names = [_describe(name, nutime_jax._PUBLIC[name]) for name in nutime_jax.__all__]
    commands = [_describe_command(name, summary) for name, summary in COMMANDS.items()]
    head = "# API\n\nMade by `python -m docs.make_api` of the docstrings; `from nutime_jax import …` takes the names.\n"
    listed = textwrap.fill(", ".join(f"[`{name}`](#{name.lower()})" for name in nutime_jax.__all__), 120, break_long_words=False)
    return "\n".join([head, f"{listed}\n", *names, "# Commands\n", *commands])


def _describe(name: str, module: str) -> str:
    """A public function or class: where it is, how it is called, what its docstring says, and its public methods."""
    path, node = _find(name, module)
    place = path.relative_to(ROOT).as_posix()
    lines = [f"## {name}\n", f"[{place}](../{place})\n", _code(_signature(node, name)), _docstring(node)]
    if isinstance(node, ast.ClassDef):
        methods = [one for one in node.body if isinstance(one, ast.FunctionDef) and not one.name.startswith("_")]
        for one in methods:
            if _is_property(one):
                lines += [f"### {name}.{one.name}\n", _docstring(one)]
            else:
                lines += [f"### {name}.{one.name}\n", _code(_signature(one, one.name)), _docstring(one)]
    return "\n".join(lines)


def _find(name: str, module: str) -> tuple[Path, ast.ClassDef | ast.FunctionDef]:
    """The file and the definition of a name; where a module only hands it on, those of the module it comes from."""
    path = ROOT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return path, node
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return _find(name, node.module)
    raise LookupError(f"{module} defines no {name}")


def _signature(node: ast.ClassDef | ast.FunctionDef, name: str) -> str:
    """How it is called, an argument a line where one line is too short for all."""
    if isinstance(node, ast.ClassDef):
        made = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        if made is None:
            fields = [one for one in node.body if isinstance(one, ast.AnnAssign) and "ClassVar" not in ast.unparse(one)]
            fields = [_field(one) for one in fields]
            fields = [re.sub(r" = (?:dataclasses\.)?field\(.*", " = …", one) for one in fields if not one.startswith("_")]
            return _wrapped(name, fields, "")
        node = made
    arguments = node.args
    arguments.args = [one for one in arguments.args if one.arg not in ("self", "cls")]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return _wrapped(name, _arguments(arguments), "" if node.name == "__init__" else returns)


def _field(node: ast.AnnAssign) -> str:
    """A field of a dataclass; an option of a configuration by its default alone."""
    if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "option":
        return f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)} = {ast.unparse(node.value.args[0])}"
    return ast.unparse(node)


def _arguments(arguments: ast.arguments) -> list[str]:
    """An argument each, with its annotation and default."""
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    texts = [_argument(one, default) for one, default in zip(plain, defaults, strict=True)]
    if arguments.vararg:
        texts.append(f"*{ast.unparse(arguments.vararg)}")
    elif arguments.kwonlyargs:
        texts.append("*")
    texts += [_argument(one, default) for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return texts + ([f"**{ast.unparse(arguments.kwarg)}"] if arguments.kwarg else [])


def _argument(one: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(one) + ("" if default is None else f" = {ast.unparse(default)}")


def _wrapped(name: str, arguments: list[str], returns: str) -> str:
    line = f"{name}({', '.join(arguments)}){returns}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {one}," for one in arguments), f"){returns}"])


def _is_property(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(one) == "property" for one in node.decorator_list)


def _docstring(node: ast.ClassDef | ast.FunctionDef) -> str:
    return _prose(ast.get_docstring(node) or "")


def _prose(text: str) -> str:
    """A docstring in Markdown: blocks with lines that are indented keep their lines."""
    blocks: list[tuple[bool, str]] = []
    for block in text.strip().split("\n\n"):
        kept = any(line.startswith("    ") for line in block.splitlines())
        if kept and blocks and blocks[-1][0]:
            blocks[-1] = (True, f"{blocks[-1][1]}\n\n{block}")
        else:
            blocks.append((kept, block))
    return "\n".join(_code(block) if kept else f"{block}\n" for kept, block in blocks)


def _code(text: str) -> str:
    return f"```text\n{textwrap.dedent(text).rstrip()}\n```\n"


def _describe_command(name: str, summary: str) -> str:
    """A command: its docstring and its flags, those of its actions under these."""
    module = importlib.import_module(f"nutime_jax.cli.{name}")
    parser = argparse.ArgumentParser(prog=f"nutime {name}")
    module.add_arguments(parser)
    lines = [f"## nutime {name}\n", _prose(inspect.getdoc(module) or summary)]
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in nested:
        for title, one in action.choices.items():
            lines += [f"### nutime {name} {title}\n", _prose(one.description or ""), _flags(one)]
    return "\n".join(lines if nested else [*lines, _flags(parser)])


def _flags(parser: argparse.ArgumentParser) -> str:
    """The flags of a parser as a table."""
    rows = ["| flag | |", "|---|---|"]
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            flag = ", ".join(action.option_strings) or (action.metavar or action.dest)
            needed = " (required)" if action.required and action.option_strings else ""
            rows.append(f"| `{flag}` | {_cell(action.help or '')}{needed} |")
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("%%", "%").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(make_page())
    print(f"written to {PAGE.relative_to(ROOT)}")
