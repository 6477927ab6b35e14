import type { Answer } from "./data";
import { dollars, factor, share } from "./format";
import type { Step } from "./steps";
import { oneLine } from "./visible";
import { type Json, list, maybe, num, object, text } from "./wire";

/** One card of an answer: a step or a group of steps with the evidence. */
export interface Card {
  title: string;
  detail: string;
  right: string;
  lines: string[];
  steps: string[];
  /** part of the whole that the bar shows, 0 to 1; null without a bar */
  part: number | null;
}

function lines(value: unknown): string[] {
  if (Array.isArray(value))
    return value
      .map((one) =>
        oneLine(
          typeof one === "object" ? Object.values(object(one)).map(text).join(" ") : text(one),
          240,
        ),
      )
      .filter(Boolean);
  const one = oneLine(text(value), 400);
  return one ? [one] : [];
}

/** The way of a step's values to the output; a path is a list of pairs of id and name. */
function pathLine(path: unknown, number: (step: string) => number): string[] {
  const names = list(path).map((one) => {
    const [id = "", name = ""] = triple(one);
    return number(id) ? `step ${number(id)} ${oneLine(name, 40)}` : oneLine(name || id, 40);
  });
  return names.length > 1 ? [`reaches the output by ${names.slice(1).join(", ")}`] : [];
}

/** The suspects of a wrong answer, most likely first. */
export function suspectCards(answer: Answer, number: (step: string) => number): Card[] {
  return answer.rows.slice(0, 3).map((row) => {
    const step = text(row.step_id ?? row.suspect);
    const at = number(step);
    const weight = maybe(row.probability);
    return {
      title: at ? `Step ${at}` : "A step",
      detail: [
        oneLine(text(row.tool || row.name || row.model), 60),
        text(row.status) === "error" ? "failed" : "",
      ]
        .filter(Boolean)
        .join(", "),
      right: weight === null ? "" : `weight ${weight.toFixed(2)}`,
      lines: [...lines(row.evidence), ...pathLine(row.path, number)],
      steps: step ? [step] : [],
      part: null,
    };
  });
}

/** Ids of all steps that a row of `run-cost` adds up, in order; of the most expensive without them. */
function stepsOf(row: Json, steps: readonly Step[]): string[] {
  const same = steps.filter(
    (step) =>
      step.agent === text(row.agent) &&
      step.kind === text(row.kind) &&
      step.name === text(row.name) &&
      step.tool === text(row.tool) &&
      step.model === text(row.model),
  );
  return same.length ? same.map((step) => step.id) : list(row.step_ids).map(text);
}

/** What made a run cost more than is normal, the largest difference first. */
export function costCards(
  answer: Answer,
  number: (step: string) => number,
  all: readonly Step[],
): Card[] {
  const total = answer.rows.reduce((sum, row) => sum + num(row.cost_usd), 0);
  return answer.rows
    .filter((row) => num(row.cost_usd) > 0)
    .slice(0, 3)
    .map((row) => {
      const steps = stepsOf(row, all);
      const numbers = steps
        .map(number)
        .filter(Boolean)
        .sort((a, b) => a - b);
      const cost = num(row.cost_usd);
      const normal = maybe(row.normal_usd);
      const calls = num(row.calls);
      const usual = maybe(row.normal_calls);
      const evidence = [
        `${calls} ${calls === 1 ? "call" : "calls"}${usual === null ? "" : `, normally ${+usual.toPrecision(2)}`}`,
      ];
      if (normal !== null)
        evidence.push(
          `normally ${dollars(normal)}${normal > 0 ? `, now ${factor(cost / normal)}` : ""}`,
        );
      if (num(row.unpriced_steps)) evidence.push(`${num(row.unpriced_steps)} of unknown cost`);
      return {
        title:
          numbers.length === 1
            ? `Step ${numbers[0]}`
            : `Steps ${numbers.slice(0, 4).join(", ")}${calls > 4 ? " …" : ""}`,
        detail: [
          oneLine(text(row.tool) || text(row.model) || text(row.name), 60),
          text(row.tool || row.model) && text(row.name) !== text(row.tool || row.model)
            ? oneLine(text(row.name), 40)
            : "",
        ]
          .filter(Boolean)
          .join(" "),
        right: `${dollars(cost)} ${total > 0 ? share(cost / total) : ""}`,
        lines: evidence,
        steps,
        part: total > 0 ? cost / total : null,
      };
    });
}

/** Why a tool was chosen, as the page shows it. */
export interface Choice {
  step: string;
  tool: string;
  chooser: string;
  chooserName: string;
  model: string;
  output: string;
  inputEnd: string;
  inputChars: number;
  arguments: string;
  read: { step: string; kind: string; name: string }[];
  offered: string[];
  offeredFrom: string;
  similar: [string, number][];
  similarChoices: number;
}

function triple(value: unknown): string[] {
  return Array.isArray(value) ? value.map(text) : Object.values(object(value)).map(text);
}

export function choiceOf(row: Json): Choice {
  const similar = row.similar;
  return {
    step: text(row.step_id),
    tool: text(row.tool),
    chooser: text(row.chosen_by),
    chooserName: text(row.chosen_by_name),
    model: text(row.model),
    output: text(row.output),
    inputEnd: text(row.input_end),
    inputChars: num(row.input_chars),
    arguments: text(row.arguments),
    read: list(row.read).map((one) => {
      const [step = "", kind = "", name = ""] = triple(one);
      return { step, kind, name };
    }),
    offered: list(row.offered).map(text),
    offeredFrom: text(row.offered_from),
    similar: (Array.isArray(similar)
      ? similar.map((one): [string, number] => [triple(one)[0] ?? "", num(triple(one)[1])])
      : Object.entries(object(similar)).map(([name, n]): [string, number] => [name, num(n)])
    ).sort((a, b) => b[1] - a[1]),
    similarChoices: num(row.similar_choices),
  };
}

/** Values of a text that can be looked for elsewhere: long numbers, ids, quoted words. */
export function valuesOf(text: string): string[] {
  return [...new Set(text.match(/\d[\d.,-]{3,}\d|[A-Za-z]+-\d+|"[^"]{4,60}"/g) ?? [])]
    .map((value) => value.replace(/^"|"$/g, ""))
    .slice(0, 8);
}
