import { get } from "./api";
import type { Json } from "./wire";
import { list, num, object, text } from "./wire";

const API = "/api/v1/releases";
const part = encodeURIComponent;

/** What a label names. */
export interface Label {
  name: string;
  version: string;
  by: string;
  at: number;
}

/** One part that two releases have different. */
export interface Difference {
  part: string;
  what: string;
  lines: string[];
}

/** What two releases and their runs have different. */
export interface Comparison {
  differences: Difference[];
  figures: Json[];
  sentence: string;
  problem: string;
}

export async function agents(): Promise<Json> {
  return object(await get<Json>(API));
}

export async function agent(name: string): Promise<Json> {
  return object(await get<Json>(`${API}/${part(name)}`));
}

export async function release(name: string, version: string): Promise<Json> {
  return object(object(await get<Json>(`${API}/${part(name)}/${part(version)}`)).release);
}

export async function comparison(name: string, old: string, fresh: string): Promise<Comparison> {
  return comparisonOf(object(await get<Json>(`${API}/${part(name)}/${part(old)}/${part(fresh)}`)));
}

export function comparisonOf(found: Json): Comparison {
  return {
    differences: list(found.differences).map((one) => {
      const row = object(one);
      return { part: text(row.part), what: text(row.what), lines: list(row.lines).map(text) };
    }),
    figures: list(found.figures).map(object),
    sentence: text(found.sentence),
    problem: text(found.store_problem),
  };
}

export function labelsOf(value: unknown): Label[] {
  return Object.entries(object(value)).map(([name, one]) => {
    const row = object(one);
    return { name, version: text(row.version), by: text(row.by), at: num(row.at) };
  });
}

/** How a line of a difference is shown: added, removed, a place in the text, or context. */
export function toneOf(line: string): "added" | "removed" | "place" | "" {
  if (line.startsWith("@@")) return "place";
  if (line.startsWith("+")) return "added";
  return line.startsWith("-") ? "removed" : "";
}

/** A figure of unknown unit with four digits; a dash where there is none. */
export function figure(value: unknown): string {
  return typeof value === "number" && Number.isFinite(value) ? String(+value.toPrecision(4)) : "–";
}
