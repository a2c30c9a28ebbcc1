"""The runtime port over the command line of runc, crun or youki.

Each method is one command (`_argv`), run to its end (`_command`), and an error told in
containerd's words (`_log`).  Rules:
  * A command of ours never outlives the call that started it.
  * Each command has a log of its own, so no error is ever another call's (containerd appends all
    to one log.json and may show a stale one).
  * A process that runc leaves to us is named inside `kernel.birth()`.  If the call fails or is
    cancelled after runc made one, it is killed.
  * Of a container its options and one fact are kept between `prepare` and `delete`; without them
    the options are decoded again.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ..abc import CheckpointSpec, Child, ContainerSpec, ExecSpec, Kernel, Runtime, Stdio
from ..errors import InvalidArgumentError
from . import _argv, _log
from ._argv import Program, Verb, Words
from ._bundle import MAX_CONFIG, Config, json_object, parse_config, process_json
from ._command import Command, Timeouts, run
from ._files import memory_file, read_end, read_file, read_pid, remove_directory, remove_file
from ._log import Result
from ._options import RuncOptions, parse_checkpoint_options, parse_options

DEFAULT_ROOT = "/run/containerd/runc"
_MAX_DUMP_LOG = 16 * 1024 * 1024
_log_to = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is remembered of a container.

    Attributes:
        options: decoded.
        outlived: processes can outlive its init, so that somebody has to kill them.
    """

    options: RuncOptions
    outlived: bool


