export interface Key {
  /** what is pressed, such as "j" or "g n" */
  keys: string;
  text: string;
  run: () => void;
  /** in the line at the bottom of the page */
  shown?: boolean;
}

/** Keys of the page that is open, in the order of the list under `?`. */
export const pageKeys = $state<{ value: Key[] }>({ value: [] });

function typing(target: EventTarget | null): boolean {
  const element = target as HTMLElement | null;
  return element?.closest?.("input, textarea, select, dialog[open]") != null;
}

/** Calls the key's function; two keys in a row such as "g n" within a second. */
export function keyHandler(common: () => Key[]): (event: KeyboardEvent) => void {
  let prefix = "";
  let at = 0;
  return (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing(event.target)) return;
    const now = performance.now();
    const before = now - at < 1000 ? prefix : "";
    const pressed = before ? `${before} ${event.key}` : event.key;
    const all = [...pageKeys.value, ...common()];
    const found =
      all.find((key) => key.keys.split(", ").includes(pressed)) ??
      all.find((key) => key.keys.split(", ").includes(event.key));
    prefix = all.some((key) => key.keys.startsWith(`${event.key} `)) ? event.key : "";
    at = now;
    if (!found) return;
    prefix = "";
    event.preventDefault();
    found.run();
  };
}
