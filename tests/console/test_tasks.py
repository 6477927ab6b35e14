"""The pages about tasks: queues, executors, what waits and why, the story of one, commands."""

from __future__ import annotations

import json

import pytest

from stepstream.common import kafka
from stepstream.common.kafka import KafkaUnreachable
from stepstream.schemas.topics import topic
from tests.console.world import Visit, World
from tests.support.processes import wait_until
from tests.support.task_states import Story, executor_state, send_states

HOSTILE = "<img src=x onerror=alert(1)>\u202e"


@pytest.fixture(scope="module")
def stories(world: World) -> Story:
    """Tasks in the store: one that was retried, one that runs, some that wait."""
    story = Story("order-70377-refund", user_id="u-9", priority=5, project="tasks", age_s=300)
    story.bind("ex-05")
    story.end_attempt(
        "lease_lost", "retrying", state="waiting", waiting_for="retry", detail="lost_lease",
        why="no heartbeat of ex-05 for 45 s",
    )  # fmt: skip
    story.bind("ex-01", detail="")
    story.end("failed", "failed", reason="exception", error_type="Timeout", error_message=HOSTILE)
    running = Story("ex-5521", "exchange", project="tasks", age_s=20).bind("ex-02")
    waiting = [
        Story(f"order-7045{n}-refund", project="tasks", priority=n, key=f"s-{n}", age_s=160)
        for n in range(3)
    ]
    sheet = Story("price-sheet-11", "bulk-edit", project="tasks", version="v8", age_s=362)
    sheet.change("waiting", waiting_for="executor", detail="no executor offers bulk-edit@v8")
    hostile = Story(HOSTILE, HOSTILE, project="tasks", key=HOSTILE)
    send_states(
        world.settings,
        *(
            executor_state(name, project="tasks", runs=runs)
            for name, runs in (
                ("ex-01", ["refund", "exchange"]), ("ex-02", ["exchange"]), ("ex-05", ["refund"]),
            )
        ),
        executor_state("ex-05", 1, project="tasks", state="lost", reason="no heartbeat"),
        *story.records, *running.records, *sheet.records, *hostile.records,
        *(record for one in waiting for record in one.records),
    )  # fmt: skip
    sql = "SELECT count() AS n FROM tasks WHERE project = 'tasks'"
    wait_until(lambda: world.query(sql)[0]["n"] == 7, 120, "the tasks in the store")
    return story


def test_the_page_shows_queues_executors_and_what_waits(stories: Story, visit: Visit) -> None:
    visit.open("/tasks").live()
    visit.text("no executor offers bulk-edit@v8")
    visit.text("lost: no heartbeat")
    assert visit.page.get_by_label("1 of 4 slots in use").count() == 1
    visit.text("s-2")
    waiting = visit.page.locator("section", has=visit.page.locator("#waiting")).locator("tbody tr")
    # By priority, then age.
    assert waiting.nth(0).inner_text().startswith("order-70452-refund")
    visit.screenshot("tasks-full")
    assert visit.serious() == []


def test_a_change_appears_without_a_reload(stories: Story, visit: Visit, world: World) -> None:
    visit.open("/tasks").live()
    visit.text("order-70452-refund")
    coming = Story("order-80000-refund", project="tasks", age_s=1)
    send_states(world.settings, *coming.records)
    visit.text("order-80000-refund")
    coming.bind("ex-01").end("ok", "ok")
    send_states(world.settings, *coming.records[1:])
    row = visit.page.locator("tr", has_text="order-80000-refund")
    row.get_by_text("ok", exact=True).wait_for()


def test_the_story_of_a_task_has_its_attempts_and_their_reasons(
    stories: Story, visit: Visit
) -> None:
    visit.open("/tasks").live()
    visit.page.get_by_role("link", name="order-70377-refund").click()
    visit.text("no heartbeat of ex-05 for 45 s")
    attempts = visit.page.locator("section", has=visit.page.locator("#attempts"))
    assert attempts.locator("tbody tr").count() == 2
    visit.text("attempt 2 of refund v13 to ex-01")
    # What a program wrote is text, and its control characters are shown.
    visit.text("<img src=x onerror=alert(1)>")
    visit.screenshot("task")
    assert visit.serious() == []


def test_a_task_is_cancelled_and_another_run_again(
    stories: Story, visit: Visit, world: World
) -> None:
    def sent(kind: str) -> list[dict[str, str]]:
        name = topic(world.settings.topic_prefix, "tasks")
        try:
            found = [
                json.loads(one.value() or b"") for one in kafka.read_to_end(world.settings, name)
            ]
        except KafkaUnreachable:
            return []  # a broker on a machine under load is asked again
        return [one for one in found if one["kind"] == kind and one["project"] == "tasks"]

    visit.open("/tasks").live()
    row = visit.page.locator("tr", has_text="price-sheet-11")
    row.get_by_role("button", name="Cancel").click()
    visit.page.get_by_label("Reason").fill("not needed")
    visit.page.get_by_role("button", name="Cancel the task").click()
    (cancel,) = wait_until(lambda: sent("cancel"), 60, "the cancel")
    assert (cancel["task_id"], cancel["reason"]) == ("price-sheet-11", "not needed")
    row = visit.page.locator("tr", has_text="ex-02").first
    row.get_by_role("button", name="Drain").click()
    visit.page.locator("dialog").get_by_role("button", name="Drain").click()
    assert wait_until(lambda: sent("drain"), 60, "the drain")[0]["executor_id"] == "ex-02"
    visit.open("/tasks/order-70377-refund?project=tasks").live()
    visit.enabled("Try again")
    visit.key("t")
    visit.page.get_by_role("button", name="Run it again").click()
    assert wait_until(lambda: sent("retry"), 60, "the retry")[0]["project"] == "tasks"
