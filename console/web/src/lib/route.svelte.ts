/** The address: a path and the parameters that hold filters, selection, axis and zoom. */
export interface Address {
  path: string;
  params: URLSearchParams;
}

function read(): Address {
  return { path: location.pathname, params: new URLSearchParams(location.search) };
}

const current = $state<{ value: Address }>({
  value: typeof location === "undefined" ? { path: "/", params: new URLSearchParams() } : read(),
});

export const address = {
  get path(): string {
    return current.value.path;
  },
  get params(): URLSearchParams {
    return current.value.params;
  },
};

/** Opens another page; `replace` keeps the history as it is. */
export function go(url: string, replace = false): void {
  if (replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  current.value = read();
  if (!replace) scrollTo(0, 0);
}

/** Changes parameters of this page; null and "" remove one. */
export function setParams(changes: Record<string, string | null>, replace = true): void {
  const params = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") params.delete(name);
    else params.set(name, value);
  }
  const query = params.toString();
  const url = location.pathname + (query ? `?${query}` : "");
  if (url !== location.pathname + location.search) go(url, replace);
}

/** Opens links of this site without loading the page again. */
export function followLinks(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0) return;
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element).closest("a");
  if (!link || link.target || link.origin !== location.origin || link.hasAttribute("download"))
    return;
  if (link.pathname.startsWith("/api/")) return;
  if (link.hash && link.pathname === location.pathname) return;
  event.preventDefault();
  go(link.pathname + link.search);
}

if (typeof addEventListener !== "undefined") {
  addEventListener("popstate", () => {
    current.value = read();
  });
}
