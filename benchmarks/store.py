"""The store: rows a second from Kafka to SQL compared with what the server accepts, CPU in our own
code, bytes on disk, queries.

The ceiling is the same rows as Native blocks, encoded before, posted to the same tables through the
same HTTP server.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.transform import NativeTransform

from benchmarks import harness
from benchmarks.bench import broker, prepared, scratch_folder, steps_topic
from benchmarks.cases import MissingData, lifecycle, tau_bench, trail_gaia
from benchmarks.child import Child, ChildFailed
from benchmarks.harness import Goal, Report
from benchmarks.load import LoadSpec, Truth, make_load
from benchmarks.machine import CpuMeter
from benchmarks.multiply import Multiplier
from benchmarks.sender import Sender
from benchmarks.stored import STEPS
from stepstream.common.settings import to_environment
from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import Step
from stepstream.sinks.batching.records import USUAL_HEADERS, Record, Source
from stepstream.sinks.clickhouse import connect, memory, migrate, step_rows
from stepstream.sinks.clickhouse.insert import SETTINGS, Inserter
from stepstream.sinks.clickhouse.rows import Block
from stepstream.sinks.clickhouse.step_rows import build_steps
from stepstream.sinks.clickhouse.window import SeenWindow

QUERIES: Final = Path(__file__).with_name("queries")
CEILING_THREADS: Final = 2
CEILINGS: Final = ("before", "after")
CPU_ROUNDS: Final = 4
GOAL_OWN_US: Final = 8.0
GOAL_BYTES: Final = 200.0
SEARCHED_STEPS: Final = 150_000
SEARCH: Final = "SELECT count() FROM steps WHERE hasToken(lower(output), 'spaaoaah')"
DISK: Final = """\
SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts
WHERE active AND table = 'steps_raw' AND database = {database:String}"""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    events: int
    stored_steps: tuple[int, ...]
    repeats: int


FULL: Final = Scale(events=400_000, stored_steps=(3_000_000, 30_000_000), repeats=7)
QUICK: Final = Scale(events=40_000, stored_steps=(100_000,), repeats=3)
QUERY_GOALS_MS: Final = {3_000_000: 100.0, 30_000_000: 1_000.0}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A block as it travels."""

    table: str
    columns: list[str]
    data: bytes
    rows: int


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """The sink, the ceiling, our own code, the disk, the queries."""
    scale = QUICK if report.quick else FULL
    spec = LoadSpec(seed=arguments.seed, start_us=int(time.time() * 1e6)).sized(scale.events)
    with scratch_folder() as folder, EmbeddedClickHouse(folder / "clickhouse") as store:
        with broker(folder) as kafka:
            settings = prepared(kafka.bootstrap, "bench", clickhouse_url=store.writer_url)
            migrate(settings)
            with connect(settings) as client:
                # They come after inserts that end soon, and during those that do not.
                client.command("SYSTEM STOP MERGES")
            with Sender(kafka.bootstrap) as sender:
                truth = sender.load(spec)
                sender.send(steps_topic(settings))
            built = _own_code(report, spec, settings)
            before = _ceiling(report, settings, built, store.pids, CEILINGS[0])
            sunk = _sink(report, settings, truth, store.pids)
        after = _ceiling(report, settings, built, store.pids, CEILINGS[1])
        ceiling = (before + after) / 2
        report.figures["ceiling_rows_per_s"] = ceiling
        with connect(settings) as client:
            # Not before: file systems make files slowly while many have just been deleted.
            for when in CEILINGS:
                client.command(f"DROP DATABASE ceiling_{when} SYNC")
        report.ratios["sink_to_ceiling_rows_per_s"] = sunk / ceiling
        report.goals.append(
            Goal("sink's rows a second, to the ceiling", sunk / ceiling, 0.5, "", at_most=False)
        )
        _disk(report, settings, truth)
        _recorded(report, settings.model_copy(update={"clickhouse_database": "recorded"}))
        _text_search(report, settings)
        if arguments.queries:
            _queries(report, settings, scale, arguments.most_steps, store.pids)


