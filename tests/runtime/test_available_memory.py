"""What is free, told from the files that Linux shows; played on folders that look like a machine's."""

import os

import pytest

from devil.runtime.available_memory import available_memory

GB = 1 << 30


def machine(folder, groups, own="0::/", free=8):
    """A root folder: `groups` are (path, limit, used, of which inactive_file) in GB."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/meminfo").write_text(f"MemTotal: 999 kB\nMemAvailable: {free * GB >> 10} kB\n")
    (folder / "proc/self/cgroup").write_text(own + "\n")
    for path, limit, used, cached in groups:
        group = folder / "sys/fs/cgroup" / path
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.max").write_text(f"{limit if limit == 'max' else limit * GB}\n")
        (group / "memory.current").write_text(f"{used * GB}\n")
        (group / "memory.stat").write_text(f"anon 5\ninactive_file {cached * GB}\nactive_file 7\n")
    return folder


def test_free_memory_is_some_but_not_more_than_the_machine_has():
    assert 1 << 20 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("groups", "own", "left"),
    [
        ([], "0::/", 8),
        ([("", "max", 90, 0)], "0::/", 8),
        ([("", 6, 2, 0)], "0::/", 4),
        ([("", 6, 5, 3)], "0::/", 4),  # the page cache is given back on demand
        ([("", 100, 2, 0)], "0::/", 8),
        ([("", 6, 7, 0)], "0::/", 0),
        ([("a", "max", 1, 0), ("a/b", 5, 2, 0)], "0::/a/b", 3),
        ([("a", 5, 3, 1), ("a/b", 5, 1, 0)], "0::/a/b", 3),  # a group around ours is fuller
        ([("other", 2, 1, 0)], "0::/a", 8),
        ([("", 2, 1, 0)], "4:memory:/a", 8),  # version 1 alone
        ([("a", 5, 2, 0)], "4:memory:/x\n0::/a", 3),
    ],
)
def test_what_control_groups_leave(groups, own, left, tmp_path):
    assert available_memory(machine(tmp_path, groups, own)) == left * GB


def test_without_linux_the_whole_memory_counts_and_without_posix_nothing_is_known(tmp_path, monkeypatch):
    assert available_memory(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.delattr("os.sysconf")
    assert available_memory(tmp_path) is None
