import { Problem, serverNow } from "./api";
import { type Alert, alertOf, readSession, setServerTime } from "./data";
import { clock, period } from "./format";
import type { StepEvent } from "./merge";
import { session } from "./session.svelte";
import { type Json, list, num, object, stepOf } from "./wire";

/**
 * Whether the page shows current data, for the indicator at the top and the banner.
 * live: it does; late: Kafka or the store does not answer, or is behind; off: no connection to the
 * console; still: no connection yet
 */
export type Liveness = "live" | "late" | "off" | "still";

export interface Part {
  ok: boolean;
  /** server time of the last change of `ok`, µs since 1970; 0 while unknown */
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
  /** step events in Kafka that are not in the store yet */
  behind: 0,
});

/** What a page receives from the stream. */
export interface Wanted {
  /** the run whose steps are sent */
  run?: string;
  /** whether a change of any run is reported */
  runs?: boolean;
  /** whether a change of any task is reported, once the store has it */
  tasks?: boolean;
  /**
   * called when the page must read its snapshot; events that follow are merged into it. `resumed`:
   * the stream continues where it was interrupted, and no new snapshot is needed
   */
  ready?: (resumed: boolean) => void;
  steps?: (events: StepEvent[]) => void;
  alert?: (alerts: Alert[]) => void;
  changed?: () => void;
}

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8000;
/** A connection without events for this time counts as lost: the server sends `state` every 5 s. */
const SILENCE_MS = 15_000;
/** Fewer records are usual: the sink inserts in batches. */
const BEHIND_RECORDS = 1000;
/** Shorter interruptions, such as a restart of the console, show no banner. */
const BANNER_AFTER_US = 2_000_000;
/** A delay below this is usual: the console checks its progress once a second. */
const LAG_SHOWN_US = 1_500_000;

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

/** Registers the handler of an event; every event shows that the connection works. */
function on(name: string, handle: (data: Json) => void): void {
  source?.addEventListener(name, (event) => {
    lastEvent = performance.now();
    handle(json(event));
  });
}

/** Opens the stream for what the page wants, instead of the stream that is open. */
function connect(): void {
  clearTimeout(timer);
  source?.close();
  const params = new URLSearchParams();
  if (wanted.run) params.set("run", wanted.run);
  params.set("alerts", "1");
  if (wanted.runs) params.set("runs", "1");
  if (wanted.tasks) params.set("tasks", "1");
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
  // Nothing to do, because the server sends `ready` next; registered for `lastEvent`.
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
    // Lists that were read while the store lacked records are older than the stream.
    const healed =
      (!live.store.ok && store.ok !== false) || (live.behind > 0 && num(store.behind) === 0);
    live.kafka = { ok: kafka.ok !== false, since: num(kafka.since) };
    live.store = { ok: store.ok !== false, since: num(store.since) };
    live.behind = num(store.behind);
    update();
    if (healed) wanted.changed?.();
  });
}

/** Alerts that began while the page was open; the page announces them. */
export const newAlerts = $state<{ value: Alert[] }>({ value: [] });

/** Connects again after `retry` ms, or opens the login page if the session has ended. */
function reconnect(): void {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    // A stream that is refused gives no status, so the session is read to find out whether it has ended.
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

/** Sets what the open page receives; the stream is opened again only if `run`, `runs` or `tasks` differ. */
export function want(next: Wanted): void {
  wanted = next;
  const nextKey = `${next.run ?? ""} ${next.runs ? 1 : 0} ${next.tasks ? 1 : 0}`;
  if (nextKey === key && source && source.readyState !== EventSource.CLOSED) return;
  key = nextKey;
  connect();
}

/** Computes the indicator and the banner. */
function update(): void {
  const now = serverNow();
  if (lostAt) {
    live.value = "off";
    live.text = `No answer from the console since ${clock(lostAt, now)}`;
    live.banner =
      now - lostAt > BANNER_AFTER_US
        ? `Data as of ${clock(live.asOf || lostAt, now)}, ${period(now - (live.asOf || lostAt))} old. The console does not answer. Actions are off; the page reconnects by itself.`
        : "";
    return;
  }
  const age = Math.max(0, now - (live.asOf || now));
  if (!live.kafka.ok) {
    live.value = "late";
    live.text = `As of ${clock(live.asOf, now)}`;
    live.banner = `Data as of ${clock(live.asOf, now)}, ${period(age)} old. Kafka does not answer. Stop, pause and acknowledge need it and are off. No accepted event is lost; the page continues by itself.`;
  } else if (!live.store.ok) {
    live.value = "late";
    live.text = `No answer from the store since ${clock(live.store.since || now, now)}`;
    live.banner = `The store has not answered since ${clock(live.store.since || now, now)}. Runs that are open here continue from Kafka; lists, contents and answers are not available. Stop works without the store.`;
  } else if (live.behind > BEHIND_RECORDS) {
    live.value = "late";
    live.text = "Store behind";
    live.banner = `The store is ${live.behind.toLocaleString("en")} records behind: lists and sums are older than the open run.`;
  } else {
    live.value = "live";
    // The lag is shown, not the age: without changes the server sends `state` only every 5 s, so the
    // age would always count up to 5 s.
    live.text = live.lag > LAG_SHOWN_US ? `Live, ${period(live.lag)} behind` : "Live";
    live.banner = "";
  }
}

/** Whether commands can be sent now. */
export function canAct(): boolean {
  return session.mayAct && !session.readOnly && live.kafka.ok && live.value !== "off";
}

/** Watches the connection. To be called once, when the console starts. */
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
