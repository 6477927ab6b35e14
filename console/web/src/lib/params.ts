import type { AxisMode } from "./axis";
import type { RunView } from "./run.svelte";

const MODES: readonly string[] = ["real", "folded", "step"];

/** Takes selection, axis, zoom, folding and search from the address. */
export function applyParams(view: RunView, params: URLSearchParams): void {
  const mode = params.get("axis") ?? "";
  if (MODES.includes(mode)) view.mode = mode as AxisMode;
  const [a, b] = (params.get("zoom") ?? "").split("-").map(Number);
  if (Number.isFinite(a) && Number.isFinite(b)) view.zoomTo(a, b);
  const step = params.get("step");
  if (step) view.select(step);
  view.onlyCritical = params.get("show") === "critical";
  view.query = params.get("find") ?? "";
  const folded = params.get("folded");
  if (folded) view.collapsed = new Set(folded.split(",").slice(0, 200));
}

/** The same as parameters; what is at its default is null. */
export function paramsOf(view: RunView): Record<string, string | null> {
  const [a, b] = view.zoom;
  const folded = [...view.collapsed];
  return {
    step: view.selected || null,
    axis: view.mode === "folded" ? null : view.mode,
    zoom: a > 0 || b < 1 ? `${+a.toFixed(5)}-${+b.toFixed(5)}` : null,
    show: view.onlyCritical ? "critical" : null,
    find: view.query || null,
    // A longer list would make an address that servers refuse.
    folded: folded.length > 0 && folded.length <= 60 ? folded.join(",") : null,
  };
}
