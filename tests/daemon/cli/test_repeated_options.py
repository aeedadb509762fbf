"""An option that takes one value and is given twice is refused, by every command of every program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from asd_daemon.cli.program import cli
from asd_daemon.cli.repeated_options import refuse_repeated_options
from asd_daemon.settings.plan import CommandLineOptions, make_plan
from rig.daemon import ask


def options(command: click.Command, words: list[str]) -> Iterator[tuple[list[str], click.Option]]:
    """Every option of every command, with the words that lead to it."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield words, parameter
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from options(below, [*words, name])


@pytest.mark.parametrize(
    ("words", "option"), [pytest.param(w, o, id=f"{' '.join(w)} {o.opts[-1]}") for w, o in options(cli, [])]
)
def test_option_given_twice_is_refused_unless_it_may_be(words: list[str], option: click.Option) -> None:
    twice = [*words, *([option.opts[-1]] if option.is_flag else [option.opts[-1], "1"]) * 2]
    if option.multiple or option.is_flag:
        refuse_repeated_options(cli, twice, "asd-daemon")
        return
    with pytest.raises(click.UsageError, match=f"{option.opts[-1]} is given 2 times; it takes one value") as refused:
        refuse_repeated_options(cli, twice, "asd-daemon")
    assert refused.value.ctx is not None
    assert refused.value.ctx.command_path == " ".join(["asd-daemon", *words])


def test_switch_given_both_ways_and_a_value_beside_its_equals_sign_are_refused() -> None:
    @click.command()
    @click.option("--fast/--slow", default=True)
    @click.option("--rate", "-r", type=float)
    def command(fast: bool, rate: float) -> None: ...

    for words in (["--fast", "--slow"], ["--rate=1", "-r", "2"], ["-r1", "--rate", "2"]):
        with pytest.raises(click.UsageError, match="is given 2 times"):
            refuse_repeated_options(command, words, "it")
    refuse_repeated_options(command, ["--fast", "--rate", "--rate"], "it")  # a value may look like an option


def test_refusal_is_one_line_that_names_the_command(tmp_path: Path) -> None:
    done = ask("run", "--machine", "fan", "--source", "simulate:fan", "--source", "simulate:valve", home=tmp_path)
    assert done.stderr == "error: --source is given 2 times; it takes one value (see asd-daemon run --help)\n"
    assert done.returncode == 2
    assert ask("run", "--log", "json", "--log", "text", "--help", home=tmp_path).returncode == 0


def test_machines_that_are_named_are_all_heard_as_they_are_configured(tmp_path: Path) -> None:
    file = tmp_path / "asd.yaml"
    file.write_text("machines: {fan: {source: {simulate: fan}}, mill: {source: {simulate: valve}}, saw: {}}\n")
    plan = make_plan(CommandLineOptions(config=file, machines=("mill", "fan")))
    assert {name: str(spec) for name, spec in plan.sources.items()} == {
        "mill": "simulate:valve",
        "fan": "simulate:fan",
    }
