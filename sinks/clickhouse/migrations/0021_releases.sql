-- The release that a run used, and how its configuration differs from it.
ALTER TABLE ${database}.runs_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS release String CODEC(ZSTD(1)) AFTER models,
    ADD COLUMN IF NOT EXISTS config_drift Array(LowCardinality(String)) CODEC(ZSTD(1)) AFTER release;
