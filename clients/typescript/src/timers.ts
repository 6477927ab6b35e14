// Of node:timers and not the global ones, because these have `unref` in Deno and Bun too.
import { clearTimeout, setTimeout } from "node:timers";

// The most that a timer of Node can wait, 24 days; a longer one would fire at once.
export const LONGEST_MS = 2 ** 31 - 1;

/** A timer that does not keep the process alive. */
export function later(ms: number, action: () => void): { cancel: () => void } {
  const timer = setTimeout(action, ms);
  timer.unref();
  return { cancel: () => clearTimeout(timer) };
}

/** A timer that keeps the process alive: for what the program itself waits for. */
export function alarm(ms: number, action: () => void): { cancel: () => void } {
  const timer = setTimeout(action, Math.min(ms, LONGEST_MS));
  return { cancel: () => clearTimeout(timer) };
}
