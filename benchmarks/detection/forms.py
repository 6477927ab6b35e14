"""Failures of other forms than an error's first line: made outputs, each of a kind that real tools
have.

``SEEN`` are those that the detector was written with. The others were written one list after the
other, by kind and without reading the detector, and measured once before the detector was changed:
``AT_FIRST`` has these first figures. Later lists were not known at that time, so the first figures
are the ones to expect of unseen outputs. The figures of the lists as they are now show only that
nothing got worse since. Each list has outputs that report a failure, with the words that must be
quoted, and outputs that only resemble one. Long outputs are built here, with progress before and
clean-up after a failure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.detection.score import Confusion, share_text
from benchmarks.harness import Goal, Report
from stepstream.schemas.step import Step
from stepstream.stream.detectors.content.failures import failure_in
from stepstream.stream.run.contents import Contents


class Made(NamedTuple):
    """A call's tool, input and output, and for a failure a part of the line that reports it."""

    kind: str
    tool: str
    given: str
    output: str
    error: str = ""
    fails: bool = False

    @property
    def is_failure(self) -> bool:
        """Whether the output reports a failure."""
        return self.fails or bool(self.error) or self.kind == "as data"


def command(text: str) -> str:
    """Arguments of a terminal."""
    return json.dumps({"command": text})


def progress(what: str, lines: int = 8) -> str:
    """Lines that report no problem."""
    return "\n".join(
        f"[{number}/{lines}] {what} part {number} of the set" for number in range(1, lines + 1)
    )


PYTHON: Final = (
    'Traceback (most recent call last):\n  File "/app/job.py", line 31, in main\n    load(path)\n'
)
LISTING: Final = "\n".join(
    f"{number}: def part_{number}(value): return value + {number}" for number in range(1, 30)
)
PROSE: Final = (
    "The valley was settled early and its people lived from sheep and wool for a long time. " * 12
)

SEEN: Final[tuple[Made, ...]] = (
    Made("traceback in the middle", "run_script", command("python job.py"),
    f"{progress('read')}\n{PYTHON}KeyError: 'rows'\n"
         f"{progress('closed', 6)}", "KeyError"),
    Made("traceback, then other text", "python", command("python plot.py"),
    f"{PYTHON}ValueError: empty series\nFresh berries are red.",
         "ValueError"),
    Made("build at the end", "bash", command("make all"),
    f"{progress('compile')}\nmake: *** [Makefile:14: all] Error 2", "make: ***"),
    Made("exit code at the end", "shell", command("./check.sh"),
    f"{progress('check')}\nexit code: 3", "exit code: 3"),
    Made("error of a program", "bash", command("cp -r a b --no-clobber -v"),
    "cp: b: Permission denied", "Permission denied"),
    Made("timed out", "execute_bash", command("pytest -x tests/slow"),
    "EXECUTION TIMED OUT\nThe command was killed after 30 s.",
         "TIMED OUT"),
    Made("edit rejected", "edit_file", json.dumps({"path": "a.py", "text": "def f(:"}),
         f"Your edit was not applied: it has a syntax error.\n{LISTING}", "not applied"),
    Made("patch rejected", "apply_patch", json.dumps({"patch": "@@ -1 +1 @@"}),
    f"The patch was not applied, hunk 1 does not match.\n"
         f"{LISTING}", "not applied"),
    Made("error page", "visit_page", json.dumps({"url": "https://a.example/x"}),
         "Address: https://a.example/x\nTitle: Error 404 (Not Found)\nViewport position: Showing "
         "page 1 of 1.\n\nNothing here.", "404"),
    Made("behind a preamble", "run_code", json.dumps({"code": "main()"}),
         "status: finished (code 0)\nProgram output: Error: no table is named rows", "no table"),
    Made("under exit code 0", "terminal", command("./load"),
    "exitcode: 0 (execution succeeded)\nCode output: Error: no such column",
         "no such column"),
    Made("printed to stderr", "run", command("./load"), json.dumps({"stdout": "",
    "stderr": "Error: disk is full", "exit_code": 1}),
         "disk is full"),
    Made("a plain not", "track_parcel", json.dumps({"id": "S-4411"}),
    "Shipment S-4411 has not left the warehouse yet"),
    Made("a plain not", "get_policy", json.dumps({"topic": "dogs"}),
    "Dogs are not charged for; cats do not need a ticket either."),
    Made("a file that shows errors", "read_file", json.dumps({"path": "app.log"}),
    f"{progress('start')}\n{PYTHON}KeyError: 'x'\n"
         f"{progress('again', 30)}\n\n{PROSE}"),
    Made("a page about errors", "visit_page", json.dumps({"url": "https://b.example"}),
         f"Address: https://b.example\nTitle: Error handling in Python\n\n{PROSE}"),
    Made("a build that works", "bash", command("make all"),
    f"{progress('compile')}\n0 errors, 2 warnings\nBuild finished."),
    Made("build at the end", "run_command", command("mvn package"),
    f"{progress('Downloading', 9)}\n[INFO] BUILD FAILURE\n"
         "[ERROR] Failed to execute goal compile on project shop", "Failed to execute"),
    Made("error page", "web_fetch", json.dumps({"url": "https://f.example"}),
    "<html><head><title>502 Bad Gateway</title></head><body>"
         "<center><h1>502 Bad Gateway</h1></center></body></html>", "502"),
    Made("in a sentence", "check_flag", json.dumps({"flag": "x{1}"}), "Wrong flag", "Wrong flag"),
    Made("shown, not failed", "grep", json.dumps({"pattern": "Error"}),
    "src/a.py:12: raise ValueError('bad')\nsrc/b.py:7: except Error as error:"),
)  # fmt: skip