@contextmanager
def _sinking(settings: Settings) -> Iterator[Child]:
    """A sink as ``stepstream up`` starts it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPSTREAM_")}
    with Child(
        [sys.executable, "-m", "stepstream", "sink", "--lifeline"],
        {**kept, **to_environment(settings)},
    ) as child:
        yield child


def _sink(report: Report, settings: Settings, truth: Truth, store: list[int]) -> float:
    """Rows a second from the first visible row to the last."""
    with connect(settings) as client, _sinking(settings) as sink:

        def rows() -> int:
            return int(client.command(STEPS))  # type: ignore[arg-type]

        deadline = time.monotonic() + 600
        while not (first := rows()):
            time.sleep(0.02)
        began, meter = time.monotonic(), CpuMeter({"sink": [sink.pid], "clickhouse": store})
        while (last := rows()) < truth.steps:
            if time.monotonic() > deadline:
                raise ChildFailed(f"the sink stored {last:,} of {truth.steps:,} steps in 600 s")
            so_far = (last - first) / (time.monotonic() - began)
            # Asking costs the store as well.
            time.sleep(min(0.5, max(0.02, (truth.steps - last) / 3 / max(so_far, 1.0))))
        took, used = time.monotonic() - began, meter.lap()
    counted = last - first
    cpu = {name: seconds / counted * 1e6 for name, seconds in used.items()}
    columns = ("", "rows/s", "sink CPU us/row", "ClickHouse CPU us/row", "rows")
    report.table(
        "the sink, from Kafka to SQL",
        columns,
        [("sink", counted / took, cpu["sink"], cpu["clickhouse"], counted)],
    )
    report.figures |= {"sink_rows_per_s": counted / took, "sink_events_per_s": 2 * counted / took}
    report.figures |= {f"{name}_cpu_us_per_row": value for name, value in cpu.items()}
    return counted / took


def _own_code(report: Report, spec: LoadSpec, settings: Settings) -> list[Encoded]:
    """CPU of making rows of records, in batches as large as the sink's, with what belongs to
    libraries apart.

    Recognising repeated steps is part of it, and so is freeing what was made.
    """
    memory.tune()  # as the sink does
    batches = list(_batches(spec, settings))
    _timed(settings, *batches[0])  # clickhouse-connect imports what it needs when it needs it first
    # Of several rounds the best of each batch: others use the cores too, and for a while at a time.
    rounds = [[_timed(settings, *batch) for batch in batches] for _ in range(CPU_ROUNDS)]
    best = [
        [min(times) for times in zip(*takes, strict=True)] for takes in zip(*rounds, strict=True)
    ]
    build_s, decode_s, encode_s = (sum(times) for times in zip(*best, strict=True))
    encoded = [
        _encoded(settings, block)
        for source, records in batches
        for block in build_steps(records, source, SeenWindow(0)).blocks
    ]
    rows = sum(block.rows for block in encoded if block.table == "steps_raw")
    own = (build_s - decode_s) / rows * 1e6
    decoding, encoding = decode_s / rows * 1e6, encode_s / rows * 1e6
    parts = [
        ("rows of records, ours", own),
        ("JSON, msgspec", decoding),
        ("Native, clickhouse-connect", encoding),
    ]
    report.table("the sink's code alone", ("part", "CPU us/row"), parts)
    report.figures |= {
        "own_code_us_per_row": own,
        "decode_us_per_row": decoding,
        "encode_us_per_row": encoding,
    }
    report.goals.append(Goal("CPU in our own code", own, GOAL_OWN_US, "us/row"))
    return encoded


def _timed(settings: Settings, source: Source, records: list[Record]) -> tuple[float, float, float]:
    """CPU seconds of a batch: of making its rows and letting go of them, of decoding it, and of
    encoding it."""
    window, decode, began = SeenWindow(0), _decoding(records), time.process_time()
    built = build_steps(records, source, window)
    window.update(built.keys)
    made = time.process_time()
    for number in range(len(built.blocks)):
        _encoded(settings, built.blocks[number])
    written = time.process_time()
    del built
    gone = time.process_time()
    decode()
    return made - began + gone - written, time.process_time() - gone, written - made


def _decoding(records: list[Record]) -> Callable[[], None]:
    """msgspec's share: complete ends, and of starts the fields that identify them."""
    whole, peek = msgspec.json.Decoder(Step).decode, step_rows.peek
    head = slice(*step_rows.HEAD)
    starts = [
        record.value
        for record in records
        if record.value and step_rows.STARTS_AS in record.value[head]
    ]
    ends = [
        record.value
        for record in records
        if record.value and step_rows.STARTS_AS not in record.value[head]
    ]

    def decode() -> None:
        for value in ends:
            whole(value)
        for value in starts:
            peek(value)

    return decode


