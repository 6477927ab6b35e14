# ruff: noqa: E501  (an output is a line)
"""Failures of other forms than an error's first line: made outputs, each of a kind that real tools have.

Two lists: those of ``SEEN`` the detector was written with; those of ``KEPT`` were written by kind and looked at once, when it was
done. Four of them were wrong then (recall 36 of 39, precision 36 of 37) and are among the seen ones now. Each holds outputs that tell of a failure, with the words that must be quoted, and outputs that only look like it. Long
ones are made here: progress before and clean-up after a failure.
"""

from __future__ import annotations

import argparse
import json
from typing import Final, NamedTuple

from benchmarks.detection.score import ROW, Confusion, share_text
from benchmarks.harness import Goal, Report
from stepstream.schemas.step import Step
from stepstream.stream.contents import Contents
from stepstream.stream.detectors.content.failures import failure_in


class Made(NamedTuple):
    """A call's tool, what it was given, what it said; and, of a failure, a part of the line that says so."""

    kind: str
    tool: str
    given: str
    said: str
    error: str = ""


def command(text: str) -> str:
    """Arguments of a terminal."""
    return json.dumps({"command": text})


def progress(what: str, lines: int = 8) -> str:
    """Lines that tell of nothing wrong."""
    return "\n".join(f"[{number}/{lines}] {what} part {number} of the set" for number in range(1, lines + 1))


PYTHON: Final = 'Traceback (most recent call last):\n  File "/app/job.py", line 31, in main\n    load(path)\n'
LISTING: Final = "\n".join(f"{number}: def part_{number}(value): return value + {number}" for number in range(1, 30))
PROSE: Final = "The valley was settled early and its people lived from sheep and wool for a long time. " * 12

SEEN: Final[tuple[Made, ...]] = (
    Made("traceback in the middle", "run_script", command("python job.py"), f"{progress('read')}\n{PYTHON}KeyError: 'rows'\n"
         f"{progress('closed', 6)}", "KeyError"),
    Made("traceback, then other text", "python", command("python plot.py"), f"{PYTHON}ValueError: empty series\nFresh berries are red.",
         "ValueError"),
    Made("build at the end", "bash", command("make all"), f"{progress('compile')}\nmake: *** [Makefile:14: all] Error 2", "make: ***"),
    Made("exit code at the end", "shell", command("./check.sh"), f"{progress('check')}\nexit code: 3", "exit code: 3"),
    Made("error of a program", "bash", command("cp -r a b --no-clobber -v"), "cp: b: Permission denied", "Permission denied"),
    Made("timed out", "execute_bash", command("pytest -x tests/slow"), "EXECUTION TIMED OUT\nThe command was killed after 30 s.",
         "TIMED OUT"),
    Made("edit rejected", "edit_file", json.dumps({"path": "a.py", "text": "def f(:"}),
         f"Your edit was not applied: it has a syntax error.\n{LISTING}", "not applied"),
    Made("patch rejected", "apply_patch", json.dumps({"patch": "@@ -1 +1 @@"}), f"The patch was not applied, hunk 1 does not match.\n"
         f"{LISTING}", "not applied"),
    Made("error page", "visit_page", json.dumps({"url": "https://a.example/x"}),
         "Address: https://a.example/x\nTitle: Error 404 (Not Found)\nViewport position: Showing page 1 of 1.\n\nNothing here.", "404"),
    Made("behind a preamble", "run_code", json.dumps({"code": "main()"}),
         "status: finished (code 0)\nProgram output: Error: no table is named rows", "no table"),
    Made("under exit code 0", "terminal", command("./load"), "exitcode: 0 (execution succeeded)\nCode output: Error: no such column",
         "no such column"),
    Made("printed to stderr", "run", command("./load"), json.dumps({"stdout": "", "stderr": "Error: disk is full", "exit_code": 1}),
         "disk is full"),
    Made("a plain not", "track_parcel", json.dumps({"id": "S-4411"}), "Shipment S-4411 has not left the warehouse yet"),
    Made("a plain not", "get_policy", json.dumps({"topic": "dogs"}), "Dogs are not charged for; cats do not need a ticket either."),
    Made("a file that shows errors", "read_file", json.dumps({"path": "app.log"}), f"{progress('start')}\n{PYTHON}KeyError: 'x'\n"
         f"{progress('again', 30)}\n\n{PROSE}"),
    Made("a page about errors", "visit_page", json.dumps({"url": "https://b.example"}),
         f"Address: https://b.example\nTitle: Error handling in Python\n\n{PROSE}"),
    Made("a build that works", "bash", command("make all"), f"{progress('compile')}\n0 errors, 2 warnings\nBuild finished."),
    Made("build at the end", "run_command", command("mvn package"), f"{progress('Downloading', 9)}\n[INFO] BUILD FAILURE\n"
         "[ERROR] Failed to execute goal compile on project shop", "Failed to execute"),
    Made("error page", "web_fetch", json.dumps({"url": "https://f.example"}), "<html><head><title>502 Bad Gateway</title></head><body>"
         "<center><h1>502 Bad Gateway</h1></center></body></html>", "502"),
    Made("said in words", "check_flag", json.dumps({"flag": "x{1}"}), "Wrong flag", "Wrong flag"),
    Made("shown, not failed", "grep", json.dumps({"pattern": "Error"}), "src/a.py:12: raise ValueError('bad')\nsrc/b.py:7: except Error as error:"),
)  # fmt: skip

