"""``python -m stepstream.sinks.embedded --path DIR --port N``: one line of JSON with the URL when it answers queries."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from stepstream.common.web.credentials import CredentialsError, load
from stepstream.sinks.embedded.config import default_memory_bytes
from stepstream.sinks.embedded.engine import Engine, EngineError
from stepstream.sinks.embedded.execute import Executor
from stepstream.sinks.embedded.server import Server
from stepstream.sinks.embedded.users import Limits, Users

EXIT_PORT, EXIT_FOLDER, EXIT_ENGINE = 3, 4, 5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stepstream.sinks.embedded", description=__doc__)
    parser.add_argument("--path", type=Path, required=True, help="data folder")
    parser.add_argument("--port", type=int, required=True, help="port; 0: a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--credentials", type=Path, required=True, help="file of users, see `stepstream credentials`")
    parser.add_argument("--max-memory-mb", type=int, default=default_memory_bytes() >> 20, help="memory of all queries")
    parser.add_argument("--at-once", type=int, default=16, help="queries that run at the same time")
    parser.add_argument("--max-execution-time", type=int, default=300, help="seconds a reader's query may take; 0: no limit")
    parser.add_argument("--max-result-rows", type=int, default=0, help="rows of a reader's answer; 0: no limit")
    parser.add_argument("--max-memory-usage-mb", type=int, default=0, help="memory of a reader's query; 0: half of all")
    return parser.parse_args()


def _users(arguments: argparse.Namespace) -> Users:
    memory = (arguments.max_memory_usage_mb or arguments.max_memory_mb // 2) << 20
    return Users(
        load(arguments.credentials),
        reader_limits=Limits(arguments.max_execution_time, arguments.max_result_rows, memory),
    )


def main() -> int:
    arguments = _arguments()
    folder = arguments.path.absolute()
    # The engine's database "default" finds files of the working directory by their names: there are none here.
    nowhere = folder / "empty"
    nowhere.mkdir(parents=True, exist_ok=True)
    try:
        users = _users(arguments)
    except CredentialsError as problem:
        print(problem, file=sys.stderr)
        return EXIT_ENGINE
    os.chdir(nowhere)
    try:
        engine = Engine(folder, arguments.max_memory_mb << 20, arguments.at_once)
    except EngineError as problem:
        print(problem, file=sys.stderr)
        return EXIT_FOLDER if problem.held else EXIT_ENGINE
    executor = Executor(engine, users)
    try:
        server = Server(arguments.host, arguments.port, executor)
    except OSError as problem:
        print(f"cannot listen on {arguments.host}:{arguments.port}: {problem}", file=sys.stderr)
        executor.close()
        return EXIT_PORT
    stop = lambda *_: threading.Thread(target=server.shutdown).start()  # noqa: E731
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(json.dumps({"url": f"http://{arguments.host}:{server.server_address[1]}"}), flush=True)
    server.serve_forever(poll_interval=0.5)
    server.server_close()
    executor.close()
    sys.stdout.flush()
    # Threads of clients that still hold a connection must not keep the process.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