def _batches(spec: LoadSpec, settings: Settings) -> Iterator[tuple[Source, list[Record]]]:
    """The load as the sink reads it: by partition, a full batch at a time, keys and values fresh as
    a consumer makes them."""
    load = make_load(spec)
    batchers: dict[int, list[tuple[bytes, bytes]]] = {
        number: [] for number in range(settings.partitions)
    }
    for pair in zip(load.keys, load.values, strict=True):
        batchers[partition_for(pair[0], settings.partitions)].append(pair)
    for number, batcher in batchers.items():
        source = Source("bench", number, settings.partitions)
        for start in range(0, len(batcher), settings.sink_batch_rows):
            pairs = batcher[start : start + settings.sink_batch_rows]
            yield (
                source,
                [
                    Record(
                        offset,
                        spec.start_us // 1000,
                        bytes(memoryview(key)),
                        bytes(memoryview(value)),
                        USUAL_HEADERS,
                    )
                    for offset, (key, value) in enumerate(pairs, start)
                ],
            )


def _encoded(settings: Settings, block: Block) -> Encoded:
    context = Inserter(settings)._context(block, "")
    data = b"".join(NativeTransform.build_insert(context))
    return Encoded(
        block.table.name, list(block.columns), data.partition(b"FORMAT Native\n")[2], block.rows
    )


def _ceiling(
    report: Report, settings: Settings, encoded: list[Encoded], store: list[int], when: str
) -> float:
    """Rows a second when everything is encoded already, in a database of its own."""
    elsewhere = settings.model_copy(update={"clickhouse_database": f"ceiling_{when}"})
    migrate(elsewhere)
    rows = sum(block.rows for block in encoded if block.table == "steps_raw")
    clients = [connect(elsewhere) for _ in range(CEILING_THREADS)]
    clients[0].command("SYSTEM STOP MERGES")

    def post(thread: int) -> None:
        for number in range(thread, len(encoded), CEILING_THREADS):
            block = encoded[number]
            how: dict[str, Any] = {**SETTINGS, "insert_deduplication_token": f"{number}"}
            clients[thread].raw_insert(
                block.table, block.columns, block.data, settings=how, fmt="Native"
            )

    meter, began = CpuMeter({"clickhouse": store}), time.monotonic()
    with ThreadPoolExecutor(CEILING_THREADS) as pool:
        list(pool.map(post, range(CEILING_THREADS)))
    took, used = time.monotonic() - began, meter.lap()
    for client in clients:
        client.close()
    cpu = used["clickhouse"] / rows * 1e6
    report.table(
        f"the ceiling, {when} the sink: encoded Native blocks",
        ("", "rows/s", "ClickHouse CPU us/row"),
        [("", rows / took, cpu)],
    )
    report.figures[f"ceiling_{when}_clickhouse_cpu_us_per_row"] = cpu
    return rows / took


def _disk(report: Report, settings: Settings, truth: Truth) -> None:
    """Bytes of a step, its start and its share of the rollups left out."""
    with connect(settings) as client:
        client.command("SYSTEM START MERGES")
        client.command("OPTIMIZE TABLE steps_raw FINAL")
        found = float(
            client.query(DISK, parameters={"database": settings.clickhouse_database}).result_rows[
                0
            ][0]
        )
    raw = truth.value_bytes / truth.steps
    report.table(
        "on disk",
        ("", "bytes/step", "% of its JSON"),
        [("steps_raw, merged", found, 100 * found / raw)],
    )
    report.figures |= {"disk_bytes_per_step": found, "json_bytes_per_step": raw}
    report.ratios["disk_to_json"] = found / raw
    report.goals.append(Goal("disk", found, GOAL_BYTES, "bytes/step"))


def _recorded(report: Report, settings: Settings) -> None:
    """Bytes of a step of recorded agents, where the recordings are on this machine."""
    try:
        runs = [run for source in (tau_bench, trail_gaia) for run in source.runs()]
    except MissingData as missing:
        report.progress(str(missing))
        return
    migrate(settings)
    now_ms, raw = time.time_ns() // 1_000_000, 0
    encode = msgspec.json.Encoder().encode
    records: list[Record] = []
    for run in runs:
        for event in lifecycle(run):
            value = encode(event.model_dump(mode="json", exclude_defaults=True))
            raw += len(value)
            records.append(
                Record(
                    len(records), event.start_time // 1_000, event.trace_id.encode(), value, None
                )
            )
    (block,) = (
        b
        for b in build_steps(records, Source("recorded", 0), frozenset()).blocks
        if b.table.name == "steps_raw"
    )
    block.columns["append_time"] = [now_ms] * block.rows
    Inserter(settings).insert(block, "recorded")
    with connect(settings) as client:
        client.command("OPTIMIZE TABLE steps_raw FINAL")
        found = float(
            client.query(DISK, parameters={"database": settings.clickhouse_database}).result_rows[
                0
            ][0]
        )
    row = (
        f"{len(runs)} recorded runs, {block.rows:,} steps",
        found,
        100 * found * block.rows / raw,
    )
    report.table("on disk, recorded agents", ("", "bytes/step", "% of its JSON"), [row])
    report.figures |= {
        "disk_bytes_per_recorded_step": found,
        "json_bytes_per_recorded_step": raw / block.rows,
    }


