-- Every change of a task, one row each. A replay, and a worker that was replaced and goes on for a moment, write a change
-- again: of the rows of one revision that of the highest epoch is kept.
CREATE TABLE IF NOT EXISTS ${database}.task_events_raw${on_cluster}
(
    project          LowCardinality(String)            CODEC(ZSTD(1)),
    task_id          String                            CODEC(ZSTD(1)),
    submitted_at     DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    revision         UInt64                            CODEC(Delta(8), ZSTD(1)),
    epoch            UInt64                            CODEC(ZSTD(1)),
    changed_at       DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    event            LowCardinality(String)            CODEC(ZSTD(1)),
    state            LowCardinality(String)            CODEC(ZSTD(1)),
    waiting_for      LowCardinality(String)            CODEC(ZSTD(1)),
    waiting_until    Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    reason           LowCardinality(String)            CODEC(ZSTD(1)),
    detail           String                            CODEC(ZSTD(1)),
    by               String                            CODEC(ZSTD(1)),
    agent            LowCardinality(String)            CODEC(ZSTD(1)),
    target           LowCardinality(String)            CODEC(ZSTD(1)),
    run_agent        LowCardinality(String)            CODEC(ZSTD(1)),
    run_version      LowCardinality(String)            CODEC(ZSTD(1)),
    attempt          UInt32                            CODEC(ZSTD(1)),
    fence            UInt64                            CODEC(ZSTD(1)),
    executor_id      LowCardinality(String)            CODEC(ZSTD(1)),
    trace_id         String                            CODEC(ZSTD(1)),
    error_type       LowCardinality(String)            CODEC(ZSTD(1)),
    error_message    String                            CODEC(ZSTD(1)),
    append_time      DateTime64(3, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    kafka_topic_id   LowCardinality(String)            CODEC(ZSTD(1)),
    kafka_partition  Int32                             CODEC(ZSTD(1)),
    kafka_offset     Int64                             CODEC(Delta(8), ZSTD(1)),
    INDEX ix_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ${replicated}ReplacingMergeTree(epoch)
PARTITION BY toYYYYMM(submitted_at)
ORDER BY (project, task_id, submitted_at, revision)
TTL toDateTime(changed_at) + toIntervalDay(${tasks_retention_days})
SETTINGS ${deduplication};

-- Tasks as they are: of each the record with the highest epoch and revision. An id can be used again a week after its task
-- has ended: that is another task, submitted at another time.
CREATE TABLE IF NOT EXISTS ${database}.tasks_raw${on_cluster}
(
    project          LowCardinality(String)            CODEC(ZSTD(1)),
    task_id          String                            CODEC(ZSTD(1)),
    submitted_at     DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    epoch            UInt64                            CODEC(ZSTD(1)),
    revision         UInt64                            CODEC(ZSTD(1)),
    changed_at       DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    event            LowCardinality(String)            CODEC(ZSTD(1)),
    state            LowCardinality(String)            CODEC(ZSTD(1)),
    waiting_for      LowCardinality(String)            CODEC(ZSTD(1)),
    waiting_until    Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    reason           LowCardinality(String)            CODEC(ZSTD(1)),
    detail           String                            CODEC(ZSTD(1)),
    by               String                            CODEC(ZSTD(1)),
    agent            LowCardinality(String)            CODEC(ZSTD(1)),
    version          LowCardinality(String)            CODEC(ZSTD(1)),
    environment      LowCardinality(String)            CODEC(ZSTD(1)),
    user_id          String                            CODEC(ZSTD(1)),
    session_id       String                            CODEC(ZSTD(1)),
    submitted_by     String                            CODEC(ZSTD(1)),
    priority         UInt8                             CODEC(ZSTD(1)),
    key              String                            CODEC(ZSTD(1)),
    on_busy          LowCardinality(String)            CODEC(ZSTD(1)),
    after            Array(String)                     CODEC(ZSTD(1)),
    parent_task_id   String                            CODEC(ZSTD(1)),
    max_attempts     UInt32                            CODEC(ZSTD(1)),
    timeout_us       UInt64                            CODEC(ZSTD(1)),
    budget_usd       String                            CODEC(ZSTD(1)),
    not_before       Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    deadline_at      Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    attempt          UInt32                            CODEC(ZSTD(1)),
    fence            UInt64                            CODEC(ZSTD(1)),
    executor_id      LowCardinality(String)            CODEC(ZSTD(1)),
    target           LowCardinality(String)            CODEC(ZSTD(1)),
    run_agent        LowCardinality(String)            CODEC(ZSTD(1)),
    run_version      LowCardinality(String)            CODEC(ZSTD(1)),
    trace_id         String                            CODEC(ZSTD(1)),
    bound_at         Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    started_at       Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    ended_at         Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    lease_us         UInt64                            CODEC(ZSTD(1)),
    timeout_at       Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    cancelling       Bool                              CODEC(ZSTD(1)),
    stopping         LowCardinality(String)            CODEC(ZSTD(1)),
    attempts         Array(Tuple(attempt UInt32, fence UInt64, trace_id String, executor_id String, agent String, version String, bound_at Nullable(DateTime64(6, 'UTC')), started_at Nullable(DateTime64(6, 'UTC')), ended_at Nullable(DateTime64(6, 'UTC')), status String, error_type String, error_message String, reason String)) CODEC(ZSTD(1)),
    fallbacks        Array(String)                     CODEC(ZSTD(1)),
    executors_lost   UInt32                            CODEC(ZSTD(1)),
    once             Map(String, String)               CODEC(ZSTD(1)),
    input            String                            CODEC(ZSTD(3)),
    input_ref        String                            CODEC(ZSTD(1)),
    result           String                            CODEC(ZSTD(3)),
    error_type       LowCardinality(String)            CODEC(ZSTD(1)),
    error_message    String                            CODEC(ZSTD(1)),
    append_time      DateTime64(3, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    kafka_topic_id   LowCardinality(String)            CODEC(ZSTD(1)),
    kafka_partition  Int32                             CODEC(ZSTD(1)),
    kafka_offset     Int64                             CODEC(Delta(8), ZSTD(1)),
    ver              UInt64 MATERIALIZED bitShiftLeft(epoch, 32) + revision CODEC(ZSTD(1)),
    INDEX ix_task task_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ${replicated}ReplacingMergeTree(ver)
PARTITION BY toYYYYMM(submitted_at)
ORDER BY (project, task_id, submitted_at)
TTL toDateTime(changed_at) + toIntervalDay(${tasks_retention_days})
SETTINGS ${deduplication};

-- Every change of an executor, one row each; an executor as it is: its last.
CREATE TABLE IF NOT EXISTS ${database}.executor_events_raw${on_cluster}
(
    project          LowCardinality(String)            CODEC(ZSTD(1)),
    executor_id      String                            CODEC(ZSTD(1)),
    revision         UInt64                            CODEC(Delta(8), ZSTD(1)),
    epoch            UInt64                            CODEC(ZSTD(1)),
    changed_at       DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    event            LowCardinality(String)            CODEC(ZSTD(1)),
    state            LowCardinality(String)            CODEC(ZSTD(1)),
    reason           String                            CODEC(ZSTD(1)),
    host             String                            CODEC(ZSTD(1)),
    pid              UInt32                            CODEC(ZSTD(1)),
    slots            UInt32                            CODEC(ZSTD(1)),
    running          UInt32                            CODEC(ZSTD(1)),
    agents           Array(Tuple(name String, version String, slots UInt32, max_running UInt32, timeout_us UInt64, lease_us UInt64, attempts UInt32, fallback String, budget_usd String, idempotent Bool)) CODEC(ZSTD(1)),
    started_at       Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    last_beat        Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    drain_by         Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    append_time      DateTime64(3, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    kafka_topic_id   LowCardinality(String)            CODEC(ZSTD(1)),
    kafka_partition  Int32                             CODEC(ZSTD(1)),
    kafka_offset     Int64                             CODEC(Delta(8), ZSTD(1))
)
ENGINE = ${replicated}ReplacingMergeTree(epoch)
ORDER BY (project, executor_id, revision)
TTL toDateTime(changed_at) + toIntervalDay(${tasks_retention_days})
SETTINGS ${deduplication};

-- Submits and commands that were refused and changed nothing, one row each.
CREATE TABLE IF NOT EXISTS ${database}.task_refusals_raw${on_cluster}
(
    project          LowCardinality(String)            CODEC(ZSTD(1)),
    task_id          String                            CODEC(ZSTD(1)),
    refused_at       DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    refused          LowCardinality(String)            CODEC(ZSTD(1)),
    reason           LowCardinality(String)            CODEC(ZSTD(1)),
    detail           String                            CODEC(ZSTD(1)),
    source_offset    Int64                             CODEC(ZSTD(1)),
    append_time      DateTime64(3, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    kafka_topic_id   LowCardinality(String)            CODEC(ZSTD(1)),
    kafka_partition  Int32                             CODEC(ZSTD(1)),
    kafka_offset     Int64                             CODEC(Delta(8), ZSTD(1))
)
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (project, task_id, source_offset, kafka_partition)
TTL toDateTime(refused_at) + toIntervalDay(${tasks_retention_days})
SETTINGS ${deduplication};
