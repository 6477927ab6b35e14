-- What a step used beside the totalled tokens: audio, images, cache writes for an hour, web searches ... Absent: none.
ALTER TABLE ${database}.steps_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS usage_details Map(LowCardinality(String), UInt64) CODEC(ZSTD(1)) AFTER reasoning_tokens;
