"""Make docs/api.md from the docstrings of public names and from the flags of the commands.

    python -m docs.make_api

Sources are parsed, not imported (except the command line), so that the page does not depend on the environment.
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
HEAD = """# API

Made by `python -m docs.make_api` from the docstrings. `from nutime_jax import …` imports the names below; the aeon estimators are
in `nutime_jax.estimators.aeon`. Open tables for extensions: [extend.md](extend.md).
"""


def make_page() -> str:
    """Return the text of the page."""
    names = [_describe(name, nutime_jax._PUBLIC[name]) for name in nutime_jax.__all__]
    commands = [_describe_command(name, summary) for name, summary in COMMANDS.items()]
    links = ", ".join(f"[`{name}`](#{name.lower()})" for name in nutime_jax.__all__)
    listed = textwrap.fill(links, 120, break_long_words=False)
    return "\n".join([HEAD, f"{listed}\n", *names, "# Commands\n", *commands])


def _describe(name: str, module: str) -> str:
    """Return file, signature and docstring of a public function or class, and of its public methods."""
    path, node = _find(name, module)
    location = path.relative_to(ROOT).as_posix()
    lines = [f"## {name}\n", f"[{location}](../{location})\n", _code(_signature(node, name)), _docstring(node)]
    if isinstance(node, ast.ClassDef):
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                call = [] if _is_property(method) else [_code(_signature(method, method.name))]
                lines += [f"### {name}.{method.name}\n", *call, _docstring(method)]
    return "\n".join(lines)


def _find(name: str, module: str) -> tuple[Path, ast.ClassDef | ast.FunctionDef]:
    """Return file and definition of a name; imports are followed."""
    path = ROOT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return path, node
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return _find(name, node.module)
    raise LookupError(f"{module} defines no {name}")


def _signature(node: ast.ClassDef | ast.FunctionDef, name: str) -> str:
    """Return the call; if it is too long for one line, one argument per line."""
    if isinstance(node, ast.ClassDef):
        init = next((method for method in node.body if isinstance(method, ast.FunctionDef) and method.name == "__init__"), None)
        if init is None:
            fields = [_field(field) for field in node.body if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field)]
            fields = [re.sub(r" = (?:dataclasses\.)?field\(.*", " = …", field) for field in fields if not field.startswith("_")]
            return _wrapped(name, fields, "")
        node = init
    arguments = node.args
    arguments.args = [argument for argument in arguments.args if argument.arg not in ("self", "cls")]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    return _wrapped(name, _arguments(arguments), returns)


def _field(node: ast.AnnAssign) -> str:
    """Return a field of a dataclass; of an option of a configuration, annotation and default."""
    if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "option":
        return f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)} = {ast.unparse(node.value.args[0])}"
    return ast.unparse(node)


def _arguments(arguments: ast.arguments) -> list[str]:
    """Return one text per argument, with annotation and default."""
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    texts = [_argument(argument, default) for argument, default in zip(plain, defaults, strict=True)]
    if arguments.vararg:
        texts.append(f"*{ast.unparse(arguments.vararg)}")
    elif arguments.kwonlyargs:
        texts.append("*")
    texts += [_argument(argument, default) for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return texts + ([f"**{ast.unparse(arguments.kwarg)}"] if arguments.kwarg else [])


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + ("" if default is None else f" = {ast.unparse(default)}")


def _wrapped(name: str, arguments: list[str], returns: str) -> str:
    line = f"{name}({', '.join(arguments)}){returns}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {argument}," for argument in arguments), f"){returns}"])


def _is_property(node: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def _docstring(node: ast.ClassDef | ast.FunctionDef) -> str:
    return _prose(ast.get_docstring(node) or "")


def _prose(text: str) -> str:
    """Return a docstring as Markdown; blocks with indented lines keep their lines."""
    blocks: list[tuple[bool, str]] = []
    for block in text.strip().split("\n\n"):
        indented = any(line.startswith("    ") for line in block.splitlines())
        if indented and blocks and blocks[-1][0]:
            blocks[-1] = (True, f"{blocks[-1][1]}\n\n{block}")
        else:
            blocks.append((indented, block))
    return "\n".join(_code(block) if indented else f"{block}\n" for indented, block in blocks)


def _code(text: str) -> str:
    return f"```text\n{textwrap.dedent(text).rstrip()}\n```\n"


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    parser = argparse.ArgumentParser(prog=f"nutime {command}")
    importlib.import_module(f"nutime_jax.cli.{command}").add_arguments(parser)
    return parser


def actions_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the actions of a command, such as `data inspect`, by name."""
    nested = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return nested[0] if nested else {}


def _describe_command(name: str, summary: str) -> str:
    """Return docstring and flags of a command, or of its actions."""
    parser = parser_of(name)
    doc = inspect.getdoc(importlib.import_module(f"nutime_jax.cli.{name}")) or summary
    lines = [f"## nutime {name}\n", _prose(doc)]
    actions = actions_of(parser)
    for title, action in actions.items():
        lines += [f"### nutime {name} {title}\n", _prose(action.description or ""), _flags(action)]
    return "\n".join(lines if actions else [*lines, _flags(parser)])


def _flags(parser: argparse.ArgumentParser) -> str:
    """Return the flags of a parser as a table."""
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
