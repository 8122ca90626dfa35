"""``leekfanout completion``: a script that lets a shell complete leekfanout's command lines."""

import argparse

from leekfanout.cli import build_parser
from leekfanout.terminal import completion


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the argument."""
    parser.epilog = (
        "bash, in ~/.bashrc: source <(leekfanout completion bash). "
        "zsh, in ~/.zshrc after compinit: source <(leekfanout completion zsh). "
        "fish: leekfanout completion fish > ~/.config/fish/completions/leekfanout.fish"
    )
    parser.add_argument("shell", choices=completion.SHELLS, help="whose script to print")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    parser = build_parser()
    print(completion.script(args.shell, parser.prog, parser), end="")
    return 0
