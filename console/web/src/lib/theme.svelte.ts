/** Grows when the colour scheme changes, so that canvases draw again. */
export const themeVersion = $state({ value: 0 });

if (typeof matchMedia !== "undefined") {
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => {
    themeVersion.value++;
  });
}
