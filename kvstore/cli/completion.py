"""kvctl completion bash|zsh|fish|powershell: the script that has a shell ask kvctl what could come next.

click has the scripts and gives the answers; PowerShell's came with its release 8.5.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from kvstore.cli.failures import BAD_FEATURE, CommandFailed, bad_arguments
from kvstore.cli.options import Verb

SHELLS = ("bash", "zsh", "fish", "powershell")
VARIABLE = "_KVCTL_COMPLETE"

EXAMPLE = """\b
Examples:
  source <(kvctl completion bash)
  kvctl completion zsh > "${fpath[1]}/_kvctl"
  kvctl completion fish > ~/.config/fish/completions/kvctl.fish
  kvctl completion powershell | Out-String | Invoke-Expression"""


@click.command("completion", cls=Verb, epilog=EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="bash|zsh|fish|powershell")
@click.option("--no-descriptions", is_flag=True, help="Accepted; how much is shown is the shell's to say.")
@click.pass_context
def completion(context: click.Context, arguments: tuple[str, ...], no_descriptions: bool) -> None:
    """Print the script that completes kvctl's commands and flags in a shell."""
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise bad_arguments(f"completion takes one of {', '.join(SHELLS)}")
    shell = get_completion_class(arguments[0])
    if shell is None:
        raise CommandFailed(f"the installed click does not know {arguments[0]}: click 8.5 does", BAD_FEATURE)
    if arguments[0] == "bash":
        # click asks the bash of this machine for its version here; the script may be for another's.
        shell = type("Bash", (shell,), {"_check_version": staticmethod(lambda: None)})
    click.echo(shell(context.find_root().command, {}, "kvctl", VARIABLE).source())
