"""The command line is read as Go reads it, and what is no identifier gets no further."""

from __future__ import annotations

import pytest

from trioshim import bootstrap
from trioshim.bootstrap import Arguments, Verb, parse_arguments

from .bootstrap_world import COMMON, ID, NS


@pytest.mark.parametrize(
    "argv",
    [
        ["-id", ID, "-namespace", NS, "-debug"],
        ["--id", ID, "--namespace", NS, "--debug"],
        ["-id=" + ID, "--namespace=" + NS, "-debug=true"],
        ["-debug=1", "-id", "other", "-id", ID, "-namespace", NS, "--"],
    ],
)
def test_flags_are_read_as_go_reads_them(argv: list[str]) -> None:
    """One dash or two, with `=` or a space; the last one counts."""
    assert parse_arguments(argv) == Arguments(Verb.SERVE, NS, ID, debug=True)


def test_a_flag_after_the_action_belongs_to_the_action() -> None:
    """Go stops to read flags at the first word that is none."""
    assert parse_arguments([*COMMON, "delete", "-debug"]) == parse_arguments([*COMMON, "delete"])
    assert parse_arguments([*COMMON, "delete"]).verb is Verb.DELETE


def test_a_value_may_look_like_a_flag_or_an_action() -> None:
    """The word after a flag with a value is the value."""
    arguments = parse_arguments(["-id", "start", "-namespace", "-debug", "-bundle", "/b", "delete"])
    assert (arguments.id, arguments.namespace, arguments.debug) == ("start", "-debug", False)
    assert arguments.bundle == "/b"


@pytest.mark.parametrize(
    ("argv", "verb"),
    [
        (["-v"], Verb.VERSION),
        (["-version"], Verb.VERSION),
        (["-info"], Verb.INFO),
        (["-v=false"], Verb.SERVE),
        (["-unknown", "start"], Verb.START),
        (["-unknown", "-debug", "delete"], Verb.DELETE),
        (["-socket", "/s", "-debug-socket", "/d"], Verb.SERVE),
    ],
)
def test_the_verb_is_found(argv: list[str], verb: Verb) -> None:
    """An action, a flag that is one, or nothing at all; unknown flags do not hide it."""
    assert parse_arguments(argv).verb is verb


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["-id"], "flag -id needs a value"),
        (["-debug=maybe", "start"], "-debug is true or false, not 'maybe'"),
        (["---id", "x"], "bad flag syntax: ---id"),
        (["-=x"], "bad flag syntax: -=x"),
        (["stop"], "unknown action 'stop'"),
        (["-", "start"], "unknown action '-'"),
    ],
)
def test_a_bad_command_line_is_explained(argv: list[str], complaint: str) -> None:
    """The error says which word is wrong."""
    with pytest.raises(ValueError, match=complaint):
        parse_arguments(argv)


def test_arguments_cannot_be_changed() -> None:
    """What was said stays said."""
    with pytest.raises(AttributeError):
        Arguments().id = "x"


@pytest.mark.parametrize("name", ["a", "A9", "a.b-c_d", "0" * 76, "k8s.io", "moby"])
def test_identifiers(name: str) -> None:
    """What containerd calls a container is accepted."""
    bootstrap.check_identifier(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../../x",
        "a/b",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a--b",
        "a b",
        "a\n",
        "é",
        "0" * 77,
        "٣",
    ],
)
@pytest.mark.parametrize("where", ["namespace", "id"])
def test_what_is_no_identifier_is_refused(name: str, where: str) -> None:
    """Neither a path nor a flag can come in as an id or a namespace."""
    arguments = Arguments(Verb.START, NS, ID).replace(**{where: name})
    with pytest.raises(ValueError, match=rf"shim {where} \(-{where}\)"):
        bootstrap.check_arguments(arguments)


def test_version_and_info_need_no_namespace() -> None:
    """Serving needs no id; these two need nothing."""
    for verb in (Verb.VERSION, Verb.INFO):
        bootstrap.check_arguments(Arguments(verb))
    bootstrap.check_arguments(Arguments(Verb.SERVE, NS))