KEPT: Final[tuple[Made, ...]] = (
    Made("traceback in the middle", "execute", command("node sync.js"),
    f"{progress('sync')}\nTypeError: rows.map is not a function\n"
         f"    at sync (sync.js:14:3)\n{progress('clean', 5)}", "rows.map"),
    Made("traceback in the middle", "jupyter_cell", json.dumps({"code": "train()"}),
    f"epoch 1\nepoch 2\n{PYTHON}RuntimeError: CUDA is out "
         "of memory\nlog saved\nworkers stopped", "CUDA"),
    Made("traceback in the middle", "docker_run", command("docker run job"),
    f"{progress('pull', 12)}\n{PYTHON}"
         "psycopg2.OperationalError: could not connect to "
         f"server\n{progress('stop container', 4)}", "could not connect"),
    Made("build at the end", "bash", command("npm run build"),
    f"{progress('bundle')}\nnpm ERR! code ELIFECYCLE\nnpm ERR! errno 1", "npm ERR!"),
    Made("build at the end", "bash", command("cargo build"),
    f"{progress('Compiling')}\nerror[E0382]: borrow of moved value: `rows`\n"
         "  --> src/main.rs:9:5\nerror: could not compile `sync` due to previous "
         "error", "could not compile"),
    Made("build at the end", "compile", command("gcc -O2 main.c"),
    f"{progress('link')}\ncollect2: error: ld returned 1 exit status", "ld returned"),
    Made("build at the end", "bash", command("terraform apply"),
    f"{progress('plan')}\nError: creating S3 bucket: AccessDenied", "AccessDenied"),
    Made("exit code", "shell_exec", command("./deploy.sh"),
    f"{progress('deploy')}\nProcess exited with code 137", "137"),
    Made("exit code", "subprocess", json.dumps({"argv": "rsync a b"}), json.dumps({"returncode": 23,
    "stdout": "sent 4 files",
         "stderr": "rsync error: some files could not be transferred"}), "some files"),
    Made("error of a program", "bash", command("mv old new --backup -f -v"),
    "mv: cannot stat 'old': No such file or directory", "cannot stat"),
    Made("error of a program", "bash", command("tar xf set.tgz -C /srv -v"),
    "tar: set.tgz: Cannot open: No such file or directory\n"
         "tar: Error is not recoverable: exiting now", "tar:"),
    Made("error of a program", "terminal", command("git push origin main"),
    "To github.com:a/b.git\n ! [rejected] main -> main (fetch first)\n"
         "error: failed to push some refs to 'github.com:a/b.git'", "failed to push"),
    Made("error of a program", "bash", command("psql -c 'select 1' shop"),
    'psql: error: connection to server at "db" failed: Connection refused',
         "Connection refused"),
    Made("error of a program", "bash", command("kubectl get pods -n shop"),
    "Error from server (Forbidden): pods is forbidden", "Forbidden"),
    Made("timed out", "run_sql", json.dumps({"sql": "select * from big"}),
    "The query was cancelled: deadline exceeded after 60 s", "deadline"),
    Made("timed out", "bash", command("sleep 900"),
    "Command timed out after 120 seconds. Partial output:\n<none>", "timed out"),
    Made("timed out", "call_service", json.dumps({"name": "stock"}), "upstream request timeout",
    "timeout"),
    Made("timed out", "execute_code", json.dumps({"code": "loop()"}),
    "Time limit exceeded: the cell ran for more than 10 s", "Time limit"),
    Made("edit rejected", "str_replace_editor", json.dumps({"path": "m.py"}),
         "No replacement was performed, old_str did not appear verbatim in "
         f"m.py.\n{LISTING}", "No replacement"),
    Made("edit rejected", "edit", json.dumps({"file": "a.py"}),
    "Your proposed edit has introduced new syntax error(s). Please read this "
         "error message carefully and then retry editing the file.\n\nERRORS:\n- E999 "
         f"IndentationError\n\n{LISTING}", "proposed edit"),
    Made("edit rejected", "write_config", json.dumps({"path": "a.yml"}),
    f"Changes were discarded because line 4 is invalid.\n{LISTING}", "discarded"),
    Made("edit rejected", "update_record", json.dumps({"id": "R-7781"}),
    f"The update has been refused by the reviewer; see below.\n{LISTING}",
         "refused"),
    Made("error page", "browser_open", json.dumps({"url": "https://c.example"}),
    "# 503 Service Unavailable\n\nNo server is available to "
         f"handle this request.\n{PROSE}", "503"),
    Made("error page", "fetch_url", json.dumps({"url": "https://d.example"}),
    f"Title: Access Denied\n\nYou don't have permission.\n{PROSE}", "Denied"),
    Made("error page", "visit", json.dumps({"url": "https://e.example"}),
    f"Page not found\n\nTry the search.\n{PROSE}", "not found"),
    Made("error page", "browse", json.dumps({"url": "https://g.example"}),
    f"URL: https://g.example\nTitle: Just a moment...\n\n{PROSE}", "moment"),
    Made("behind a preamble", "code_interpreter", json.dumps({"code": "x()"}),
    "Execution result:\nstdout: NameError: name 'x' is not defined", "NameError"),
    Made("behind a preamble", "run_python", json.dumps({"code": "y()"}),
    "Exit code: 0\nOutput:\nException: the sheet has no column Price", "no column"),
    Made("behind a preamble", "sandbox", json.dumps({"code": "z()"}),
    "Result: Failed to open the data set: file is empty", "Failed to open"),
    Made("in a sentence", "ask_agent",
    json.dumps({"task": "please book the room for the two of us on Friday and report the price"}),
         "Error: the booking agent could not be reached", "could not be reached"),
    Made("in a sentence", "call_expert",
    "please find out what the train to Porto costs and when it leaves",
         "Request failed: the expert did not respond", "did not respond"),
    Made("in a sentence", "create_invoice", json.dumps({"order": "A-7712"}),
    "Invoice was not created: the order is closed", "not created"),
    Made("in a sentence", "transfer_money", json.dumps({"to": "DE-2201"}),
    "The transfer could not be completed, the limit is reached", "not be completed"),
    Made("as data", "api", json.dumps({"path": "/orders"}), json.dumps({"status": 422,
    "message": "quantity must be positive"}), "quantity"),
    Made("as data", "api", json.dumps({"path": "/orders"}), json.dumps({"errors": [{"code": "E7",
    "message": "no stock"}], "data": None}), "no stock"),
    Made("as data", "mcp_call", json.dumps({"name": "x"}), json.dumps({"isError": True,
    "content": [{"type": "text", "text": "no access"}]}), ""),
    Made("a plain not", "get_order_status", json.dumps({"order": "A-7712"}),
    "Order A-7712 is not paid yet"),
    Made("a plain not", "where_is", json.dumps({"item": "keys"}),
    "They are not in the drawer, they are on the shelf"),
    Made("a plain not", "get_opening_hours", json.dumps({"shop": "north"}),
    "The shop doesn't open on Sundays"),
    Made("a plain not", "delivery_info", json.dumps({"id": "P-1177"}),
    "Parcel P-1177 was not handed over to the neighbour but to you"),
    Made("a plain not", "describe_plan", json.dumps({"plan": "basic"}),
    "The basic plan does not include roaming"),
    Made("a plain not", "ask_user",
    json.dumps({"question": "what would you like to have instead of the soup of the day"}),
         "I do not want soup, and my order was not delivered last time"),
    Made("a plain not", "estimate_arrival", json.dumps({"id": "T-22"}),
    "Not before 18:00, no delay is expected"),
    Made("shown, not failed", "bash", command("cat build.log"),
    f"{progress('compile')}\nerror: missing file\n{progress('retry')}\nBuild finished.\n{PROSE}"),
    Made("shown, not failed", "read_document", json.dumps({"name": "faq"}),
    f"Error messages and what they mean\n\n{PROSE}"),
    Made("shown, not failed", "search_docs", json.dumps({"query": "timeouts"}),
    f"How to set a timeout\nA request may time out; set timeout=30.\n{PROSE}"),
    Made("shown, not failed", "wikipedia", json.dumps({"query": "Failure"}),
    f"Failure (disambiguation)\n\n{PROSE}"),
    Made("shown, not failed", "get_reviews", json.dumps({"id": "P-9"}),
    f"Terrible, it failed after a week and the refund was refused.\n{PROSE}"),
    Made("went well", "bash", command("pytest -q"),
    f"{progress('test')}\n212 passed, 0 failed in 4.2 s"),
    Made("went well", "run_tests", command("go test ./..."),
    "ok  \tshop/cart\t0.21s\nok  \tshop/errors\t0.11s"),
    Made("went well", "bash", command("pip install errors-helper"),
    "Collecting errors-helper\nSuccessfully installed errors-helper-1.2"),
    Made("went well", "edit_file", json.dumps({"path": "errors.py"}),
    f"The file errors.py has been edited. Here is the result:\n{LISTING}"),
    Made("went well", "lint", command("ruff check"),
    "All checks passed! No errors found in 44 files"),
    Made("went well", "create_refund", json.dumps({"order": "A-7712"}),
    "Refund created; it may take up to 5 days, no further action is needed"),
    Made("went well", "bash", command("./migrate.sh"),
    f"{progress('migrate', 30)}\nskipped 3 tables that already exist\ndone"),
    Made("went well", "list_jobs", json.dumps({}), json.dumps([{"id": 1, "status": "failed"},
    {"id": 2, "status": "ok"}])),
    Made("went well", "get_job", json.dumps({"id": 4}), json.dumps({"id": 4, "name": "nightly",
    "attempts": 2, "state": "done", "error": None})),
    Made("went well", "bash", command("git status"),
    "On branch main\nnothing to commit, working tree clean"),
    Made("went well", "bash", command("ls /srv"), "errors.log\nfailed_jobs\nreadme.md"),
)  # fmt: skip

