-- Steps whose sender did not state whether their parent is in another process.
ALTER TABLE ${database}.steps_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS parent_unknown Bool CODEC(ZSTD(1)) AFTER parent_remote;
