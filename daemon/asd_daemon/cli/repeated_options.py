"""An option that takes one value and is given twice is refused: click would silently forget the first.

It holds for every command of a program, and asks nothing of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click


def refuse_repeated_options(
    command: click.Command, words: Sequence[str], name: str | None, parent: click.Context | None = None
) -> None:
    """Look through the words of a command line, down to the innermost command, before any of them counts.

    Args:
        command: the program, or one of its commands.
        words: what stands behind it.
        name: as it was called.
        parent: the group that it was found in.

    Raises:
        click.UsageError: an option that takes one value, or both sides of a switch, is given twice.
    """
    context = click.Context(command, parent, name, resilient_parsing=True)  # what else is wrong is found when it is run
    _, rest, given = command.make_parser(context).parse_args(list(words))
    options = [option for option in given if isinstance(option, click.Option)]
    if any(option.is_eager for option in options):  # --help and --version want no more than an answer
        return
    for option, count in Counter(options).items():
        if count > 1 and not option.multiple and not option.count and (not option.is_flag or option.secondary_opts):
            flag = max(option.opts, key=len)
            raise click.UsageError(f"{flag} is given {count} times; it takes one value", context)
    if isinstance(command, click.Group) and rest:
        found = command.get_command(context, rest[0])
        if found is not None:
            refuse_repeated_options(found, rest[1:], rest[0], context)
