"""Releases on the topic of a real broker: published, labelled, followed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3

from stepstream.cli.app import run
from stepstream.common.kafka import Outgoing, producer, send_and_wait
from stepstream.common.web.credentials import Credentials, new_credential, save, token_of
from stepstream.producers.exceptions import ReleaseUnavailable
from stepstream.producers.gateway.service import releases as gateway_releases
from stepstream.producers.tracer import Tracer
from stepstream.releases.topic import ReleaseConflict, publish, read_log
from stepstream.schemas import release_log
from stepstream.schemas.release import decode_release
from stepstream.schemas.release_log import Bounds
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RELEASE_ATTRIBUTE
from stepstream.schemas.topics import topic
from tests.support.gateway import running, stored_steps
from tests.support.processes import wait_until
from tests.support.release_folder import built, write_folder
from tests.support.release_labels import labelled
from tests.support.worker_world import World


def test_a_release_is_published_once_and_never_changes(settings: Settings, tmp_path: Path) -> None:
    """The same content again does nothing; other content under the version is refused."""
    first = built(tmp_path / "a")
    assert publish(settings, first) == "published"
    assert publish(settings, built(tmp_path / "b")) == "unchanged"
    with pytest.raises(ReleaseConflict, match="choose another version"):
        publish(settings, built(tmp_path / "c", tone="Be brief."))
    second = built(tmp_path / "d", "v13")
    assert publish(settings, second) == "published"
    log = read_log(settings)
    assert [one.release for one in log.releases("support")] == [first, second]
    assert log.find("support", "v12") == first
    assert log.find("support", second.hash[:8]) == second


def test_the_command_publishes(
    settings: Settings, place: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """``build --publish`` puts it on the topic; another content under the version is an error."""
    folder = write_folder(tmp_path)
    assert run(["build", str(folder), "--publish", *place]) == 0
    assert "support@v12 is published" in capfd.readouterr().err
    assert run(["build", str(folder), "--publish", *place]) == 0
    assert "was published before" in capfd.readouterr().err
    (folder / "prompts" / "tone.md").write_text("Be brief.")
    assert run(["build", str(folder), "--publish", *place]) == 1
    assert "choose another version" in capfd.readouterr().err
    assert [one.release.version for one in read_log(settings).releases("support")] == ["v12"]


def test_records_that_are_no_releases_hide_nothing(settings: Settings, tmp_path: Path) -> None:
    """A record that was changed on the way, and others that cannot be read, count for nothing."""
    good = built(tmp_path)
    data = good.model_dump_json().replace("Be kind", "Be rude").encode()
    records = [
        (f"release/support@{good.hash}", data),
        ("release/support@x", b"{"),
        ("release/support", b"[]"),
        ("promotion/support/1", b"null"),
        ("nothing", b"1"),
        ("", None),
    ]
    name = topic(settings.topic_prefix, "releases")
    outgoing = [Outgoing(name, key.encode(), value) for key, value in records]
    send_and_wait(producer(settings), outgoing, 30)
    assert read_log(settings).releases("support") == []
    assert publish(settings, good) == "published"
    assert [one.release for one in read_log(settings).releases("support")] == [good]


def test_the_labels_of_a_release(
    kafka_bootstrap: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By the commands and a real worker: promoted, refused by a gate, overridden, rolled back,
    and all of it in the history; also after the worker was killed.
    """
    world = World(kafka_bootstrap, tmp_path)
    world.start()
    settings = world.settings
    monkeypatch.setenv("STEPSTREAM_SETTINGS", "/dev/null")
    place = ["--kafka-brokers", settings.kafka_brokers, "--topic-prefix", settings.topic_prefix]

    def ran(*arguments: str) -> tuple[int, str]:
        code = run([*arguments, *place])
        shown = capfd.readouterr()
        return code, shown.out + shown.err

    try:
        for version in ("v1", "v2", "v3"):
            publish(settings, built(tmp_path / version, version))
        wait = ("--wait", "120s")
        code, shown = ran("promote", "support@v1", *wait, "--by", "ann")
        assert (code, shown.strip()) == (0, "production of support is v1")
        code, shown = ran("promote", "support@v2", *wait, "--expect", "v3")
        assert code == 1
        assert "is v1, not v3" in shown
        code, shown = ran("promote", "support@v9", *wait)
        assert code == 1
        assert "there is no release support@v9" in shown
        shown = refused_by(world, ran, "legal")
        assert "policy careful requires the gate legal: no package has registered it" in shown
        shown = refused_by(world, ran, "evaluation")
        assert "requires the gate evaluation: it was inconclusive: no results of" in shown
        world.process.kill()
        world.start()
        code, shown = ran(
            "promote", "support@v2", *wait, "--override", "evaluation", "--reason", "hotfix"
        )
        assert (code, shown.strip()) == (0, "production of support is v2, before v1")
        code, shown = ran("rollback", "support", *wait)
        assert (code, shown.strip()) == (0, "production of support is v1, before v2")
        code, shown = ran("rollback", "support", *wait)
        assert code == 1
        assert "no earlier release" in shown
        code, shown = ran("releases", "support")
        assert code == 0
        assert "support@v1  production" in shown
        code, shown = ran("releases", "support", "--history", "--format", "json")
        history = json.loads(shown)
        assert [one["outcome"] for one in history] == [
            "accepted", "refused", "refused", "accepted", "accepted", "refused",
        ]  # fmt: skip
        assert history[3]["gates"] == "evaluation: overridden"
        assert history[0]["by"] == "ann"
        code, shown = ran("diff", "support@v1", "support@v2")
        assert code == 0
        assert "-Be kind (v1)." in shown
        assert "no figures" in shown
        assert '"version": "v1"' in ran("releases", "support@production", "--format", "json")[1]
    finally:
        world.collected.close()
        world.process.kill()