class Runc(Runtime):
    """Containers run by runc, or by a program with the same command line.

    Args:
        kernel: starts the commands and names what they leave behind.
        namespace: containerd's namespace; the runtime keeps each one's state apart.
        default_root: where that state goes when the options do not say (`root`).
        timeouts: how long commands may take.
    """

    def __init__(
        self,
        kernel: Kernel,
        namespace: str,
        *,
        default_root: str = DEFAULT_ROOT,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.kernel = kernel
        self.namespace = namespace
        self.default_root = default_root
        self.timeouts = timeouts or Timeouts()
        self._calls = itertools.count(1)
        self._prepared: dict[str, _Prepared] = {}

    async def prepare(self, spec: ContainerSpec) -> None:
        """Check config.json; write `options.json` and `runtime`, which the delete action reads.

        Raises:
            InvalidArgumentError: no usable config.json, or options that cannot be decoded.
            OSError: the bundle cannot be written to.
        """
        config = _checked_config(f"{spec.bundle}/config.json")
        options = self._decode(spec)
        for note in options.notes:
            _log_to.warning("container %s: %s", spec.id, note)
        self.kernel.write_file(f"{spec.bundle}/options.json", options.to_json())
        self.kernel.write_file(f"{spec.bundle}/runtime", options.binary_name.encode())
        self._prepared[spec.bundle] = _Prepared(options, outlived=not config.own_pid_namespace)

    def io_owner(self, spec: ContainerSpec) -> tuple[int, int]:
        """The options' io_uid and io_gid."""
        options = self._options(spec)
        return options.io_uid, options.io_gid

    async def create(self, spec: ContainerSpec, stdio: Stdio) -> Child:
        pid_file = f"{spec.bundle}/init.pid"  # it stays: the delete action tells containerd the pid
        words = _argv.create(
            spec.id,
            self._options(spec),
            bundle=spec.bundle,
            pid_file=pid_file,
            console=stdio.console_socket,
        )
        return await self._birth(spec, words, stdio, pid_file)

    async def restore(self, spec: ContainerSpec, stdio: Stdio) -> Child:
        pid_file = f"{spec.bundle}/init.pid"
        words = _argv.restore(
            spec.id,
            self._options(spec),
            image=spec.checkpoint,
            bundle=spec.bundle,
            pid_file=pid_file,
            console=stdio.console_socket,
        )
        return await self._birth(spec, words, stdio, pid_file)

    async def exec(self, spec: ContainerSpec, process: ExecSpec, stdio: Stdio) -> Child:
        """Run one more process in a running container.

        Raises:
            InvalidArgumentError: the process is no JSON object, or its id is no file name.
        """
        if "/" in process.id or "\0" in process.id:
            raise InvalidArgumentError(f"exec id {process.id!r} must not contain a slash or a NUL")
        text = process_json(process)
        file = f"{spec.bundle}/exec.{next(self._calls)}.json"
        # Not <exec id>.pid, as in containerd: an exec called "init" would overwrite init.pid.
        pid_file = f"{spec.bundle}/exec-{process.id}.pid"
        words = _argv.exec_(spec.id, process=file, pid_file=pid_file, console=stdio.console_socket)
        try:
            self.kernel.write_file(file, text)
            return await self._birth(spec, words, stdio, pid_file)
        finally:
            remove_file(pid_file)
            remove_file(file)

    async def start(self, spec: ContainerSpec) -> None:
        result = await self._run(spec, _argv.start(spec.id))
        if result.status:
            raise _log.start_failed(result)

    # The port names `all`; `init` is for runtimes that have no command for this.
    async def kill(self, spec: ContainerSpec, init: Child, signum: int, *, all: bool) -> None:  # noqa: A002, ARG002
        result = await self._run(spec, _argv.kill(spec.id, signum, everyone=all))
        if result.status:
            raise _log.kill_failed(result)

    async def kill_remaining(self, spec: ContainerSpec) -> None:
        """Kill all processes of the container, unless the kernel did so when its init ended."""
        prepared = self._prepared.get(spec.bundle)
        # When in doubt it is done (as in containerd since 1.4): a kill too many hits nobody.
        if prepared is not None and not prepared.outlived:
            return
        result = await self._run(spec, _argv.kill(spec.id, 9, everyone=True))
        if result.status and not (result.no_process or result.no_container):
            raise _log.failed(result, "OCI runtime killall failed")

    async def delete(self, spec: ContainerSpec, *, force: bool = False) -> None:
        result = await self._run(spec, _argv.delete(spec.id, force=force))
        # A checkpoint that ends the container makes the runtime forget it.
        if result.status and not result.no_container:
            raise _log.failed(result)
        self._prepared.pop(spec.bundle, None)

    async def pause(self, spec: ContainerSpec) -> None:
        """Freeze all processes of the container."""
        result = await self._run(spec, _argv.pause(spec.id))
        if result.status:
            raise _log.failed(result)

    async def resume(self, spec: ContainerSpec) -> None:
        """Undo `pause`."""
        result = await self._run(spec, _argv.resume(spec.id))
        if result.status:
            raise _log.resume_failed(result)

    async def update(self, spec: ContainerSpec, resources: bytes) -> None:
        """New limits.

        Raises:
            InvalidArgumentError: the resources are no JSON object, or there are none.
        """
        try:
            json_object(resources)
        except ValueError as error:
            why = f"resources: {error}; send an OCI linux.resources object"
            raise InvalidArgumentError(why) from None
        with memory_file(resources) as fd:
            result = await self._run(spec, _argv.update(spec.id), fds={0: fd})
        if result.status:
            raise _log.failed_raw(result)

    async def checkpoint(self, spec: ContainerSpec, checkpoint: CheckpointSpec) -> None:
        """Write an image of the container to `checkpoint.path`."""
        options = parse_checkpoint_options(checkpoint.options)
        for note in options.notes:
            _log_to.warning("container %s: checkpoint: %s", spec.id, note)
        work = options.work_path or self._make_work(spec)
        words = _argv.checkpoint(spec.id, options, image=checkpoint.path, work=work)
        try:
            result = await self._run(spec, words)
            if result.status:
                raise _log.criu_failed(result, self._keep_dump_log(spec, work))
        finally:
            if not options.work_path:
                remove_directory(work)

    async def _birth(self, spec: ContainerSpec, words: Words, stdio: Stdio, pid_file: str) -> Child:
        """Run a command that leaves a process to us, and give it a name."""
        # With a terminal the container's output does not come through these fds; else they are
        # the container's own, and what went wrong is in the log.
        fds = None if stdio.console_socket else stdio.fds
        remove_file(pid_file)
        with self.kernel.birth():
            try:
                result = await self._run(spec, words, fds=fds or {}, capture=fds is None)
                if result.status:
                    raise _log.birth_failed(result)
                return self._adopt(result, pid_file)
            except BaseException:
                self._abandon(pid_file)
                raise

    def _adopt(self, result: Result, pid_file: str) -> Child:
        try:
            pid = read_pid(pid_file)
        except OSError as error:
            raise _log.no_pid(result.argv, f"open {pid_file}: {error.strerror}") from None
        except ValueError as error:
            raise _log.no_pid(result.argv, str(error)) from None
        try:
            return self.kernel.adopt(pid)
        except ProcessLookupError:
            why = f"the process named in {pid_file} is no child of this shim"
        except OSError as error:
            why = f"process {pid} was killed, nobody can wait for it: {error.strerror}"
        raise _log.no_pid(result.argv, why)

    def _abandon(self, pid_file: str) -> None:
        """Kill what a failed command may have left; the reaper collects it.  Inside `birth`."""
        with suppress(OSError, ValueError):  # no pid file, or nothing of ours: nothing was left
            child = self.kernel.adopt(read_pid(pid_file))
            try:
                child.signal(9)
            finally:
                child.close()

    async def _run(
        self,
        spec: ContainerSpec,
        words: Words,
        *,
        fds: Mapping[int, int] | None = None,
        capture: bool = True,
    ) -> Result:
        verb = Verb(words[0])
        with memory_file() as log:  # a full disk must not be in the way of a kill
            command = Command(
                verb=verb,
                argv=self._program(spec).argv(f"/proc/{os.getpid()}/fd/{log}", words),
                log=log,
                timeout=self.timeouts.of(verb),
                patience=self.timeouts.patience,
                fds=fds or {},
                capture=capture,
            )
            return await run(self.kernel, command)

    def _program(self, spec: ContainerSpec) -> Program:
        options = self._options(spec)
        return Program(
            binary=options.binary_name or "runc",
            root=f"{options.root or self.default_root}/{self.namespace}",
            criu=options.criu_path,
            systemd_cgroup=options.systemd_cgroup,
        )

    def _options(self, spec: ContainerSpec) -> RuncOptions:
        # Remembered, because options may name a file, and that may have changed since.
        prepared = self._prepared.get(spec.bundle)
        return prepared.options if prepared is not None else self._decode(spec)

    def _decode(self, spec: ContainerSpec) -> RuncOptions:
        options = parse_options(spec.options)
        if self.default_root == DEFAULT_ROOT:
            return options
        # The delete action knows only containerd's default and options.json.
        return replace(options, root=options.root or self.default_root)

    def _make_work(self, spec: ContainerSpec) -> str:
        # containerd makes <bundle>/work, others need not; runc makes only the last directory.
        self.kernel.make_directory(f"{spec.bundle}/work", 0o711)
        return f"{spec.bundle}/work/criu-work"

    def _keep_dump_log(self, spec: ContainerSpec, work: str) -> str:
        """Copy criu's log to where the user finds it."""
        kept = f"{spec.bundle}/criu-dump.log"
        with suppress(OSError):  # criu may not have come as far as to write one
            self.kernel.write_file(kept, read_end(f"{work}/dump.log", _MAX_DUMP_LOG))
        return kept


def _checked_config(path: str) -> Config:
    try:
        return parse_config(read_file(path, MAX_CONFIG))
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except ValueError as error:
        why = str(error)
    raise InvalidArgumentError(f"{path}: {why}; a bundle needs an OCI config.json")