SECOND: Final[tuple[Made, ...]] = (
    Made("traceback in the middle","run_cell",json.dumps({"code":"fit()"}),(
        f"{progress('fold')}\n{PYTHON}numpy.linalg.LinAlgError: Singular "
        f"matrix\n{progress('free',7)}"
    ),"Singular"),
    Made("traceback in the middle","bash",command("go run ./cmd/sync"),(
        f"{progress('sync')}\npanic: runtime error: index out of range [3] with length "
        "3\n\ngoroutine 1 [running]:\nmain.main()\n\t/app/main.go:12 +0x1d\nexit status 2"
    ),"index out of range"),
    Made("build at the end","bash",command("gradle build"),(
        f"{progress('task')}\n\nFAILURE: Build failed with an exception.\n\n* What went "
        "wrong:\nExecution failed for task ':app:compileJava'.\n\nBUILD FAILED in 4s"
    ),"BUILD FAILED"),
    Made("build at the end","bash",command("tsc -p ."),(
        f"{progress('check')}\nsrc/cart.ts(14,3): error TS2322: Type 'string' is not assignable to "
        "type 'number'."
    ),"TS2322"),
    Made("build at the end","install_package",json.dumps({"name":"foo"}),(
        f"{progress('Collecting')}\nERROR: Could not find a version that satisfies the requirement "
        "foo\nERROR: No matching distribution found for foo"
    ),"No matching"),
    Made("build at the end","bash",command("docker build ."),(
        f"{progress('Step')}\nERROR: failed to solve: process \"/bin/sh -c npm ci\" did not "
        "complete successfully: exit code: 1"
    ),"failed to solve"),
    Made("error of a program","bash",command("curl -sS https://x.example/api -o out.json"),
    "curl: (6) Could not resolve host: x.example","resolve host"),
    Made("error of a program","bash",command("ssh deploy@web1 uptime"),
    "ssh: connect to host web1 port 22: Connection timed out","timed out"),
    Made("error of a program","bash",command("python3 app.py --port 80"),
    '  File "app.py", line 3\n    def f(:\n          ^\nSyntaxError: invalid syntax',"SyntaxError"),
    Made("error of a program","bash",command("systemctl restart shop"),
    "Failed to restart shop.service: Unit shop.service not found.","shop.service"),
    Made("error of a program","shell",command("ls /nope -l"),
    "ls: cannot access '/nope': No such file or directory","cannot access"),
    Made("timed out","browser_click",json.dumps({"id":"buy"}),(
        "TimeoutError: locator.click: Timeout 30000ms exceeded.\nCall log:\n  - waiting for "
        "locator('#buy')"
    ),"Timeout"),
    Made("timed out","query_warehouse",json.dumps({"sql":"select 1"}),
    "Query exceeded the time limit of 300 s and was stopped","time limit"),
    Made("timed out","llm_tool",json.dumps({"x":1}),
    "No response within 45 seconds from the pricing service","No response"),
    Made("edit rejected","apply_diff",json.dumps({"diff":"-a\n+b"}),
    f"Diff could not be applied: context lines do not match at line 12.\n{LISTING}",
    "could not be applied"),
    Made("edit rejected","insert_lines",json.dumps({"line":4}),
    f"Error: line 400 is beyond the end of the file (30 lines).\n{LISTING}","beyond"),
    Made("edit rejected","save_document",json.dumps({"id":"D-100"}),
    f"Nothing was saved because another user holds the lock.\n{LISTING}","Nothing was saved"),
    Made("error page","open_page",json.dumps({"url":"https://h.example"}),
    f"Page title: 500 Internal Server Error\n\nThe server met an unexpected condition.\n{PROSE}",
    "500"),
    Made("error page","scrape",json.dumps({"url":"https://i.example"}),
    f"403 Forbidden\nnginx\n{PROSE}","403"),
    Made("error page","visit_page",json.dumps({"url":"https://j.example"}),
    f"Address: https://j.example\nTitle: Attention Required! | Cloudflare\n\n{PROSE}","Attention"),
    Made("behind a preamble","python_repl",json.dumps({"code":"q()"}),(
        "Execution logs:\n\nLast output from code snippet:\nTypeError: unsupported operand type(s) "
        "for +: 'int' and 'str'"
    ),"TypeError"),
    Made("behind a preamble","run_tool",json.dumps({"name":"x"}),
    "Status: completed\nOutput: Unable to read the workbook, it is protected by a password",
    "Unable to read"),
    Made("in a sentence","cancel_subscription",json.dumps({"id":"S-1"}),
    "This subscription has already been cancelled","already"),
    Made("in a sentence","reserve_table",json.dumps({"n":4}),
    "There are no tables left for four people on that evening","no tables"),
    Made("in a sentence","redeem_voucher",json.dumps({"code":"X"}),"The voucher expired on 3 May",
    "expired"),
    Made("as data","api",json.dumps({"p":1}),json.dumps({"result":None,"error":{"code":-32602,
    "message":"unknown method"}}),"unknown method"),
    Made("a plain not", "get_balance",json.dumps({"id":"A"}),
    "The balance is 40.20 and there are no pending payments"),
    Made("a plain not", "lookup_member",json.dumps({"id":"M"}),
    "Member M-1 has no unpaid bills and did not cancel"),
    Made("a plain not", "weather",json.dumps({"city":"Oslo"}),
    "No rain before noon, not warmer than 4 degrees"),
    Made("a plain not", "crm_notes",json.dumps({"id":"C"}),
    "The customer reports that the delivery failed twice and that he was not at home"),
    Made("a plain not", "summarize",
    json.dumps({"text":"the minutes of the meeting of the board in March"}),
    "The board did not approve the plan; the vote failed by two votes."),
    Made("a plain not", "translate",json.dumps({"text":"Der Versuch ist gescheitert"}),
    "The attempt has failed"),
    Made("shown, not failed", "bash",command("grep -rn TODO src"),
    "src/a.py:3: # TODO: raise Error: handle timeouts\nsrc/b.py:9: # TODO failed jobs"),
    Made("shown, not failed", "bash",command("git log --oneline -3"),(
        "a1b2c3d fix: error when list is empty\nb2c3d4e failed login is logged\nc3d4e5f timeout "
        "raised to 60 s"
    )),
    Made("shown, not failed", "read_email",json.dumps({"id":"E"}),
    f"Subject: Your payment failed\n\nHello, your last payment failed.\n{PROSE}"),
    Made("went well", "bash",command("./run_all.sh"),(
        f"{progress('job',40)}\nretry 1: request failed, trying again\n{progress('job',10)}\nall "
        "jobs finished, 0 failed"
    )),
    Made("went well", "create_user",json.dumps({"n":"x"}),
    "User created. A password must be set within 24 hours."),
    Made("went well", "bash",command("pytest -q"),"....\n4 passed, 1 warning in 0.3s"),
    Made("went well", "update_ticket",json.dumps({"id":"T"}),
    "Ticket T-9 updated: status is now 'rejected'"),
    Made("went well", "delete_rows",json.dumps({"t":"x"}),
    "Deleted 0 rows, nothing matched the filter"),
)  # fmt: skip
THIRD: Final[tuple[Made, ...]] = (
    Made("traceback in the middle", "bash",command("ruby job.rb"),(
        f"{progress('row')}\njob.rb:14:in `fetch': key not found: :rows (KeyError)\n\tfrom "
        f"job.rb:20:in `<main>'\n{progress('close',3)}"
    ),"KeyError"),
    Made("traceback in the middle", "execute_code",json.dumps({"code":"x"}),(
        f"loaded 40 rows\n{PYTHON}pandas.errors.MergeError: keys are not unique\n\nIn the meantime "
        "the cache was kept."
    ),"MergeError"),
    Made("build at the end", "bash",command("cmake --build ."),(
        f"{progress('Building')}\n/usr/bin/ld: main.o: undefined reference to `run'\nninja: build "
        "stopped: subcommand failed."
    ),"failed"),
    Made("build at the end", "bash",command("ansible-playbook site.yml"),
    f"{progress('TASK')}\nfatal: [web1]: UNREACHABLE! => {{\"changed\": false}}","UNREACHABLE"),
    Made("build at the end", "bash",command("cargo test"),
    f"{progress('test')}\ntest result: FAILED. 3 passed; 1 failed; 0 ignored","FAILED"),
    Made("exit code", "bash",command("./x"),"some text\nmore text\n[exit status: 127]","127"),
    Made("exit code", "run_shell",command("./y"),"OUTPUT:\n(empty)\nEXIT CODE: 1","1"),
    Made("error of a program", "bash",command("wget -q https://x.example/f"),
    "wget: unable to resolve host address 'x.example'","unable to resolve"),
    Made("error of a program", "bash",command("aws s3 ls s3://b"),
    "An error occurred (AccessDenied) when calling the ListObjectsV2 operation: Access Denied",
    "AccessDenied"),
    Made("error of a program", "bash",command("rm -rf /srv/data -v"),
    "rm: cannot remove '/srv/data': Device or resource busy","cannot remove"),
    Made("error of a program", "psql",json.dumps({"sql":"select * from x"}),
    'ERROR:  relation "x" does not exist\nLINE 1: select * from x',"does not exist"),
    Made("timed out", "bash",command("pytest"),
    f"{progress('test')}\n[Process timed out after 600s and was terminated]","timed out"),
    Made("timed out", "http_get",json.dumps({"url":"x"}),"Read timed out. (read timeout=10)",
    "timed out"),
    Made("edit rejected", "replace_in_file",json.dumps({"p":"x"}),
    f"Failed to replace: 2 matches found, expected exactly one.\n{LISTING}","Failed to replace"),
    Made("edit rejected", "edit_notebook",json.dumps({"p":"x"}),
    f"The change was rejected by the linter (E902).\n{LISTING}","rejected"),
    Made("error page", "get_page",json.dumps({"url":"x"}),
    f"Title: 404 - Page Not Found\nURL: https://x.example\n\n{PROSE}","404"),
    Made("error page", "navigate",json.dumps({"url":"x"}),
    "This site can't be reached\nx.example refused to connect.","reached"),
    Made("behind a preamble", "interpreter",json.dumps({"code":"x"}),
    "Return code: 0\nStdout: \nStderr: ValueError: unknown currency XXZ","unknown currency"),
    Made("in a sentence", "upgrade_seat",json.dumps({"s":"1A"}),
    "Upgrades are only possible for members","only possible"),
    Made("in a sentence", "send_sms",json.dumps({"to":"1"}),"The number is blocked","blocked"),
    Made("in a sentence", "order_item",json.dumps({"i":"x"}),"Item x is out of stock",
    "out of stock"),
    Made("a plain not", "get_profile",json.dumps({"i":"x"}),
    "The profile is not public and has no picture"),
    Made("a plain not", "flight_status",json.dumps({"f":"X1"}),
    "Flight X1 was cancelled because of fog"),
    Made("a plain not", "calendar",json.dumps({"d":"mon"}),"You have no meetings on Monday"),
    Made("a plain not", "inventory",json.dumps({"i":"x"}),"There are 4 left, 2 of them damaged"),
    Made("a plain not", "classify",json.dumps({"t":"it broke"}),"negative: the product failed"),
    Made("shown, not failed", "bash",command("tail -n 50 /var/log/app.log"),
    f"{progress('req',20)}\nERROR timeout in worker 3\n{progress('req',5)}"),
    Made("shown, not failed", "view_file",json.dumps({"p":"x.py"}),
    f"import sys\n\nclass ShopError(Exception):\n    pass\n{LISTING}"),
    Made("went well", "bash",command("npm test"),
    f"{progress('test')}\nTests: 40 passed, 40 total\nTime: 3.1 s"),
    Made("went well", "bash",command("make"),"gcc -c error.c\ngcc -o app error.o timeout.o"),
    Made("went well", "set_alarm",json.dumps({"t":"7"}),
    "Alarm set for 7:00, it will not ring on Sundays"),
    Made("went well", "deploy",json.dumps({"v":"1"}),
    f"{progress('roll out')}\nDeployment successful, no errors, rollback not needed"),
)  # fmt: skip
FOURTH: Final[tuple[Made, ...]] = (
    Made("traceback in the middle","bash",command("java -jar sync.jar"),(
        f"{progress('sync')}\nException in thread \"main\" java.lang.NullPointerException: rows is "
        f"null\n\tat Sync.main(Sync.java:14)\n{progress('flush',4)}"
    ),"NullPointerException"),
    Made("traceback in the middle","spark_job",json.dumps({"code":"job.run()"}),(
        f"{progress('stage')}\n{PYTHON}pyspark.errors.AnalysisException: column price not "
        f"found\n{progress('stop executor',6)}"
    ),"AnalysisException"),
    Made("traceback in the middle","run_notebook",json.dumps({"path":"a.ipynb"}),(
        f"cell 1 ok\ncell 2 ok\n{PYTHON}OSError: [Errno 28] No space left on device\nkernel shut "
        "down"
    ),"Errno 28"),
    Made("build at the end","bash",command("helm upgrade shop ./chart"),
    f"{progress('render')}\nError: UPGRADE FAILED: another operation is in progress",
    "UPGRADE FAILED"),
    Made("build at the end","ci_step",json.dumps({"script":"yarn lint && yarn build"}),
    f"{progress('lint')}\nerror Command failed with exit code 1.","Command failed"),
    Made("build at the end","bash",command("swift build"),
    f"{progress('Compiling')}\n/app/Cart.swift:9:14: error: cannot find 'rows' in scope",
    "cannot find"),
    Made("exit code at the end","exec",command("backup.sh"),
    f"{progress('copy')}\nCommand exited with non-zero status 4","status 4"),
    Made("error of a program","bash",command("scp a.txt web1:/srv/"),
    "scp: /srv/: Permission denied","Permission denied"),
    Made("error of a program","bash",command("mysql -e 'select 1'"),
    "ERROR 1045 (28000): Access denied for user 'app'@'localhost' (using password: YES)",
    "Access denied"),
    Made("error of a program","bash",command("unzip set.zip"),
    "unzip:  cannot find or open set.zip, set.zip.zip or set.zip.ZIP.","cannot find"),
    Made("error of a program","bash",command("pip install foo==9"),
    "ERROR: No matching distribution found for foo==9","No matching"),
    Made("timed out","fetch",json.dumps({"url":"x"}),"Request to x timed out after 20 seconds",
    "timed out"),
    Made("timed out","run_simulation",json.dumps({"n":4}),
    f"{progress('tick')}\nAborted: wall clock limit reached","limit"),
    Made("edit rejected","modify_file",json.dumps({"p":"x"}),
    f"Could not apply your change: the old text appears 3 times.\n{LISTING}","Could not apply"),
    Made("edit rejected","write_page",json.dumps({"p":"x"}),
    f"Edit refused: page is protected.\n{LISTING}","refused"),
    Made("error page","load_page",json.dumps({"url":"x"}),f"Title: Error 410 Gone\n\n{PROSE}",
    "410"),
    Made("error page","open_url",json.dumps({"url":"x"}),
    f"# 429 Too Many Requests\n\nSlow down.\n{PROSE}","429"),
    Made("error page","crawl",json.dumps({"url":"x"}),
    "<html>\n<head>\n<title>Service Unavailable</title></head><body>try later</body></html>",
    "Unavailable"),
    Made("behind a preamble","exec_code",json.dumps({"code":"f(1)"}),
    "Execution finished (exit code 0)\nStdout: Exception: no row for key 7","no row"),
    Made("in a sentence","pay_bill",json.dumps({"id":"B"}),"Payment declined: limit reached",
    "declined"),
    Made("in a sentence","change_plan",json.dumps({"p":"x"}),
    "You are not allowed to change this plan before May","not allowed"),
    Made("in a sentence","add_to_cart",json.dumps({"i":"x"}),"Quantity must not exceed 5",
    "must not exceed"),
    Made("as data","api",json.dumps({"p":1}),json.dumps({"code":"INVALID_ARGUMENT",
    "message":"bad date","success":False}),"bad date"),
    Made("a plain not","find_contact",json.dumps({"n":"x"}),
    "Ann Miller does not work here any more, ask Ben"),
    Made("a plain not","traffic",json.dumps({"r":"x"}),"No jams, the tunnel is not closed"),
    Made("a plain not","get_stock_level",json.dumps({"i":"x"}),"12 pieces, none reserved"),
    Made("a plain not","explain",json.dumps({"t":"x"}),
    "The cache is not used when the key is missing"),
    Made("shown, not failed","bash",command("cat errors.txt"),
    "TypeError: a\nKeyError: b\nTimeoutError: c"),
    Made("shown, not failed","search_code",json.dumps({"query":"raise"}),
    "a.py: raise ValueError('x')\nb.py: raise KeyError('y')"),
    Made("shown, not failed","web_search",json.dumps({"query":"404"}),
    f"1. How to fix Error 404 on your site\n2. What 404 means\n{PROSE}"),
    Made("went well","bash",command("make test"),
    f"{progress('test')}\n=== 31 passed, 2 skipped in 4.1s ==="),
    Made("went well","bash",command("ruff format"),"4 files reformatted, 120 files left unchanged"),
    Made("went well","edit_file",json.dumps({"p":"x"}),
    f"Edit applied to error_handler.py. Review the changes:\n{LISTING}"),
    Made("went well","close_ticket",json.dumps({"p":"x"}),
    "Ticket closed. The customer was not notified, as you asked."),
    Made("went well","bash",command("rsync -a a b"),
    "sending incremental file list\nerrors/\nsent 1,204 bytes  received 34 bytes"),
)  # fmt: skip