KEPT: Final[tuple[Made, ...]] = (
    Made("traceback in the middle", "execute", command("node sync.js"), f"{progress('sync')}\nTypeError: rows.map is not a function\n"
         f"    at sync (sync.js:14:3)\n{progress('clean', 5)}", "rows.map"),
    Made("traceback in the middle", "jupyter_cell", json.dumps({"code": "train()"}), f"epoch 1\nepoch 2\n{PYTHON}RuntimeError: CUDA is out "
         "of memory\nlog saved\nworkers stopped", "CUDA"),
    Made("traceback in the middle", "docker_run", command("docker run job"), f"{progress('pull', 12)}\n{PYTHON}"
         f"psycopg2.OperationalError: could not connect to server\n{progress('stop container', 4)}", "could not connect"),
    Made("build at the end", "bash", command("npm run build"), f"{progress('bundle')}\nnpm ERR! code ELIFECYCLE\nnpm ERR! errno 1", "npm ERR!"),
    Made("build at the end", "bash", command("cargo build"), f"{progress('Compiling')}\nerror[E0382]: borrow of moved value: `rows`\n"
         "  --> src/main.rs:9:5\nerror: could not compile `sync` due to previous error", "could not compile"),
    Made("build at the end", "compile", command("gcc -O2 main.c"), f"{progress('link')}\ncollect2: error: ld returned 1 exit status", "ld returned"),
    Made("build at the end", "bash", command("terraform apply"), f"{progress('plan')}\nError: creating S3 bucket: AccessDenied", "AccessDenied"),
    Made("exit code", "shell_exec", command("./deploy.sh"), f"{progress('deploy')}\nProcess exited with code 137", "137"),
    Made("exit code", "subprocess", json.dumps({"argv": "rsync a b"}), json.dumps({"returncode": 23, "stdout": "sent 4 files",
         "stderr": "rsync error: some files could not be transferred"}), "some files"),
    Made("error of a program", "bash", command("mv old new --backup -f -v"), "mv: cannot stat 'old': No such file or directory", "cannot stat"),
    Made("error of a program", "bash", command("tar xf set.tgz -C /srv -v"), "tar: set.tgz: Cannot open: No such file or directory\n"
         "tar: Error is not recoverable: exiting now", "tar:"),
    Made("error of a program", "terminal", command("git push origin main"), "To github.com:a/b.git\n ! [rejected] main -> main (fetch first)\n"
         "error: failed to push some refs to 'github.com:a/b.git'", "failed to push"),
    Made("error of a program", "bash", command("psql -c 'select 1' shop"), 'psql: error: connection to server at "db" failed: Connection refused',
         "Connection refused"),
    Made("error of a program", "bash", command("kubectl get pods -n shop"), "Error from server (Forbidden): pods is forbidden", "Forbidden"),
    Made("timed out", "run_sql", json.dumps({"sql": "select * from big"}), "The query was cancelled: deadline exceeded after 60 s", "deadline"),
    Made("timed out", "bash", command("sleep 900"), "Command timed out after 120 seconds. Partial output:\n<none>", "timed out"),
    Made("timed out", "call_service", json.dumps({"name": "stock"}), "upstream request timeout", "timeout"),
    Made("timed out", "execute_code", json.dumps({"code": "loop()"}), "Time limit exceeded: the cell ran for more than 10 s", "Time limit"),
    Made("edit rejected", "str_replace_editor", json.dumps({"path": "m.py"}),
         f"No replacement was performed, old_str did not appear verbatim in m.py.\n{LISTING}", "No replacement"),
    Made("edit rejected", "edit", json.dumps({"file": "a.py"}), "Your proposed edit has introduced new syntax error(s). Please read this "
         f"error message carefully and then retry editing the file.\n\nERRORS:\n- E999 IndentationError\n\n{LISTING}", "proposed edit"),
    Made("edit rejected", "write_config", json.dumps({"path": "a.yml"}), f"Changes were discarded because line 4 is invalid.\n{LISTING}", "discarded"),
    Made("edit rejected", "update_record", json.dumps({"id": "R-7781"}), f"The update has been refused by the reviewer; see below.\n{LISTING}",
         "refused"),
    Made("error page", "browser_open", json.dumps({"url": "https://c.example"}), "# 503 Service Unavailable\n\nNo server is available to "
         f"handle this request.\n{PROSE}", "503"),
    Made("error page", "fetch_url", json.dumps({"url": "https://d.example"}), f"Title: Access Denied\n\nYou don't have permission.\n{PROSE}", "Denied"),
    Made("error page", "visit", json.dumps({"url": "https://e.example"}), f"Page not found\n\nTry the search.\n{PROSE}", "not found"),
    Made("error page", "browse", json.dumps({"url": "https://g.example"}), f"URL: https://g.example\nTitle: Just a moment...\n\n{PROSE}", "moment"),
    Made("behind a preamble", "code_interpreter", json.dumps({"code": "x()"}), "Execution result:\nstdout: NameError: name 'x' is not defined", "NameError"),
    Made("behind a preamble", "run_python", json.dumps({"code": "y()"}), "Exit code: 0\nOutput:\nException: the sheet has no column Price", "no column"),
    Made("behind a preamble", "sandbox", json.dumps({"code": "z()"}), "Result: Failed to open the data set: file is empty", "Failed to open"),
    Made("said in words", "ask_agent", json.dumps({"task": "please book the room for the two of us on Friday and tell me the price"}),
         "Error: the booking agent could not be reached", "could not be reached"),
    Made("said in words", "call_expert", "please find out what the train to Porto costs and when it leaves",
         "Request failed: the expert did not respond", "did not respond"),
    Made("said in words", "create_invoice", json.dumps({"order": "A-7712"}), "Invoice was not created: the order is closed", "not created"),
    Made("said in words", "transfer_money", json.dumps({"to": "DE-2201"}), "The transfer could not be completed, the limit is reached", "not be completed"),
    Made("as data", "api", json.dumps({"path": "/orders"}), json.dumps({"status": 422, "message": "quantity must be positive"}), "quantity"),
    Made("as data", "api", json.dumps({"path": "/orders"}), json.dumps({"errors": [{"code": "E7", "message": "no stock"}], "data": None}), "no stock"),
    Made("as data", "mcp_call", json.dumps({"name": "x"}), json.dumps({"isError": True, "content": [{"type": "text", "text": "no access"}]}), ""),
    Made("a plain not", "get_order_status", json.dumps({"order": "A-7712"}), "Order A-7712 is not paid yet"),
    Made("a plain not", "where_is", json.dumps({"item": "keys"}), "They are not in the drawer, they are on the shelf"),
    Made("a plain not", "get_opening_hours", json.dumps({"shop": "north"}), "The shop doesn't open on Sundays"),
    Made("a plain not", "delivery_info", json.dumps({"id": "P-1177"}), "Parcel P-1177 was not handed over to the neighbour but to you"),
    Made("a plain not", "describe_plan", json.dumps({"plan": "basic"}), "The basic plan does not include roaming"),
    Made("a plain not", "ask_user", json.dumps({"question": "what would you like to have instead of the soup of the day"}),
         "I do not want soup, and my order was not delivered last time"),
    Made("a plain not", "estimate_arrival", json.dumps({"id": "T-22"}), "Not before 18:00, no delay is expected"),
    Made("shown, not failed", "bash", command("cat build.log"), f"{progress('compile')}\nerror: missing file\n{progress('retry')}\nBuild finished.\n{PROSE}"),
    Made("shown, not failed", "read_document", json.dumps({"name": "faq"}), f"Error messages and what they mean\n\n{PROSE}"),
    Made("shown, not failed", "search_docs", json.dumps({"query": "timeouts"}), f"How to set a timeout\nA request may time out; set timeout=30.\n{PROSE}"),
    Made("shown, not failed", "wikipedia", json.dumps({"query": "Failure"}), f"Failure (disambiguation)\n\n{PROSE}"),
    Made("shown, not failed", "get_reviews", json.dumps({"id": "P-9"}), f"Terrible, it failed after a week and the refund was refused.\n{PROSE}"),
    Made("went well", "bash", command("pytest -q"), f"{progress('test')}\n212 passed, 0 failed in 4.2 s"),
    Made("went well", "run_tests", command("go test ./..."), "ok  \tshop/cart\t0.21s\nok  \tshop/errors\t0.11s"),
    Made("went well", "bash", command("pip install errors-helper"), "Collecting errors-helper\nSuccessfully installed errors-helper-1.2"),
    Made("went well", "edit_file", json.dumps({"path": "errors.py"}), f"The file errors.py has been edited. Here is the result:\n{LISTING}"),
    Made("went well", "lint", command("ruff check"), "All checks passed! No errors found in 44 files"),
    Made("went well", "create_refund", json.dumps({"order": "A-7712"}), "Refund created; it may take up to 5 days, no further action is needed"),
    Made("went well", "bash", command("./migrate.sh"), f"{progress('migrate', 30)}\nskipped 3 tables that already exist\ndone"),
    Made("went well", "list_jobs", json.dumps({}), json.dumps([{"id": 1, "status": "failed"}, {"id": 2, "status": "ok"}])),
    Made("went well", "get_job", json.dumps({"id": 4}), json.dumps({"id": 4, "name": "nightly", "attempts": 2, "state": "done", "error": None})),
    Made("went well", "bash", command("git status"), "On branch main\nnothing to commit, working tree clean"),
    Made("went well", "bash", command("ls /srv"), "errors.log\nfailed_jobs\nreadme.md"),
)  # fmt: skip


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Both lists; only the kept one has goals."""
    for name, made in (("written with these", SEEN), ("kept back", KEPT)):
        counted, quoted = Confusion(), 0
        missed: list[str] = []
        for item in made:
            step = Step(
                trace_id="a" * 32,
                step_id="b" * 16,
                kind="tool_call",
                name=item.tool,
                start_time=0,
                input=item.given,
                output=item.said,
            )
            found = failure_in(Contents(step), item.tool)
            is_failure = bool(item.error) or item.kind == "as data"
            counted = counted.plus(truth=is_failure, said=found is not None)
            quoted += found is not None and is_failure and item.error in found.message
            if is_failure is not (found is not None):
                missed.append(f"{item.kind}: {item.tool}")
        report.table(f"made outputs, {name}", ROW, [counted.row()])
        report.notes.append(
            f"{name}: the quotation is the error in {share_text(quoted, counted.found)}; wrong: {'; '.join(missed) or 'none'}"
        )
        if made is KEPT:
            report.figures["made_forms_recall"] = counted.recall or 0.0
            report.figures["made_forms_precision"] = counted.precision or 0.0
            report.goals.append(Goal("failures of other forms: recall", counted.recall, 0.9, "", at_most=False))
            report.goals.append(Goal("failures of other forms: precision", counted.precision, 0.97, "", at_most=False))
