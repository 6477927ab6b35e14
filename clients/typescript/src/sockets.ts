/**
 * Keeps the SDK's connections from keeping a Node process alive.
 *
 * `fetch` has no option for this. Node's implementation publishes each request with its socket on a
 * diagnostics channel (https://undici.nodejs.org/#/docs/api/DiagnosticsChannel); the SDK recognises
 * its own by a header. Elsewhere nothing is published.
 */
import diagnostics from "node:diagnostics_channel";

export const USER_AGENT = "stepstream-typescript";
/** Of requests that must not keep the process alive. */
export const IN_BACKGROUND = `${USER_AGENT} (background)`;
const CHANNEL = "undici:client:sendHeaders";

interface Sent {
  headers?: unknown;
  socket?: { unref?: () => void };
}

// A channel without a reference to it may be collected, and its subscribers with it.
const requests = diagnostics.channel(CHANNEL);
let works = false;
let isWatching = false;

/** Whether an open connection of the SDK lets the process end. Known after the first request. */
export function lettingGo(): boolean {
  return works;
}

/** Start to watch; the second call does nothing. */
export function watchSockets(): void {
  if (isWatching) return;
  isWatching = true;
  requests.subscribe((message) => {
    const { headers, socket } = message as Sent;
    if (typeof headers !== "string" || !headers.includes(IN_BACKGROUND)) return;
    socket?.unref?.();
    works = socket?.unref !== undefined;
  });
}
