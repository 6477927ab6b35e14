-- Findings of detectors, including notes that open no alert, and people's actions on alerts: one row each.
SELECT ${findings_raw_columns}
FROM ${database}.findings_raw FINAL