def refused_by(world: World, ran: Callable[..., tuple[int, str]], gate: str) -> str:
    """The error of a promotion for which a policy in force requires the gate."""
    world.put_in_force({"name": "careful", "promotion": {"gate": gate}})
    code, shown = ran("promote", "support@v2", "--wait", "120s")
    assert code == 1
    return shown


def test_an_agent_follows_the_label_and_starts_without_kafka(
    settings: Settings, tmp_path: Path
) -> None:
    """Over Kafka: its runs carry the new version without a restart; later the cache is enough."""
    state = {"state_dir": str(tmp_path / "state"), "agent": "support", "quiet": True}
    agent = settings.model_copy(update=state)
    tracer = Tracer(agent)
    first, second = built(tmp_path / "a", "v1"), built(tmp_path / "b", "v2")
    with labelled(settings) as promote:
        promote(first, 0)
        release = tracer.release("support", follow=True, wait_s=60)
        with tracer.run():
            assert release.prompt("tone") == "Be kind (v1)."
        promote(second, 1)
        wait_until(lambda: release.version == "v2", 60, "the promotion")
        with tracer.run():
            assert release.prompt("tone") == "Be kind (v2)."
    assert tracer.flush(60)
    ended = [step for step in stored_steps(settings) if step.phase == "end"]
    assert [(step.agent_version, step.attributes[RELEASE_ATTRIBUTE]) for step in ended] == [
        ("v1", first.hash),
        ("v2", second.hash),
    ]
    tracer.close(30)
    # The same endpoint, as far as the cache knows, and nothing answers there.
    away = Tracer(agent)
    with blocked(settings, away):
        assert away.release("support", wait_s=1).version == "v2"
    with pytest.raises(ReleaseUnavailable, match="support@staging cannot be loaded"):
        Tracer(agent).release("support", "staging", wait_s=30)


@contextmanager
def blocked(settings: Settings, tracer: Tracer) -> Iterator[None]:
    """The agent's connections lead nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        config = {**settings.kafka, "bootstrap.servers": "127.0.0.1:1"}
        patch.setattr(Settings, "kafka", property(lambda _self: config))
        yield


def test_an_agent_gets_its_release_over_https(settings: Settings, tmp_path: Path) -> None:
    """With a key that may read releases; unchanged ones are answered without a body."""
    first, second = built(tmp_path / "a", "v1"), built(tmp_path / "b", "v2")
    allowed, secret = new_credential("reader", ["ingest", "releases"], ["shop"])
    sender, other = new_credential("sender", ["ingest"], ["shop"])
    file = tmp_path / "credentials.json"
    save(file, Credentials([allowed, sender]))
    secured = settings.model_copy(
        update={"credentials_file": str(file), "state_dir": str(tmp_path / "gateway")}
    )
    with labelled(settings) as promote, running(secured, with_topics=False) as gateway:
        promote(first, 0)
        url = f"{gateway.server.url}/v1/releases/support"
        pool = urllib3.PoolManager(retries=False)

        def get(name: str, **headers: str) -> Any:
            sent = {"x-api-key": token_of("reader", secret), **headers}
            return pool.request("GET", f"{url}/{name}", headers=sent)

        # 503 until the gateway has read the topic for the first time.
        wait_until(lambda: get("production").status == 200, 60, "the gateway has the release")
        answer = get("production")
        assert (answer.status, answer.headers["etag"]) == (200, f'"{first.hash}"')
        assert decode_release(answer.data) == first
        assert get("production", **{"if-none-match": f'"{first.hash}"'}).status == 304
        assert get("production", **{"if-none-match": '"other"'}).status == 200
        assert (get("v1").status, get("nothing").status) == (200, 404)
        refused = get("production", **{"x-api-key": token_of("sender", other)})
        assert refused.status == 403
        assert b"--releases" in refused.data
        agent = Settings(
            endpoint=gateway.server.url,
            endpoint_key=token_of("reader", secret),
            state_dir=str(tmp_path / "agent"),
            quiet=True,
        )
        release = Tracer(agent).release("support", wait_s=60)
        assert (release.version, release.prompt("tone")) == ("v1", "Be kind (v1).")
        promote(second, 1)
        wait_until(lambda: get("production").headers["etag"] == f'"{second.hash}"', 60, "v2")
    assert Tracer(agent).release("support", wait_s=1).version == "v1"


def test_contents_that_are_not_in_memory_are_read_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a gateway, and by an agent over Kafka: with no room for any contents."""
    for name, module in (("IN_A_GATEWAY", gateway_releases), ("IN_AN_AGENT", release_log)):
        monkeypatch.setattr(module, name, Bounds(content_bytes=0))
    releases = [built(tmp_path / version, version) for version in ("v1", "v2")]
    for release in releases:
        publish(settings, release)
    with running(settings, with_topics=False) as gateway:
        pool = urllib3.PoolManager(retries=False)
        url = f"{gateway.server.url}/v1/releases/support"
        wait_until(lambda: pool.request("GET", f"{url}/v1").status == 200, 60, "the release")
        for release in releases:
            answer = pool.request("GET", f"{url}/{release.version}")
            assert decode_release(answer.data) == release
    agent = settings.model_copy(update={"state_dir": str(tmp_path / "agent"), "quiet": True})
    assert Tracer(agent).release("support", "v1", wait_s=60).prompt("tone") == "Be kind (v1)."