def _text_search(report: Report, settings: Settings) -> None:
    """What the index of the text search costs: the same rows inserted without and with it, and
    their size."""
    rows = []
    for wanted in (False, True):
        own = settings.model_copy(
            update={"clickhouse_database": f"search_{wanted}".lower(), "text_search": wanted}
        )
        migrate(own)
        with connect(own) as client:
            client.command("SYSTEM STOP MERGES")
            for view in ("steps_to_rollup_1m", "steps_to_rollup_1h"):
                client.command(f"DROP VIEW {view}")
            began = time.monotonic()
            client.command(
                "INSERT INTO steps_raw (* EXCEPT cost_nanos) SELECT * FROM "
                f"{settings.clickhouse_database}.steps_raw "
                f"LIMIT {SEARCHED_STEPS} SETTINGS max_insert_threads = 1, "
                "min_insert_block_size_rows = 20000"
            )
            took = time.monotonic() - began
            client.command("SYSTEM START MERGES")
            client.command("OPTIMIZE TABLE steps_raw FINAL")
            count = int(str(client.command(STEPS)))
            found = float(
                client.query(DISK, parameters={"database": own.clickhouse_database}).result_rows[0][
                    0
                ]
            )
            ms = median(_times(client, SEARCH, "", 5))
            client.command(f"DROP DATABASE {own.clickhouse_database}")
        rows.append(("with" if wanted else "without", found, took / count * 1e6, ms))
        report.figures |= {
            f"text_search_{rows[-1][0]}_bytes_per_step": found,
            f"text_search_{rows[-1][0]}_query_ms": ms,
        }
    columns = ("text index", "bytes/step", "insert us/row", "one word, ms")
    report.table(f"text search, {SEARCHED_STEPS:,} steps, rows alone", columns, rows)


def _queries(report: Report, settings: Settings, scale: Scale, most: int, store: list[int]) -> None:
    """Every query of the folder, several times, at each size; the store is filled up by copies of
    what is there."""
    rows = []
    with connect(settings, timeout_s=900) as client:
        multiplier = Multiplier(client)
        for size in (size for size in scale.stored_steps if size <= most):
            report.progress(f"filling up to {size:,} steps")
            began = time.monotonic()
            count = multiplier.fill(size)
            report.figures[f"fill_up_to_{size}_s"] = time.monotonic() - began
            client.command("SYSTEM STOP MERGES")  # the queries alone are measured
            trace_id = client.command("SELECT trace_id FROM steps_raw LIMIT 1 OFFSET 5000")
            for file in sorted(QUERIES.glob("*.sql")):
                meter = CpuMeter({"clickhouse": store})
                took = _times(client, file.read_text(), str(trace_id), scale.repeats)
                cpu_ms = meter.lap()["clickhouse"] / scale.repeats * 1000
                rows.append((file.stem, count, median(took), max(took), cpu_ms))
                report.figures[f"query_{file.stem}_{size}_cpu_ms"] = cpu_ms
                report.figures[f"query_{file.stem}_{size}_ms"] = median(took)
                if size in QUERY_GOALS_MS:
                    report.goals.append(
                        Goal(
                            f"{file.stem}, {size:,} steps", median(took), QUERY_GOALS_MS[size], "ms"
                        )
                    )
            client.command("SYSTEM START MERGES")
    report.table("queries", ("query", "steps", "median ms", "max ms", "ClickHouse CPU ms"), rows)


def _times(client: Client, text: str, trace_id: str, repeats: int) -> list[float]:
    """Milliseconds of each repetition."""
    took = []
    parameters = {"trace_id": trace_id} if "{trace_id" in text else None
    for _ in range(repeats):
        began = time.monotonic()
        client.query(text, parameters=parameters)
        took.append((time.monotonic() - began) * 1000)
    return took


if __name__ == "__main__":
    try:
        flags = harness.parser(__doc__ or "")
        flags.add_argument(
            "--no-queries",
            dest="queries",
            action="store_false",
            help="leave out the queries: they take longest",
        )
        flags.add_argument(
            "--most-steps",
            type=int,
            default=FULL.stored_steps[-1],
            help="sizes above are left out (%(default)s)",
        )
        harness.run("store", measure, flags)
    except ChildFailed as error:
        sys.exit(f"store: {error}")
