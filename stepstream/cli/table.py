"""Every command: made by ``python -m stepstream.cli.table_generator``; a test keeps it current.

A literal, so that the overview needs no import of the commands' modules.
"""

from __future__ import annotations

from typing import Final

from stepstream.cli.entry import Entry

COMMANDS: Final[dict[str, Entry]] = {
    "console": Entry(
        "console",
        "Run the console: pages that show runs, alerts and costs as they happen.",
        "Run",
    ),
    "executor": Entry(
        "executor",
        "Run an executor: it runs the agents of a program as durable tasks.",
        "Run",
    ),
    "gateway": Entry(
        "gateway",
        "Run a gateway: it writes OpenTelemetry and JSON from HTTP to Kafka.",
        "Run",
    ),
    "notify": Entry(
        "processes",
        "Run a notifier: it sends alerts to subscribers.",
        "Run",
    ),
    "sink": Entry(
        "processes",
        "Run a sink: it writes the records of Kafka to ClickHouse.",
        "Run",
    ),
    "up": Entry(
        "up",
        "Run the whole pipeline on this machine: engines, processes, gateway, console.",
        "Run",
    ),
    "worker": Entry(
        "processes",
        "Run a worker: it reads steps and writes trajectories and alerts.",
        "Run",
    ),
    "credentials": Entry(
        "credentials",
        "Add, list and remove users of the notifier's admin API and alert stream.",
        "Check and prepare",
    ),
    "doctor": Entry(
        "doctor",
        "Check the installation, Kafka, ClickHouse and the processes; explain what to do.",
        "Check and prepare",
    ),
    "keys": Entry(
        "keys",
        "Make, list, rotate and remove the keys of the gateway.",
        "Check and prepare",
    ),
    "ready": Entry(
        "processes",
        "Check whether the workers, sinks or notifiers have all partitions assigned.",
        "Check and prepare",
    ),
    "settings": Entry(
        "settings",
        "Show every setting, its value and where it comes from.",
        "Check and prepare",
    ),
    "store": Entry(
        "store",
        "Prepare the ClickHouse database: create tables, check, back up.",
        "Check and prepare",
    ),
    "topics": Entry(
        "topics",
        "Create and list the Kafka topics.",
        "Check and prepare",
    ),
    "version": Entry(
        "version",
        "Show the versions of stepstream and its dependencies.",
        "Check and prepare",
    ),
    "alerts": Entry(
        "alerts",
        "List alerts, the newest last, or follow them; acknowledge, silence, resolve, mark.",
        "Inspect",
    ),
    "ask": Entry(
        "ask",
        "Ask a question about runs, costs, failures or tools.",
        "Inspect",
    ),
    "fleet": Entry(
        "fleet",
        "Show the budgets, sealed hours and baselines that the workers maintain.",
        "Inspect",
    ),
    "open": Entry(
        "console",
        "Open the console in a browser, signed in.",
        "Inspect",
    ),
    "runs": Entry(
        "runs",
        "List runs, the newest first.",
        "Inspect",
    ),
    "sql": Entry(
        "runs",
        "Run an SQL query on the store (read-only).",
        "Inspect",
    ),
    "trace": Entry(
        "runs",
        "Show one run as a tree.",
        "Inspect",
    ),
    "approve": Entry(
        "control",
        "Let a run continue with more budget.",
        "Act",
    ),
    "pause": Entry(
        "control",
        "Pause a run, or all runs of an agent or project.",
        "Act",
    ),
    "resume": Entry(
        "control",
        "Let paused runs continue: earlier pause and stop commands no longer apply.",
        "Act",
    ),
    "stop": Entry(
        "control",
        "Stop a run, or all runs of an agent or project.",
        "Act",
    ),
    "cancel": Entry(
        "task_requests",
        "Cancel a task: a waiting one ends at once, a running one when its next step begins.",
        "Tasks",
    ),
    "drain": Entry(
        "task_requests",
        "Drain an executor: it gets no new attempts, and ends when its running ones have ended.",
        "Tasks",
    ),
    "executors": Entry(
        "tasks",
        "List the executors of tasks: state, slots in use, agents.",
        "Tasks",
    ),
    "queues": Entry(
        "tasks",
        "List for each agent how many tasks wait, why, since when, and who could run them.",
        "Tasks",
    ),
    "retry": Entry(
        "task_requests",
        "Run a task again that has ended in another way than ok.",
        "Tasks",
    ),
    "submit": Entry(
        "task_requests",
        "Ask for a run of an agent by an executor, as a durable task; print the task's id.",
        "Tasks",
    ),
    "task": Entry(
        "tasks",
        "Show the whole story of a task over its attempts.",
        "Tasks",
    ),
    "tasks": Entry(
        "tasks",
        "List tasks, the newest first: their state, why they wait, who runs them.",
        "Tasks",
    ),
    "apply": Entry(
        "documents",
        "Check documents and apply them.",
        "Policies, subscriptions, prices",
    ),
    "backtest": Entry(
        "backtest",
        "Evaluate recorded runs with other policies: which alerts, which runs stopped, what saved.",
        "Policies, subscriptions, prices",
    ),
    "delete": Entry(
        "documents",
        "Delete a document.",
        "Policies, subscriptions, prices",
    ),
    "get": Entry(
        "documents",
        "Show the documents that are in force: a list, or one document as YAML.",
        "Policies, subscriptions, prices",
    ),
    "incident": Entry(
        "incident",
        "Save runs as tests of policies.",
        "Policies, subscriptions, prices",
    ),
    "policy": Entry(
        "policy",
        "Check, explain and test policies before they are applied; suggest limits.",
        "Policies, subscriptions, prices",
    ),
    "subscriptions": Entry(
        "subscriptions",
        "Add, list, test and remove subscriptions; show their deliveries.",
        "Policies, subscriptions, prices",
    ),
    "eval": Entry(
        "evals",
        "Run agents on suites of cases, score runs, and decide whether a version is worse.",
        "Evaluate",
    ),
    "build": Entry(
        "build",
        "Build a release from a directory of prompts and tools, and check it.",
        "Releases",
    ),
    "diff": Entry(
        "releases",
        "Compare two releases: their contents, and the figures of their runs.",
        "Releases",
    ),
    "promote": Entry(
        "releases",
        "Give a label to a release; agents that use the label get this release.",
        "Releases",
    ),
    "releases": Entry(
        "releases",
        "List the published releases and their labels, the decisions about them, or their drift.",
        "Releases",
    ),
    "rollback": Entry(
        "releases",
        "Give a label back to the release that had it before.",
        "Releases",
    ),
    "deadletter": Entry(
        "deadletter",
        "List, show and replay refused records; resume a halted partition.",
        "Data",
    ),
    "import": Entry(
        "imports",
        "Import history: OTLP JSON files, exports of Langfuse and Phoenix, OpenAI message lists.",
        "Data",
    ),
    "replay": Entry(
        "replay",
        "Send recorded step events through the pipeline, in their order and at their speed.",
        "Data",
    ),
    "schema": Entry(
        "data",
        "Show the JSON Schema of a contract, or list the contracts.",
        "Data",
    ),
    "simulate": Entry(
        "simulate",
        "Simulate agents: load with faults from a seeded scenario.",
        "Data",
    ),
    "spool": Entry(
        "spool",
        "Show and send the events that agents of this user could not deliver.",
        "Data",
    ),
    "validate": Entry(
        "data",
        "Check a file of step events as a worker would check it.",
        "Data",
    ),
}
