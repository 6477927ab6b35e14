"""Limits of a run: a budget that the SDK enforces, and stops that people or policies send.

While it runs, `stepstream stop --agent researcher --yes` in another terminal stops it.
"""

from __future__ import annotations

import time

import stepstream


def warn(warning: stepstream.BudgetWarning) -> None:
    print(f"warning: {warning.used} of {warning.limit} {warning.what} are used")


def research(budget: stepstream.Budget) -> str:
    """Call a model until the budget is used up or someone stops the run."""
    steps = 0
    try:
        with stepstream.run("researcher", task="research", budget=budget) as run:
            while True:
                # `with` raises BudgetExceeded or RunStopped before the call is made.
                with run.llm("read", model="gpt-4o", provider="openai") as step:
                    time.sleep(0.05)  # the call of the model
                    step.set_usage(input_tokens=2_000, output_tokens=100)
                steps += 1
                # For long work without steps: raises if the run was stopped meanwhile.
                run.checkpoint()
    except stepstream.BudgetExceeded as exceeded:
        return f"{steps} calls, then the budget of {exceeded.limit} was used up"
    except stepstream.RunStopped as stopped:
        return f"{steps} calls, then stopped by {stopped.by}: {stopped.reason}"


if __name__ == "__main__":
    # Each call costs $0.006, so the fifth would exceed the budget.
    print(research(stepstream.Budget(usd=0.025, steps=200, warn=0.5, on_warn=warn)))