# What was found in each list when it was new: before its failures were examined and after the
# problems of the lists before it were fixed. Lists 5 to 11 were written by authors who had not read
# the detector or only its tables; 8 and 9, and 10 and 11, are halves of one list each, divided by a
# hash, of which the first was examined while the second was not. List 12 was written last and
# measured once.
AT_FIRST: Final = {
    "first list": Confusion(36, 3, 1, 23),
    "second list": Confusion(21, 5, 3, 11),
    "third list": Confusion(16, 5, 2, 9),
    "fourth list": Confusion(18, 5, 2, 10),
    "list 5": Confusion(75, 32, 16, 57),
    "list 6": Confusion(55, 19, 8, 38),
    "list 7": Confusion(53, 19, 8, 33),
    "list 8": Confusion(63, 32, 7, 70),
    "list 9": Confusion(90, 17, 9, 58),
    "list 10": Confusion(64, 18, 9, 55),
    "list 11": Confusion(49, 23, 9, 53),
    "list 12": Confusion(54, 19, 5, 50),
}
_CASES: Final = Path(__file__).with_name("cases") / "outputs.jsonl"


def kept_cases() -> dict[str, tuple[Made, ...]]:
    """The lists that are kept as data, by name."""
    lists: dict[str, list[Made]] = {}
    for line in _CASES.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        name = f"list {case.pop('list')}"
        lists.setdefault(name, []).append(Made(**case))
    return {name: tuple(made) for name, made in lists.items()}


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Each list as it is found now, and as it was found when it was new."""
    lists = {
        "written with": SEEN,
        "first list": KEPT,
        "second list": SECOND,
        "third list": THIRD,
        "fourth list": FOURTH,
    }
    lists |= kept_cases()
    rows, whole, new, quoted = [], Confusion(), Confusion(), 0
    for name, made in lists.items():
        counted, right, wrong = evaluated(made)
        whole, quoted = whole.joined(counted), quoted + right
        first = AT_FIRST.get(name)
        new = new.joined(first) if first is not None else new
        rows.append(
            (name, *counted.row()[:2], *(first.row()[:2] if first is not None else ("", "")))
        )
        if wrong:
            report.notes.append(f"{name}: wrong are {'; '.join(wrong)}")
    rows.append(("all", *whole.row()[:2], *new.row()[:2]))
    report.table(
        "made outputs",
        ("list", "recall", "precision", "recall at first", "precision at first"),
        rows,
    )
    report.notes.append(
        f"made outputs: the quotation is the error in {share_text(quoted, whole.found)}"
    )
    report.figures["made_forms_recall"], report.figures["made_forms_precision"] = (
        whole.recall or 0.0,
        whole.precision or 0.0,
    )
    report.figures["made_forms_recall_at_first"] = new.recall or 0.0
    report.figures["made_forms_precision_at_first"] = new.precision or 0.0
    report.goals.append(
        Goal("failures of other forms, lists when new: recall", new.recall, 0.9, "", at_most=False)
    )
    report.goals.append(
        Goal(
            "failures of other forms, lists when new: precision",
            new.precision,
            0.97,
            "",
            at_most=False,
        )
    )


def evaluated(made: tuple[Made, ...]) -> tuple[Confusion, int, list[str]]:
    """What is found in a list, how often the quotation is the error, and the wrong results."""
    counted, quoted, wrong = Confusion(), 0, []
    for item in made:
        call = Step(
            trace_id="a" * 32,
            step_id="b" * 16,
            kind="tool_call",
            name=item.tool,
            start_time=0,
            input=item.given,
            output=item.output,
        )
        found = failure_in(Contents(call), item.tool)
        counted = counted.plus(truth=item.is_failure, found=found is not None)
        quoted += found is not None and item.is_failure and item.error in found.message
        if item.is_failure is not (found is not None):
            wrong.append(f"{item.kind}: {item.tool}")
    return counted, quoted, wrong
