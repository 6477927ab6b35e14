"""Tools that fail: retries, a fallback, and arguments that are checked before the call.

Each try is a step of its own, linked to the one that it repeats, so `stepstream trace --last` shows
what failed and what repaired it.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

import stepstream


class Refund(BaseModel):
    """The arguments of the tool `refund`."""

    order: int
    usd: float = Field(gt=0, le=100)


class SearchService:
    """A search that fails twice before it answers, as a service under load does."""

    def __init__(self) -> None:
        self.calls = 0

    def search(self, query: str) -> list[str]:
        self.calls += 1
        if self.calls <= 2:
            raise TimeoutError("the search took longer than 5 s")
        return [f"result for {query}"]


def always_fails(city: str) -> str:
    raise ConnectionError("the weather service is down")


def typical_weather(city: str) -> str:
    return f"{city}: mild, from last year's table"


def main() -> None:
    service = SearchService()
    with stepstream.run("assistant", task="travel", input="How is Lisbon?") as run:
        # Two failures, then a result: three steps.
        found = run.attempt("search", service.search, "Lisbon", retries=3, wait_s=0.01)
        # One failure, then the fallback: two steps.
        weather = run.attempt("weather", always_fails, "Lisbon", fallback=typical_weather)
        try:
            # The model asked for too much: the tool is not called.
            with run.tool("refund", input={"order": 7, "usd": 5000}, schema=Refund):
                print("this line is never reached")
        except stepstream.ArgumentsRefused as refused:
            print(f"refused: {refused}")
        run.set_output(f"{found[0]}; {weather}")
        print(f"answer: {found[0]}; {weather}")


if __name__ == "__main__":
    main()
