import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// The script and the style of `stepstream trace ID --html`: one file each, without imports.
export default defineConfig({
  plugins: [svelte()],
  publicDir: false,
  build: {
    outDir: "../static/export",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    lib: {
      entry: "src/export.ts",
      formats: ["iife"],
      name: "stepstream",
      fileName: () => "run.js",
      cssFileName: "run",
    },
  },
});
