-- Steps that ended, one row each. The lowest offset of a (trace, step) wins, as in the worker.
-- Rows live for the retention counted from their arrival, so that none can be inserted already expired.
CREATE TABLE IF NOT EXISTS ${database}.steps_raw${on_cluster}
(
    schema_version      UInt16 DEFAULT 1                         CODEC(ZSTD(1)),
    trace_id            String                                   CODEC(ZSTD(1)),
    step_id             String                                   CODEC(ZSTD(1)),
    parent_step_id      String                                   CODEC(ZSTD(1)),
    phase               LowCardinality(String) DEFAULT 'end'     CODEC(ZSTD(1)),
    kind                LowCardinality(String)                   CODEC(ZSTD(1)),
    name                LowCardinality(String)                   CODEC(ZSTD(1)),
    tool                LowCardinality(String)                   CODEC(ZSTD(1)),
    model               LowCardinality(String)                   CODEC(ZSTD(1)),
    provider            LowCardinality(String)                   CODEC(ZSTD(1)),
    project             LowCardinality(String)                   CODEC(ZSTD(1)),
    environment         LowCardinality(String)                   CODEC(ZSTD(1)),
    agent               LowCardinality(String)                   CODEC(ZSTD(1)),
    agent_version       LowCardinality(String)                   CODEC(ZSTD(1)),
    task                LowCardinality(String)                   CODEC(ZSTD(1)),
    session_id          String                                   CODEC(ZSTD(1)),
    user_id             String                                   CODEC(ZSTD(1)),
    start_time          DateTime64(6, 'UTC')                     CODEC(Delta(8), ZSTD(1)),
    end_time            DateTime64(6, 'UTC')                     CODEC(Delta(8), ZSTD(1)),
    first_token_time    Nullable(DateTime64(6, 'UTC'))           CODEC(Delta(8), ZSTD(1)),
    status              LowCardinality(String)                   CODEC(ZSTD(1)),
    error_type          LowCardinality(String)                   CODEC(ZSTD(1)),
    error_message       String                                   CODEC(ZSTD(1)),
    attempt             UInt32                                   CODEC(ZSTD(1)),
    retry_of            String                                   CODEC(ZSTD(1)),
    fallback_of         String                                   CODEC(ZSTD(1)),
    input_tokens        UInt64                                   CODEC(ZSTD(1)),
    output_tokens       UInt64                                   CODEC(ZSTD(1)),
    cached_input_tokens UInt64                                   CODEC(ZSTD(1)),
    cache_write_tokens  UInt64                                   CODEC(ZSTD(1)),
    reasoning_tokens    UInt64                                   CODEC(ZSTD(1)),
    cost_nanos          Nullable(Int64) EPHEMERAL,
    cost_usd            Nullable(Decimal(18, 9)) DEFAULT CAST(toDecimal128(cost_nanos, 9) / 1000000000 AS Nullable(Decimal(18, 9))) CODEC(ZSTD(1)),
    cost_source         LowCardinality(String)                   CODEC(ZSTD(1)),
    price_version       LowCardinality(String)                   CODEC(ZSTD(1)),
    input               String                                   CODEC(ZSTD(3)),
    output              String                                   CODEC(ZSTD(3)),
    input_bytes         Nullable(UInt64)                         CODEC(ZSTD(1)),
    output_bytes        Nullable(UInt64)                         CODEC(ZSTD(1)),
    tool_schema         LowCardinality(String)                   CODEC(ZSTD(1)),
    documents           Array(Tuple(id String, score Nullable(Float64), content String)) CODEC(ZSTD(3)),
    attributes          Map(LowCardinality(String), String)      CODEC(ZSTD(1)),
    duration_us         UInt64 MATERIALIZED toUInt64(greatest(dateDiff('microsecond', start_time, end_time), 0)) CODEC(ZSTD(1)),
    append_time         DateTime64(3, 'UTC')                     CODEC(Delta(8), ZSTD(1)),
    kafka_topic_id      LowCardinality(String)                   CODEC(ZSTD(1)),
    kafka_partition     Int32                                    CODEC(ZSTD(1)),
    kafka_offset        Int64                                    CODEC(Delta(8), ZSTD(1)),
    ver                 UInt64 MATERIALIZED toUInt64(4611686018427387904 - kafka_offset) CODEC(Delta(8), ZSTD(1)),
    INDEX ix_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX ix_attribute_keys mapKeys(attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX ix_attribute_values mapValues(attributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX ix_append append_time TYPE minmax GRANULARITY 1,
    INDEX ix_offset kafka_offset TYPE minmax GRANULARITY 1
)
ENGINE = ${replicated}ReplacingMergeTree(ver)
PARTITION BY toDate(start_time)
ORDER BY (toStartOfMinute(start_time), trace_id, step_id)
TTL toDateTime(append_time) + toIntervalDay(${steps_retention_days})
SETTINGS ttl_only_drop_parts = 1, ${deduplication};

-- Starts. A start whose end arrived in the same batch is left out: the end says it all.
CREATE TABLE IF NOT EXISTS ${database}.steps_open${on_cluster}
(
    trace_id            String                                   CODEC(ZSTD(1)),
    step_id             String                                   CODEC(ZSTD(1)),
    parent_step_id      String                                   CODEC(ZSTD(1)),
    kind                LowCardinality(String)                   CODEC(ZSTD(1)),
    name                LowCardinality(String)                   CODEC(ZSTD(1)),
    tool                LowCardinality(String)                   CODEC(ZSTD(1)),
    model               LowCardinality(String)                   CODEC(ZSTD(1)),
    provider            LowCardinality(String)                   CODEC(ZSTD(1)),
    project             LowCardinality(String)                   CODEC(ZSTD(1)),
    environment         LowCardinality(String)                   CODEC(ZSTD(1)),
    agent               LowCardinality(String)                   CODEC(ZSTD(1)),
    agent_version       LowCardinality(String)                   CODEC(ZSTD(1)),
    task                LowCardinality(String)                   CODEC(ZSTD(1)),
    session_id          String                                   CODEC(ZSTD(1)),
    user_id             String                                   CODEC(ZSTD(1)),
    start_time          DateTime64(6, 'UTC')                     CODEC(Delta(8), ZSTD(1)),
    attempt             UInt32                                   CODEC(ZSTD(1)),
    retry_of            String                                   CODEC(ZSTD(1)),
    fallback_of         String                                   CODEC(ZSTD(1)),
    input               String                                   CODEC(ZSTD(1)),
    input_bytes         Nullable(UInt64)                         CODEC(ZSTD(1)),
    tool_schema         LowCardinality(String)                   CODEC(ZSTD(1)),
    attributes          Map(LowCardinality(String), String)      CODEC(ZSTD(1)),
    append_time         DateTime64(3, 'UTC')                     CODEC(Delta(8), ZSTD(1)),
    kafka_topic_id      LowCardinality(String)                   CODEC(ZSTD(1)),
    kafka_partition     Int32                                    CODEC(ZSTD(1)),
    kafka_offset        Int64                                    CODEC(Delta(8), ZSTD(1)),
    ver                 UInt64 MATERIALIZED toUInt64(4611686018427387904 - kafka_offset) CODEC(Delta(8), ZSTD(1))
)
ENGINE = ${replicated}ReplacingMergeTree(ver)
PARTITION BY toDate(append_time)
ORDER BY (trace_id, step_id)
TTL toDateTime(append_time) + toIntervalDay(2)
SETTINGS ttl_only_drop_parts = 1, ${deduplication};
