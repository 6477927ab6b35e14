/** What the server answered instead of data. */
export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly nearest: string[];
  readonly path: string;

  constructor(
    status: number,
    message: string,
    more: { code?: string; nearest?: string[]; path?: string } = {},
  ) {
    super(message);
    this.status = status;
    this.code = more.code ?? "";
    this.nearest = more.nearest ?? [];
    this.path = more.path ?? "";
  }
}

/** Server time minus browser time, in milliseconds. */
export const skew = { ms: 0 };

/** Server time in microseconds. */
export function serverNow(): number {
  return (Date.now() + skew.ms) * 1000;
}

const TIMEOUT_MS = 30_000;

async function read(response: Response, path: string): Promise<unknown> {
  const type = response.headers.get("content-type") ?? "";
  const body: unknown = type.includes("json") ? await response.json() : await response.text();
  if (response.ok) return body;
  const given = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
  // A proxy in between answers with text or a page of its own.
  const message =
    String(given.error ?? (typeof body === "string" && body.length < 300 ? body : "")) ||
    `the server answered ${response.status}`;
  throw new Problem(response.status, message, {
    code: String(given.code ?? ""),
    nearest: Array.isArray(given.nearest) ? given.nearest.map(String) : [],
    path,
  });
}

/** GET of a path of this server. Raises `Problem`. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await request(path, { signal })) as T;
}

/** POST of JSON; the header is what the server asks of pages, so that no form can send one. */
export async function post<T>(path: string, body: unknown): Promise<T> {
  return (await request(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json", "x-stepstream-csrf": "1" },
  })) as T;
}

async function request(path: string, init: RequestInit): Promise<unknown> {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  const signal = init.signal ? AbortSignal.any([init.signal, limit]) : limit;
  let response: Response;
  try {
    response = await fetch(path, { ...init, signal, credentials: "same-origin" });
  } catch (failure) {
    if (init.signal?.aborted) throw failure;
    const late = limit.aborted;
    throw new Problem(
      0,
      late
        ? `the console did not answer within ${TIMEOUT_MS / 1000} s`
        : "the console does not answer",
      { code: late ? "timeout" : "unreachable", path },
    );
  }
  return read(response, path);
}
