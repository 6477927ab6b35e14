"""The pages about evaluation: verdicts, trials of both sides, and success by Criteria over time."""

from __future__ import annotations

from pathlib import Path

from stepstream.admin.documents import Written, apply
from stepstream.admin.yamlfile import Place
from stepstream.schemas.criteria import Criteria
from tests.console.known_runs import KnownRuns
from tests.console.world import Visit, World
from tests.support.processes import wait_until

CRITERIA = {
    "kind": "Criteria",
    "name": "found",
    "match": {"agent": "finder"},
    "checks": [{"check": "answer", "contains": ["found"]}],
}


def test_a_verdict_shows_its_cases_and_opens_two_trials(visit: Visit, runs: KnownRuns) -> None:
    visit.open("/evals")
    visit.page.locator(f"a[href='/evals/{runs.verdict}']").click()
    visit.text("Cases that moved")
    visit.until("document.querySelectorAll('[aria-expanded]').length === 10 + 1")
    visit.button("case-03").click()
    visit.text("the answer has no number 15")
    visit.until("location.search.includes('case=case-03')")
    assert visit.serious() == []
    # Both trials of this case have a run in the store: they open next to each other.
    visit.page.get_by_role("link", name="compare").first.click()
    visit.page.wait_for_url("**/compare?a=*&b=*")
    visit.text("Steps, aligned by content")
    visit.page.go_back()
    visit.button("All 24").click()
    visit.text("case-23")


def test_an_unknown_evaluation_is_named(visit: Visit, runs: KnownRuns) -> None:
    visit.expected = ("404",)
    visit.open("/evals/ffffffff")
    visit.text("no verdict and no results have the id ffffffff")


def test_success_by_criteria_over_time(visit: Visit, world: World, runs: KnownRuns) -> None:
    """Runs that end ok: one that meets its document and one that does not."""
    apply(
        world.settings,
        [Written(Criteria.model_validate(CRITERIA), Place(Path("criteria.yaml"), 0))],
    )

    tracer = world.tracer("finder")

    def scored() -> bool:
        # The worker reads the document within moments: runs before that have no success.
        for answer in ("found it", "no"):
            with tracer.run(task="find", input="?") as run:
                run.set_output(answer)
        rows = world.query("SELECT DISTINCT success FROM runs WHERE agent = 'finder'")
        return {"true", "false"} <= {row["success"] for row in rows}

    wait_until(scored, 120, "runs with a success")
    tracer.close(30)
    failed = "SELECT 1 FROM findings WHERE rule = 'criteria_failed' AND agent = 'finder'"
    wait_until(lambda: bool(world.query(failed)), 60, "the finding in the store")
    visit.open("/evals")
    visit.text("finder")
    visit.text("Failed Criteria")
    visit.text("does not meet the criteria found")
    assert visit.serious() == []
