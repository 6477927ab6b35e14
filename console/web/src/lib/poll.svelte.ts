import { onDestroy } from "svelte";
import { live } from "./live.svelte";

/** Data of a page: loaded at once, again when asked, and kept while a new load fails. */
export class Loader<T> {
  data = $state.raw<T | null>(null);
  problem = $state.raw<unknown>(null);
  loading = $state(false);
  readonly #read: () => Promise<T>;
  #again = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #took = 0;

  constructor(read: () => Promise<T>) {
    this.#read = read;
    onDestroy(() => this.#stop());
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
      this.#timer = setTimeout(() => void this.load(), live.value === "live" ? 4000 : 2000);
    }
    this.#took = performance.now() - began;
    this.loading = false;
    if (this.#again) {
      this.#again = false;
      void this.load();
    }
  }

  /** Loads in `ms`, later where the store is slow; calls until then are one load. */
  soon(ms = 500): void {
    if (this.loading) return;
    this.#timer ??= setTimeout(() => void this.load(), Math.max(ms, this.#took * 4));
  }

  #stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
