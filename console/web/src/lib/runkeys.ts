import type { Key } from "./keys.svelte";
import type { RunView } from "./run.svelte";

/** Keys of a page that shows one run. */
export function runKeys(view: RunView, openSearch: () => void): Key[] {
  return [
    { keys: "j", text: "next step", shown: true, run: () => view.move(1) },
    { keys: "k", text: "previous step", shown: true, run: () => view.move(-1) },
    { keys: "e", text: "next failure", shown: true, run: () => view.next(view.failures) },
    { keys: "E", text: "previous failure", run: () => view.next(view.failures, true) },
    {
      keys: "c",
      text: "critical path only",
      shown: true,
      run: () => {
        view.onlyCritical = !view.onlyCritical;
      },
    },
    {
      keys: "t",
      text: "next time axis",
      run: () => {
        view.mode = view.mode === "real" ? "folded" : view.mode === "folded" ? "step" : "real";
        view.zoom = [0, 1];
      },
    },
    { keys: "+, =", text: "zoom in", run: () => view.zoomBy(0.6, centre(view)) },
    { keys: "-", text: "zoom out", run: () => view.zoomBy(1 / 0.6) },
    { keys: "0", text: "whole run", run: () => view.zoomTo(0, 1) },
    { keys: "[", text: "move left", run: () => view.pan(-0.2) },
    { keys: "]", text: "move right", run: () => view.pan(0.2) },
    { keys: "/", text: "search the steps", run: openSearch },
  ];
}

/** The selected step's place while it is visible, so that zooming keeps it in view. */
function centre(view: RunView): number | undefined {
  const at = view.selectedPosition;
  if (at < 0) return undefined;
  const [from, to] = view.axis.span(at);
  const middle = (from + to) / 2;
  return middle >= view.zoom[0] && middle <= view.zoom[1] ? middle : undefined;
}
