import type { Axis } from "./axis";

export interface Window {
  first: number;
  last: number;
}

/** Rows outside the view that are drawn too, so that a scroll of a few rows shows no gap. */
const OVERSCAN = 6;

/** Which rows are drawn at this scroll position; `last` is exclusive. */
export function windowOf(
  scrollTop: number,
  height: number,
  rowHeight: number,
  rows: number,
): Window {
  const first = Math.max(0, Math.min(rows, Math.floor(scrollTop / rowHeight)) - OVERSCAN);
  const visible = Math.ceil(height / rowHeight) + 1;
  return { first, last: Math.min(rows, first + visible + 2 * OVERSCAN) };
}

/** Scroll position at which `row` is in view; `scrollTop` itself where it already is. */
export function scrollTo(
  row: number,
  scrollTop: number,
  height: number,
  rowHeight: number,
): number {
  const top = row * rowHeight;
  if (top < scrollTop) return Math.max(0, top - rowHeight);
  if (top + rowHeight > scrollTop + height) return top + 2 * rowHeight - height;
  return scrollTop;
}

export interface Bar {
  /** per cent of the visible width */
  x: number;
  width: number;
  /** the label stands left of the bar because there is no room at its right */
  left: boolean;
  /** the bar is outside of the visible part: -1 before it, 1 after it, 0 inside */
  outside: -1 | 0 | 1;
}

/** The bar of a step within the visible part [a, b] of the axis. */
export function barOf(axis: Axis, position: number, a: number, b: number): Bar {
  const [from, to] = axis.span(position);
  const scale = 100 / (b - a);
  const x0 = (from - a) * scale;
  const x1 = (to - a) * scale;
  const outside = x1 < 0 ? -1 : x0 > 100 ? 1 : 0;
  const x = Math.max(-1, Math.min(101, x0));
  return {
    x,
    width: Math.max(0, Math.min(101, x1) - x),
    left: Math.min(100, x1) > 66 && x > 30,
    outside,
  };
}
