-- Steps outside their parents by more than the log explains: clocks of hosts differ.
ALTER TABLE ${database}.runs_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS skewed_steps UInt64 CODEC(ZSTD(1)) AFTER steps_over_limit;
