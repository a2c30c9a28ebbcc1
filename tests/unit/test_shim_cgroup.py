"""The cgroup that the options name for the shim: inside of each hierarchy, made and joined."""

from __future__ import annotations

from pathlib import Path

import pytest

from trioshim import bootstrap
from trioshim.bootstrap import read_bootstrap
from trioshim.bootstrap._shim_cgroup import join_cgroup
from trioshim.proto.runc_options_pb2 import Options as RuncOptions

from .bootstrap_world import ID, NS, any_of


def test_the_shim_cgroup_stays_in_the_hierarchy() -> None:
    """`..` is refused, leading slashes mean nothing."""
    options = RuncOptions(shim_cgroup="/a/../../b").SerializeToString()
    told = read_bootstrap(any_of("containerd.runc.v1.Options", options), ID, NS)
    with pytest.raises(ValueError, match=r"must not contain '\.\.'"):
        bootstrap.shim_cgroup(told)


def test_the_cgroup_is_made_and_joined_everywhere(tmp_path: Path) -> None:
    """One membership in each hierarchy; the way there is made."""
    roots = [tmp_path / "memory", tmp_path / "pids"]
    join_cgroup("a/b", 4711, map(str, roots), legacy=True)
    assert [(root / "a/b/cgroup.procs").read_text() for root in roots] == ["4711", "4711"]


def test_a_new_cpuset_is_filled_before_it_is_joined(tmp_path: Path) -> None:
    """An empty cpuset of version 1 takes no process; one that is filled keeps what it has."""
    inner = tmp_path / "a"
    inner.mkdir()
    for name, outer_text, inner_text in (("cpus", "0-3\n", "\n"), ("mems", "0\n", "1\n")):
        (tmp_path / f"cpuset.{name}").write_text(outer_text)
        (inner / f"cpuset.{name}").write_text(inner_text)
    join_cgroup("a", 1, [str(tmp_path)], legacy=False)
    assert (inner / "cpuset.cpus").read_text() == "\n"
    join_cgroup("a", 1, [str(tmp_path)], legacy=True)
    assert (inner / "cpuset.cpus").read_text() == "0-3\n"
    assert (inner / "cpuset.mems").read_text() == "1\n"
