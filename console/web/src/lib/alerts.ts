import { count, dollars, period, share } from "./format";

/** The colour of a severity. */
export function severityTone(severity: string): "error" | "warning" | "info" {
  if (severity === "critical" || severity === "error") return "error";
  return severity === "warning" ? "warning" : "info";
}

/** A measured value in its unit. */
export function measured(value: number | null, unit: string): string {
  if (value === null) return "unknown";
  if (unit === "usd") return dollars(value);
  if (unit === "us") return period(value);
  if (unit === "ratio") return share(value);
  return `${count(value)} ${unit === "count" ? "" : unit}`.trim();
}
