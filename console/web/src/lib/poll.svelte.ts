import { onDestroy } from "svelte";
import { live } from "./live.svelte";

/** Data of a page: loaded at once, again when asked, and kept while a new load fails. */
export class Loader<T> {
  data = $state.raw<T | null>(null);
  problem = $state.raw<unknown>(null);
  loading = $state(false);
  readonly #read: () => Promise<T>;
  #again = false;
  #later = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #took = 0;
  #left = false;

  constructor(read: () => Promise<T>) {
    this.#read = read;
    onDestroy(() => {
      this.#left = true;
      this.#stop();
    });
  }

  /** Loads; a call during a load makes one more load after it. */
  async load(): Promise<void> {
    if (this.loading) {
      this.#again = true;
      return;
    }
    this.loading = true;
    this.#stop();
    const began = performance.now();
    try {
      this.data = await this.#read();
      this.problem = null;
    } catch (problem) {
      this.problem = problem;
      // An outage ends by itself, so the page tries again by itself.
      const wait = live.value === "live" ? 4000 : 2000;
      if (!this.#left) this.#timer = setTimeout(() => void this.load(), wait);
    }
    this.#took = performance.now() - began;
    this.loading = false;
    const [again, later] = [this.#again, this.#later];
    this.#again = this.#later = false;
    if (again) void this.load();
    else if (later) this.soon();
  }

  /** Loads in `ms`, later where the store is slow; calls until then are one load. */
  soon(ms = 500): void {
    if (this.loading) {
      // What changed meanwhile may not be in the answer.
      this.#later = true;
      return;
    }
    if (this.#left) return;
    this.#timer ??= setTimeout(() => void this.load(), Math.max(ms, this.#took * 4));
  }

  #stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
