// Holds objects of KEDA, cert-manager and the Prometheus operator (one as JSON a line, in the file given)
// against these projects' own types: TypeScript refuses fields that they do not know, and the models' own
// checks refuse values that they do not take. Prints how many of each kind there were.
//   node check_custom.mjs FOLDER_OF_THE_PACKAGES OBJECTS

import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const PACKAGES = { 'keda.sh': 'keda', 'cert-manager.io': 'cert-manager', 'monitoring.coreos.com': 'prometheus-operator' };

const [home, file] = process.argv.slice(2);
const objects = readFileSync(file, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));

const model = ({ apiVersion, kind }) => {
  const group = apiVersion.split('/')[0];
  if (!PACKAGES[group]) throw new Error(`${kind} of ${apiVersion} is nobody's that is known`);
  return `@kubernetes-models/${PACKAGES[group]}/${apiVersion}/${kind}`;
};

// A literal each: only of literals does TypeScript refuse fields that are too many.
const typed = objects.map((object, index) =>
  `import type { I${object.kind} as T${index} } from '${model(object)}';\nexport const o${index}: T${index} = ${JSON.stringify(object)};\n`);
const source = join(home, `objects-${process.pid}.ts`);
const script = join(home, `objects-${process.pid}.mjs`);
try {
  writeFileSync(source, typed.join(''));
  const options = ['--noEmit', '--strict', '--skipLibCheck', '--module', 'nodenext', '--moduleResolution', 'nodenext', '--target', 'es2022'];
  execFileSync(process.execPath, [join(home, 'node_modules/typescript/bin/tsc'), ...options, source], { stdio: ['ignore', 'inherit', 'inherit'] });
  const names = [...new Set(objects.map((object) => model(object)))];
  writeFileSync(script, names.map((name) => `export { ${name.split('/').at(-1)} } from '${name}';\n`).join(''));
  const models = await import(pathToFileURL(script));
  for (const object of objects) new models[object.kind](object).validate();
} finally {
  rmSync(source, { force: true });
  rmSync(script, { force: true });
}
const counts = {};
for (const { kind } of objects) counts[kind] = (counts[kind] ?? 0) + 1;
console.log(Object.entries(counts).sort().map(([kind, count]) => `${kind}=${count}`).join(' '));
