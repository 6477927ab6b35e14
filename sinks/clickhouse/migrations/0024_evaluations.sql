-- Results of suites, as `stepstream eval publish` stores them: one row a trial.
CREATE TABLE IF NOT EXISTS ${database}.eval_trials_raw${on_cluster}
(
    results_id       String                            CODEC(ZSTD(1)),
    project          LowCardinality(String)            CODEC(ZSTD(1)),
    suite            LowCardinality(String)            CODEC(ZSTD(1)),
    suite_version    LowCardinality(String)            CODEC(ZSTD(1)),
    agent            LowCardinality(String)            CODEC(ZSTD(1)),
    case_id          String                            CODEC(ZSTD(1)),
    trial            UInt32                            CODEC(ZSTD(1)),
    success          LowCardinality(String)            CODEC(ZSTD(1)),
    reason           String                            CODEC(ZSTD(1)),
    crashed          Bool                              CODEC(ZSTD(1)),
    cost_usd         Nullable(Float64)                 CODEC(ZSTD(1)),
    latency_s        Nullable(Float64)                 CODEC(ZSTD(1)),
    tokens           Nullable(Float64)                 CODEC(ZSTD(1)),
    tool_errors      Nullable(Float64)                 CODEC(ZSTD(1)),
    trace_id         String                            CODEC(ZSTD(1)),
    grades           String                            CODEC(ZSTD(1)),
    published_at     DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1))
)
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (project, results_id, case_id, trial)
TTL toDateTime(published_at) + toIntervalDay(${runs_retention_days})
SETTINGS ${deduplication};

-- Verdicts of the gate, as `stepstream eval gate --publish` stores them.
CREATE TABLE IF NOT EXISTS ${database}.eval_verdicts_raw${on_cluster}
(
    verdict_id       String                            CODEC(ZSTD(1)),
    project          LowCardinality(String)            CODEC(ZSTD(1)),
    outcome          LowCardinality(String)            CODEC(ZSTD(1)),
    suite            LowCardinality(String)            CODEC(ZSTD(1)),
    suite_version    LowCardinality(String)            CODEC(ZSTD(1)),
    baseline         LowCardinality(String)            CODEC(ZSTD(1)),
    candidate        LowCardinality(String)            CODEC(ZSTD(1)),
    baseline_id      String                            CODEC(ZSTD(1)),
    candidate_id     String                            CODEC(ZSTD(1)),
    cases            UInt32                            CODEC(ZSTD(1)),
    trials           UInt32                            CODEC(ZSTD(1)),
    reasons          Array(String)                     CODEC(ZSTD(1)),
    notes            Array(String)                     CODEC(ZSTD(1)),
    verdict          String                            CODEC(ZSTD(1)),
    published_at     DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1))
)
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (project, verdict_id)
TTL toDateTime(published_at) + toIntervalDay(${runs_retention_days})
SETTINGS ${deduplication};
