import { Problem, serverNow } from "./api";
import { type Alert, alertOf, readSession, setServerTime } from "./data";
import { clock, period } from "./format";
import type { StepEvent } from "./merge";
import { session } from "./session.svelte";
import { type Json, list, num, object, stepOf } from "./wire";

/** Whether the page shows current data, for the mark at the top and the banner. */
export type Liveness = "live" | "late" | "off" | "still";

export interface Part {
  ok: boolean;
  since: number;
}

export const live = $state({
  value: "still" as Liveness,
  text: "",
  banner: "",
  /** server time up to which data is shown, µs; 0 while unknown */
  asOf: 0,
  /** how far `asOf` was behind the server when it was sent, µs */
  lag: 0,
  kafka: { ok: true, since: 0 } as Part,
  store: { ok: true, since: 0 } as Part,
  /** records that the store lacks */
  behind: 0,
});

/** What a page wants from the stream. */
export interface Wanted {
  run?: string;
  runs?: boolean;
  /** the snapshot is to be read now and then merged */
  ready?: (resumed: boolean) => void;
  steps?: (events: StepEvent[]) => void;
  alert?: (alerts: Alert[]) => void;
  changed?: () => void;
}

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8000;
/** Without any event for so long the connection is considered lost; `state` comes every five s. */
const SILENCE_MS = 15_000;
const BEHIND_RECORDS = 1000;

let wanted: Wanted = {};
let source: EventSource | null = null;
let key = "";
let retry = FIRST_RETRY_MS;
let timer: ReturnType<typeof setTimeout> | undefined;
let lastEvent = 0;
let lostAt = 0;

function json(event: Event): Json {
  try {
    return object(JSON.parse((event as MessageEvent).data));
  } catch {
    return {};
  }
}

function on(name: string, handle: (data: Json) => void): void {
  source?.addEventListener(name, (event) => {
    lastEvent = performance.now();
    handle(json(event));
  });
}

function connect(): void {
  clearTimeout(timer);
  source?.close();
  const params = new URLSearchParams();
  if (wanted.run) params.set("run", wanted.run);
  params.set("alerts", "1");
  if (wanted.runs) params.set("runs", "1");
  source = new EventSource(`/api/v1/live?${params}`);
  lastEvent = performance.now();
  source.onopen = () => {
    retry = FIRST_RETRY_MS;
    lostAt = 0;
    update();
    if (!session.known) void readSession().catch(() => {});
  };
  source.onerror = () => {
    if (!lostAt) lostAt = serverNow();
    update();
    // A closed source does not try again by itself, for example after a 503 or a 401.
    if (source?.readyState === EventSource.CLOSED) reconnect();
  };
  on("hello", (data) => setServerTime(data.server_time));
  on("ready", (data) => wanted.ready?.(data.resumed === true));
  on("resync", () => {});
  on("steps", (data) => {
    const events = list(data.steps).map((one): StepEvent => {
      const row = object(one);
      const step = stepOf(row);
      return { phase: row.phase === "start" || step.end === null ? "start" : "end", step };
    });
    live.asOf = serverNow();
    wanted.steps?.(events);
  });
  on("alerts", (data) => {
    const found = list(data.alerts).map((one) => alertOf(object(one)));
    for (const alert of found) {
      if (alert.seq === 1 && alert.state === "firing")
        newAlerts.value = [alert, ...newAlerts.value].slice(0, 5);
    }
    wanted.alert?.(found);
  });
  on("changed", () => wanted.changed?.());
  on("state", (data) => {
    setServerTime(data.server_time);
    live.asOf = num(data.data_as_of) || serverNow();
    live.lag = Math.max(0, num(data.server_time) - live.asOf);
    const kafka = object(data.kafka);
    const store = object(data.store);
    const healed = !live.store.ok && store.ok !== false;
    live.kafka = { ok: kafka.ok !== false, since: num(kafka.since) };
    live.store = { ok: store.ok !== false, since: num(store.since) };
    live.behind = num(store.behind);
    update();
    if (healed) wanted.changed?.();
  });
}

/** Alerts that began while the page was open; the page announces them. */
export const newAlerts = $state<{ value: Alert[] }>({ value: [] });

function reconnect(): void {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    // A stream that is refused gives no status, so the session says whether it has ended.
    try {
      await readSession();
    } catch (problem) {
      if (problem instanceof Problem && problem.status === 401) {
        location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
        return;
      }
    }
    connect();
  }, retry);
  retry = Math.min(LONGEST_RETRY_MS, retry * 2);
}

/** Sets what the open page wants; the stream is opened again only if that changed. */
export function want(next: Wanted): void {
  wanted = next;
  const nextKey = `${next.run ?? ""} ${next.runs ? 1 : 0}`;
  if (nextKey === key && source && source.readyState !== EventSource.CLOSED) return;
  key = nextKey;
  connect();
}

/** Computes what the page says about the age of its data. */
function update(): void {
  const now = serverNow();
  if (lostAt) {
    live.value = "off";
    live.text = `Console away since ${clock(lostAt, now)}`;
    live.banner =
      now - lostAt > 2_000_000
        ? `Data as of ${clock(live.asOf || lostAt, now)}, ${period(now - (live.asOf || lostAt))} old. The console does not answer. Actions are off; the page goes on by itself when it is back.`
        : "";
    return;
  }
  const age = Math.max(0, now - (live.asOf || now));
  if (!live.kafka.ok) {
    live.value = "late";
    live.text = `As of ${clock(live.asOf, now)}`;
    live.banner = `Data as of ${clock(live.asOf, now)}, ${period(age)} old. Kafka does not answer. Stop, pause and acknowledge need it and are off. No accepted event is lost; the page goes on by itself.`;
  } else if (!live.store.ok) {
    live.value = "late";
    live.text = `Store away since ${clock(live.store.since || now, now)}`;
    live.banner = `The store does not answer since ${clock(live.store.since || now, now)}. Runs that are open here go on from Kafka; lists, contents and answers wait for it. Stop works without the store.`;
  } else if (live.behind > BEHIND_RECORDS) {
    live.value = "late";
    live.text = `Store behind`;
    live.banner = `The store is ${live.behind.toLocaleString("en")} records behind: lists and sums are older than the open run.`;
  } else {
    live.value = "live";
    // Not the age: while nothing changes the state is sent every five seconds only.
    live.text = live.lag > 1_500_000 ? `Live, ${period(live.lag)} behind` : "Live";
    live.banner = "";
  }
}

/** Whether commands can be sent now. */
export function canAct(): boolean {
  return session.mayAct && !session.readOnly && live.kafka.ok && live.value !== "off";
}

export function startLive(): void {
  setInterval(() => {
    if (source && performance.now() - lastEvent > SILENCE_MS && !lostAt) {
      lostAt = serverNow();
      source.close();
      reconnect();
    }
    update();
  }, 1000);
}
