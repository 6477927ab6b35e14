-- Whether a run meets the Criteria documents that match it.
ALTER TABLE ${database}.runs_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS success LowCardinality(String) CODEC(ZSTD(1)) AFTER status,
    ADD COLUMN IF NOT EXISTS success_reason String CODEC(ZSTD(1)) AFTER success;
