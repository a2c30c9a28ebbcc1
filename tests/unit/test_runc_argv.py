"""The command lines are those that runc, crun and youki understand."""

from trioshim.runc import RuncOptions, _argv
from trioshim.runc._argv import Program, Verb
from trioshim.runc._options import CheckpointOptions


def line(words: tuple[str, ...]) -> str:
    return " ".join(words)


def test_every_command_begins_with_root_and_a_log_of_its_own() -> None:
    """Without options the prefix is the program, its root and its log."""
    program = Program(binary="runc", root="/run/r/ns")
    assert line(program.argv("/b/l.json", _argv.start("c"))) == (
        "runc --root /run/r/ns --log /b/l.json --log-format json start c"
    )


def test_criu_and_systemd_cgroups_stand_in_front_of_the_verb() -> None:
    """They are global flags of runc and would be refused behind the verb."""
    program = Program(binary="crun", root="/r", criu="/opt/criu", systemd_cgroup=True)
    assert line(program.argv("/l", _argv.pause("c"))) == (
        "crun --root /r --log /l --log-format json --criu /opt/criu --systemd-cgroup pause c"
    )


def test_create_without_options() -> None:
    """Create names the bundle and the pid file, and nothing that was not asked for."""
    words = _argv.create("c", RuncOptions(), bundle="/b", pid_file="/b/init.pid")
    assert line(words) == "create --bundle /b --pid-file /b/init.pid c"


def test_create_with_a_console_and_all_options() -> None:
    """The console socket and both options of create are passed on."""
    options = RuncOptions(no_pivot_root=True, no_new_keyring=True)
    words = _argv.create("c", options, bundle="/b", pid_file="/p", console="/s")
    assert line(words) == (
        "create --bundle /b --pid-file /p --console-socket /s --no-pivot --no-new-keyring c"
    )


def test_exec_is_detached() -> None:
    """runc exec returns when the process runs, and says its pid in a file."""
    words = _argv.exec_("c", process="/b/p.json", pid_file="/b/e.pid", console="/s")
    assert line(words) == (
        "exec --process /b/p.json --console-socket /s --detach --pid-file /b/e.pid c"
    )


def test_restore_works_below_the_bundle_unless_told_otherwise() -> None:
    """criu's work directory is <bundle>/work, or the option's."""
    words = _argv.restore("c", RuncOptions(), image="/i", bundle="/b", pid_file="/p")
    assert line(words) == (
        "restore --image-path /i --work-path /b/work --detach --pid-file /p --no-subreaper"
        " --bundle /b c"
    )
    options = RuncOptions(criu_work_path="/w", no_pivot_root=True)
    words = _argv.restore("c", options, image="/i", bundle="/b", pid_file="/p", console="/s")
    assert line(words) == (
        "restore --image-path /i --work-path /w --detach --pid-file /p --console-socket /s"
        " --no-pivot --no-subreaper --bundle /b c"
    )


def test_kill_says_the_signal_as_a_number() -> None:
    """Signal names differ between runtimes; numbers do not."""
    assert line(_argv.kill("c", 15, everyone=False)) == "kill c 15"
    assert line(_argv.kill("c", 9, everyone=True)) == "kill --all c 9"


def test_delete_by_force_only_when_asked() -> None:
    """Force kills, so it has to be said."""
    assert line(_argv.delete("c", force=False)) == "delete c"
    assert line(_argv.delete("c", force=True)) == "delete --force c"


def test_update_reads_standard_input() -> None:
    """New limits are not written to a file."""
    assert line(_argv.update("c")) == "update --resources=- c"


def test_checkpoint_leaves_the_container_running_by_default() -> None:
    """The default of the message, exit=false, is a flag for runc."""
    words = _argv.checkpoint("c", CheckpointOptions(), image="/i", work="/w")
    assert line(words) == "checkpoint --image-path /i --work-path /w --leave-running c"


def test_checkpoint_with_all_options() -> None:
    """Each field of CheckpointOptions has its flag."""
    options = CheckpointOptions(
        exit=True,
        open_tcp=True,
        external_unix_sockets=True,
        terminal=True,
        file_locks=True,
        empty_namespaces=("network", "uts"),
        parent_path="../old",
    )
    assert line(_argv.checkpoint("c", options, image="/i", work="/w")) == (
        "checkpoint --image-path /i --work-path /w --parent-path ../old --tcp-established"
        " --ext-unix-sk --shell-job --file-locks --empty-ns network --empty-ns uts c"
    )


def test_every_command_begins_with_its_verb() -> None:
    """Deadlines and error texts are chosen by the first word."""
    commands = (
        _argv.create("c", RuncOptions(), bundle="/b", pid_file="/p"),
        _argv.start("c"),
        _argv.exec_("c", process="/x", pid_file="/p"),
        _argv.restore("c", RuncOptions(), image="/i", bundle="/b", pid_file="/p"),
        _argv.kill("c", 9, everyone=True),
        _argv.pause("c"),
        _argv.resume("c"),
        _argv.update("c"),
        _argv.checkpoint("c", CheckpointOptions(), image="/i", work="/w"),
        _argv.delete("c", force=False),
    )
    assert [Verb(words[0]) for words in commands] == list(Verb)
