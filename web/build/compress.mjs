// Beside each file of the page: its brotli and gzip forms, made once and as small as they get.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const page = "dist/page";
let sent = 0;
for (const entry of readdirSync(page, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile()) continue;
  const path = join(entry.parentPath, entry.name);
  const plain = readFileSync(path);
  const brotli = brotliCompressSync(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } });
  writeFileSync(`${path}.br`, brotli);
  writeFileSync(`${path}.gz`, gzipSync(plain, { level: 9 }));
  if (!path.endsWith(".txt")) sent += brotli.length;
}
console.log(`the page weighs ${(sent / 1000).toFixed(1)} kB, compressed`);
