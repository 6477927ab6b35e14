"""``python -m stepstream.local.clickhouse_server --path DIR --port N``: one line of JSON with the
URL when it answers queries."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from stepstream.common.web.access import Access
from stepstream.common.web.credentials import CredentialsError, load
from stepstream.common.web.headers import Hosts
from stepstream.common.web.protocol import Limits as WebLimits
from stepstream.common.web.server import WebServer
from stepstream.local.clickhouse_server.config import default_memory_bytes
from stepstream.local.clickhouse_server.engine import Engine, EngineError
from stepstream.local.clickhouse_server.execute import Executor
from stepstream.local.clickhouse_server.request import credentials
from stepstream.local.clickhouse_server.sandbox import confine
from stepstream.local.clickhouse_server.server import Store
from stepstream.local.clickhouse_server.users import Limits, Users

EXIT_PORT, EXIT_FOLDER, EXIT_ENGINE, EXIT_CREDENTIALS = 3, 4, 5, 6
# Most of a URL is parameters of a query.
HEAD_BYTES = 1 << 20
IDLE_S = 3600.0
GRACE_S = 10.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stepstream.local.clickhouse_server", description=__doc__
    )
    parser.add_argument("--path", type=Path, required=True, help="data folder")
    parser.add_argument("--port", type=int, required=True, help="port; 0: a free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        help="a further name that clients may call it by",
    )
    parser.add_argument(
        "--credentials",
        type=Path,
        required=True,
        help="file of users, see `stepstream credentials`",
    )
    parser.add_argument(
        "--max-memory-mb",
        type=int,
        default=default_memory_bytes() >> 20,
        help="memory of all queries",
    )
    parser.add_argument("--at-once", type=int, default=16, help="queries that run at the same time")
    parser.add_argument(
        "--max-connections", type=int, default=2000, help="open connections of clients"
    )
    parser.add_argument(
        "--max-body-mb", type=int, default=1024, help="size of an insert, as it is sent"
    )
    parser.add_argument(
        "--max-execution-time",
        type=int,
        default=300,
        help="seconds a reader's query may take; 0: no limit",
    )
    parser.add_argument(
        "--max-result-rows", type=int, default=0, help="rows of a reader's answer; 0: no limit"
    )
    parser.add_argument(
        "--max-result-mb", type=int, default=1024, help="size of a reader's answer; 0: no limit"
    )
    parser.add_argument(
        "--max-memory-usage-mb",
        type=int,
        default=0,
        help="memory of a reader's query; 0: half of all",
    )
    return parser.parse_args()


def _users(arguments: argparse.Namespace) -> Users:
    memory = (arguments.max_memory_usage_mb or arguments.max_memory_mb // 2) << 20
    result = arguments.max_result_mb << 20
    return Users(
        reader_limits=Limits(
            arguments.max_execution_time, arguments.max_result_rows, memory, result
        )
    )


def _connections(wanted: int) -> int:
    """How many there may be, so that files are left for the engine."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        if soft != resource.RLIM_INFINITY:
            return max(16, min(wanted, soft // 2))
    return wanted


def _confine(folder: Path) -> None:
    """Let this process use its own folder only, also for temporary files of large requests."""
    temporary = folder / "tmp"
    backups = folder / "backups"
    for made in (temporary, backups):
        made.mkdir(mode=0o700, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    code = {Path(place).resolve() for place in (sys.prefix, sys.base_prefix, *sys.path) if place}
    problem = confine([folder, backups.resolve()], sorted(code))
    if problem:
        print(
            f"clickhouse: not confined by the kernel, only by its own rules: {problem}",
            file=sys.stderr,
            flush=True,
        )


def main() -> int:
    arguments = _arguments()
    folder = arguments.path.absolute()
    # The engine's database "default" finds files of the working directory by their names: there are
    # none here.
    nowhere = folder / "empty"
    nowhere.mkdir(parents=True, exist_ok=True)
    try:
        access = Access(load(arguments.credentials), credentials)
    except CredentialsError as problem:
        print(problem, file=sys.stderr)
        return EXIT_CREDENTIALS
    os.chdir(nowhere)
    _confine(folder)
    try:
        engine = Engine(folder, arguments.max_memory_mb << 20)
    except EngineError as problem:
        print(problem, file=sys.stderr)
        return EXIT_FOLDER if problem.in_use else EXIT_ENGINE
    executor = Executor(engine)
    body_bytes = arguments.max_body_mb << 20
    store = Store(executor, _users(arguments), at_once=arguments.at_once, body_bytes=body_bytes)
    app = store.application(Hosts(arguments.host, arguments.host_name), access)
    limits = WebLimits(
        connections=_connections(arguments.max_connections), head_bytes=HEAD_BYTES, idle_s=IDLE_S
    )
    try:
        server = WebServer(app, arguments.host, arguments.port, limits, GRACE_S)
    except OSError as problem:
        print(problem.strerror or problem, file=sys.stderr)
        executor.close()
        return EXIT_PORT
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    print(json.dumps({"url": server.url, "pid": os.getpid()}), flush=True)
    server.run()
    store.close()
    executor.close()
    sys.stdout.flush()
    # Threads that wait for something must not keep the process.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
