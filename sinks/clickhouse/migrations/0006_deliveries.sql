-- Deliveries: every record of the deliveries topic is a line of the log. How an alert stands with a subscription is its last.
CREATE TABLE IF NOT EXISTS ${database}.deliveries_raw${on_cluster}
(
    subscription     LowCardinality(String)            CODEC(ZSTD(1)),
    alert_id         String                            CODEC(ZSTD(1)),
    seq              UInt64                            CODEC(ZSTD(1)),
    state            LowCardinality(String)            CODEC(ZSTD(1)),
    time             DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    channel          LowCardinality(String)            CODEC(ZSTD(1)),
    notification_id  String                            CODEC(ZSTD(1)),
    `group`          String                            CODEC(ZSTD(1)),
    attempts         UInt32                            CODEC(ZSTD(1)),
    next_try         Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    since            Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    reason           String                            CODEC(ZSTD(1)),
    latency_us       UInt64                            CODEC(ZSTD(1)),
    told_seq         UInt64                            CODEC(ZSTD(1)),
    told_state       LowCardinality(String)            CODEC(ZSTD(1)),
    told_severity    LowCardinality(String)            CODEC(ZSTD(1)),
    told_at          Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    alert            LowCardinality(String)            CODEC(ZSTD(1)),
    project          LowCardinality(String)            CODEC(ZSTD(1)),
    environment      LowCardinality(String)            CODEC(ZSTD(1)),
    agent            LowCardinality(String)            CODEC(ZSTD(1)),
    severity         LowCardinality(String)            CODEC(ZSTD(1)),
    alert_state      LowCardinality(String)            CODEC(ZSTD(1)),
    append_time      DateTime64(3, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    kafka_topic_id   LowCardinality(String)            CODEC(ZSTD(1)),
    kafka_partition  Int32                             CODEC(ZSTD(1)),
    kafka_offset     Int64                             CODEC(Delta(8), ZSTD(1)),
    INDEX ix_alert alert_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (subscription, alert_id, kafka_topic_id, kafka_partition, kafka_offset)
TTL toDateTime(time) + toIntervalDay(${alerts_retention_days})
SETTINGS ${deduplication};
