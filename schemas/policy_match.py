"""Which runs a document is about."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict

from stepstream.schemas.rule_base import Glob


class Match(BaseModel):
    """A filter of runs: every field that is given must match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: Glob = "*"
    environment: Glob = "*"
    agent: Glob = "*"
    agent_version: Glob = "*"
    task: Glob = "*"

    def matches(
        self, *, project: str, environment: str, agent: str, agent_version: str, task: str
    ) -> bool:
        """Whether a run with these fields is matched."""
        # fnmatchcase, because fnmatch depends on the operating system's file names.
        return (
            fnmatchcase(project, self.project)
            and fnmatchcase(environment, self.environment)
            and fnmatchcase(agent, self.agent)
            and fnmatchcase(agent_version, self.agent_version)
            and fnmatchcase(task, self.task)
        )

    def matches_release(self, agent: str, version: str) -> bool:
        """Whether runs of that agent and version can be matched."""
        return fnmatchcase(agent, self.agent) and fnmatchcase(version, self.agent_version)
