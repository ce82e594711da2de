"""Print a script that completes commands and flags in bash or zsh.

    source <(nutime completion bash)
    source <(nutime completion zsh)

Add the line to ~/.bashrc or ~/.zshrc.
"""

import argparse

SHELLS = ("bash", "zsh")
SCRIPT = """_nutime() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{commands}"
  else
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace 2>/dev/null
}}
complete -o default -F _nutime nutime"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash or zsh")


def run(args: argparse.Namespace) -> None:
    if args.shell == "zsh":
        print("autoload -Uz compinit bashcompinit && compinit && bashcompinit")
    print(make_script())


def make_script() -> str:
    """Return the function of bash, which zsh runs as well, with all commands and flags."""
    from nutime_jax.cli.main import COMMANDS, list_flags, make_parser

    cases = []
    for name in COMMANDS:
        command = make_parser([name])._subparsers._group_actions[0].choices[name]
        actions = [a for action in command._actions if isinstance(action, argparse._SubParsersAction) for a in action.choices]
        flags = list(dict.fromkeys(list_flags(command)))
        cases.append(f'    {name}) words="{" ".join([*actions, *flags])}" ;;')
    return SCRIPT.format(commands=" ".join(COMMANDS), cases="\n".join(cases))
