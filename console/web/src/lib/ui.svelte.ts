/** Text for the live region: read out once by screen readers. Only alerts and results of actions. */
export const announced = $state({ text: "" });

export function announce(text: string): void {
  announced.text = "";
  setTimeout(() => {
    announced.text = text;
  }, 30);
}

/** The title of the tab. */
export function setTitle(text: string): void {
  document.title = `${text} · Stepstream`;
}
