"""Kafka's jars are exactly those this release was tested with, or there is no start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stepstream.local.embedded.errors import JarChecksum, JarMissing
from stepstream.local.embedded.fetch import KAFKA_VERSION
from stepstream.local.embedded.jars import class_path, wanted


def stand_ins(folder: Path) -> Path:
    """A folder with files of the right names and the wrong contents."""
    folder.mkdir()
    for jar in wanted():
        (folder / jar.name).write_bytes(b"not a jar")
    return folder


def test_the_list_is_whole() -> None:
    """Every jar has its checksum and Maven coordinate.

    Kafka is among them in the stated version.
    """
    jars = wanted()
    assert len(jars) == len({jar.name for jar in jars}) >= 44
    assert all(
        len(jar.sha256) == 64 and jar.path.endswith(f"{jar.coordinate[1]}-{jar.coordinate[2]}.jar")
        for jar in jars
    )
    assert ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION) in [jar.coordinate for jar in jars]


def test_a_jar_with_another_checksum_is_refused(tmp_path: Path) -> None:
    """The file and both checksums are named; nothing is remembered as verified."""
    folder = stand_ins(tmp_path / "jars")
    # Twice: a failed check must not be remembered as a good one.
    for _ in range(2):
        with pytest.raises(
            JarChecksum, match=rf"{folder}.* its SHA-256 is [0-9a-f]{{64}}, expected [0-9a-f]{{64}}"
        ):
            class_path(folder, cache=tmp_path / "cache")


def test_missing_jars_are_named(tmp_path: Path) -> None:
    """The error lists the missing jars and where to get them."""
    with pytest.raises(JarMissing, match="does not exist"):
        class_path(tmp_path / "nowhere", cache=tmp_path / "cache")
    folder = stand_ins(tmp_path / "jars")
    (folder / f"kafka_2.13-{KAFKA_VERSION}.jar").unlink()
    with pytest.raises(
        JarMissing, match=rf"1 of \d+ jars are not in {folder}: kafka_2\.13-{KAFKA_VERSION}\.jar"
    ):
        class_path(folder, cache=tmp_path / "cache")


def test_a_missing_network_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, the first start lists its downloads and the alternative; nothing is left behind."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        # A proxy that refuses: the download fails without leaving this machine.
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    logged: list[str] = []
    with pytest.raises(JarMissing, match=r"could not fetch .*kafka_jars_dir"):
        class_path(cache=tmp_path, log=logged.append)
    assert logged
    assert os.listdir(tmp_path) == []


def test_a_damaged_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached jar with a wrong checksum is never used: a download is tried instead."""
    cache = stand_ins(tmp_path / "cache")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(JarMissing, match="could not fetch"):
        class_path(cache=cache, log=lambda _line: None)
