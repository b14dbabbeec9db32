// The console page. It is served with a policy that allows no inline script or style and no other
// host, so nothing may be inlined; names hold hashes, so that browsers may keep the files for ever.
import { readFileSync } from "node:fs";
import { defineConfig } from "vite";

/** The licences of what is in the bundle, as they ask for. */
const licences = {
  name: "licences",
  generateBundle() {
    const text = ["preact", "uplot"].map((name) => {
      const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
      return `${name} ${version}\n\n${readFileSync(`node_modules/${name}/LICENSE`, "utf8")}`;
    });
    this.emitFile({ type: "asset", fileName: "assets/licences.txt", source: text.join("\n\n") });
  },
};

export default defineConfig({
  plugins: [licences],
  logLevel: "warn",
  build: {
    outDir: "dist/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: { output: { entryFileNames: "assets/page-[hash].js", assetFileNames: "assets/[name]-[hash][extname]" } },
  },
  server: {
    host: "127.0.0.1",
    // `npm run dev` shows the page on the data of a flowtap that runs.
    proxy: Object.fromEntries(
      ["/api", "/metrics", "/login", "/logout", "/style.css"].map((path) => [path, process.env.FLOWTAP ?? "http://127.0.0.1:9464"]),
    ),
  },
});
