"""Deriving Debian 13's package source from the machine's own, without fetching anything."""

import pytest

from devil.plugins.fetch_headers import FetchError, debian_sources, fetch


def apt(folder, one_line="", deb822=""):
    (folder / "sources.list.d").mkdir()
    (folder / "sources.list").write_text(one_line)
    (folder / "sources.list.d" / "debian.sources").write_text(deb822)
    return folder


def test_one_line_sources_keep_address_and_key_ring(tmp_path):
    folder = apt(
        tmp_path,
        "deb [arch=amd64 signed-by=/keys/a.gpg] http://mirror.example/debian bookworm main\n"
        "deb http://mirror.example/debian/ bookworm-updates main contrib\n"
        "deb http://mirror.example/debian-security bookworm-security main\n"
        "# deb http://commented.example/debian bookworm main\n"
        "deb-src http://sources.example/debian bookworm main\n",
    )
    assert debian_sources(folder) == (
        "deb [signed-by=/keys/a.gpg] http://mirror.example/debian trixie main\n"
        "deb http://mirror.example/debian trixie main\n"
    )


def test_deb822_sources_are_read_stanza_by_stanza(tmp_path):
    folder = apt(
        tmp_path,
        deb822="Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By: /keys/b.gpg\n\n"
        "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n\n"
        "Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n",
    )
    assert debian_sources(folder) == "deb [signed-by=/keys/b.gpg] http://mirror.example/debian trixie main\n"


def test_a_machine_without_debian_sources_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("devil.plugins.fetch_headers.debian_sources", lambda: "")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(FetchError, match="name no Debian archive"):
        fetch(tmp_path)


def test_a_machine_without_apt_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(FetchError, match="no apt"):
        fetch(tmp_path)


def test_a_header_that_is_there_already_is_not_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "onnxruntime_c_api.h").write_text("")
    assert fetch(tmp_path) == tmp_path / "onnxruntime"
