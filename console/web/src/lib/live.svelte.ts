/** Whether the page shows current data, for the mark at the top and the banner. */
export type Liveness = "live" | "late" | "off" | "still";

export const live = $state<{
  value: Liveness;
  text: string;
  banner: string;
  since: number;
  retryAt: number;
}>({
  value: "still",
  text: "",
  banner: "",
  since: 0,
  retryAt: 0,
});
