"""The engine's configuration: caches and pools for one machine that does other work too."""

from __future__ import annotations

import os
from pathlib import Path
from xml.sax.saxutils import escape

MIB = 1 << 20


def server_settings(memory_bytes: int, backups: Path) -> dict[str, object]:
    """Server settings by their names; the caches are upper bounds, they fill only with use."""
    return {
        "max_server_memory_usage": memory_bytes,
        # The defaults of the caches are gigabytes, for machines that do nothing else.
        "mark_cache_size": 64 * MIB,
        "index_mark_cache_size": 32 * MIB,
        "uncompressed_cache_size": 0,
        "index_uncompressed_cache_size": 0,
        "primary_index_cache_size": 64 * MIB,
        "query_condition_cache_size": 16 * MIB,
        "mmap_cache_size": 64,
        "compiled_expression_cache_size": 32 * MIB,
        # One thread pool of each kind is small: merges of a laptop's data take seconds.
        "background_pool_size": 2,
        "background_merges_mutations_concurrency_ratio": 1,
        "background_schedule_pool_size": 4,
        "background_common_pool_size": 2,
        "background_fetches_pool_size": 1,
        "background_move_pool_size": 1,
        "background_buffer_flush_schedule_pool_size": 1,
        "background_message_broker_schedule_pool_size": 1,
        "background_distributed_schedule_pool_size": 1,
        "tables_loader_foreground_pool_size": 2,
        "tables_loader_background_pool_size": 1,
        "async_insert_threads": 1,
        # A query takes a few threads; the limit is for many queries at the same time.
        "max_thread_pool_size": 400,
        "max_thread_pool_free_size": 16,
        "thread_pool_queue_size": 1000,
        "async_load_databases": "false",
        "backups/allowed_path": backups,
        # Merges must never want more memory at once than the whole server may have.
        "merge_tree/max_bytes_to_merge_at_max_space_in_pool": 20 << 30,
        "merge_tree/number_of_free_entries_in_pool_to_execute_mutation": 1,
        "merge_tree/number_of_free_entries_in_pool_to_lower_max_size_of_merge": 1,
        "merge_tree/number_of_free_entries_in_pool_to_execute_optimize_entire_partition": 1,
    }


def render(settings: dict[str, object]) -> str:
    """As ClickHouse's XML; a slash in a name is nesting."""
    lines = []
    for name, value in settings.items():
        outer, _, inner = name.rpartition("/")
        line = f"<{inner}>{escape(str(value))}</{inner}>"
        lines.append(f"<{outer}>{line}</{outer}>" if outer else line)
    return "<clickhouse>\n" + "\n".join(lines) + "\n</clickhouse>\n"


def default_memory_bytes() -> int:
    """Half of the machine's memory, 4 GiB at most."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 2 << 30
    return min(4 << 30, total // 2)
