-- What detectors saw in runs, notes that open no alert included, and what people said about alerts: one row each.
SELECT ${findings_raw_columns}
FROM ${database}.findings_raw FINAL
