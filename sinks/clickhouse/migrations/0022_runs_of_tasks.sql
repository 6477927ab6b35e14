-- The durable task that a run is an attempt at, and which attempt.
ALTER TABLE ${database}.runs_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS task_id String CODEC(ZSTD(1)) AFTER config_drift,
    ADD COLUMN IF NOT EXISTS attempt UInt32 CODEC(ZSTD(1)) AFTER task_id;
