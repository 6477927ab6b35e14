import { vitePreprocess } from "@sveltejs/vite-plugin-svelte";

export default {
  preprocess: vitePreprocess({ script: true }),
  compilerOptions: {
    // Elements are made by createElement: the page's policy refuses innerHTML.
    fragments: "tree",
    runes: true,
  },
};
