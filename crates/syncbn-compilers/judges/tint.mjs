// Tint, the compiler of Chromium: what it says of every shader of a folder, by way of Dawn's bindings for node, on Dawn's
// null backend, which has every feature and runs nothing. A shader is taken where its module has no error and a pipeline of
// the layout in the table is made.
//     node tint.mjs FOLDER PACKAGE        PACKAGE: the folder of npm's `webgpu`
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, at] = process.argv.slice(2);
const { create, globals } = await import(pathToFileURL(path.resolve(at, 'index.js')));
Object.assign(globalThis, globals);

const read = (name) => fs.readFileSync(path.join(folder, name), 'utf8');
const shaders = new Map(JSON.parse(read('variants.json')).map((shader) => [shader.name, shader]));

const gpu = create(['backend=null']);
const devices = new Map();

// A device with the features that a shader needs and no others. An adapter makes one device.
async function deviceFor(shader) {
  const requiredFeatures = shader.subgroups ? ['subgroups'] : [];
  const key = requiredFeatures.join();
  if (!devices.has(key)) {
    const adapter = await gpu.requestAdapter();
    if (!adapter) throw new Error('Dawn has no null backend');
    devices.set(key, await adapter.requestDevice({ requiredFeatures }));
  }
  return devices.get(key);
}

function layoutOf(device, shader) {
  const entry = (binding, type, minBindingSize) => ({
    binding,
    visibility: GPUShaderStage.COMPUTE,
    buffer: { type, minBindingSize },
  });
  const buffers = shader.buffers.map(({ read_only, bytes }, index) =>
    entry(index + 1, read_only ? 'read-only-storage' : 'storage', bytes),
  );
  const lengths = shader.lengths_bytes
    ? [entry(buffers.length + 1, 'uniform', shader.lengths_bytes)]
    : [];
  const entries = [entry(0, 'uniform', shader.params_bytes), ...buffers, ...lengths];
  return device.createPipelineLayout({ bindGroupLayouts: [device.createBindGroupLayout({ entries })] });
}

// The error of a shader, or nothing if it is taken.
async function refusal(name) {
  const shader = shaders.get(name);
  const device = await deviceFor(shader);
  // naga does not know the directive, which the standard demands.
  const code = (shader.subgroups ? 'enable subgroups;\n' : '') + read(`wgsl/${name}.wgsl`);
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  const errors = messages.filter(({ type }) => type === 'error');
  let found = errors.map(({ message, lineNum, linePos }) => `${lineNum}:${linePos} ${message}`).join('; ');
  if (!found) {
    const layout = layoutOf(device, shader);
    try {
      await device.createComputePipelineAsync({ layout, compute: { module, entryPoint: 'main' } });
    } catch (error) {
      found = `pipeline: ${error.message}`;
    }
  }
  const scope = await device.popErrorScope();
  return found || (scope ? scope.message : '');
}

for (const name of read('tint.list').split('\n').filter(Boolean)) {
  const found = await refusal(name);
  console.log(found ? `fail\t${name}\t${found.replace(/\s+/g, ' ')}` : `pass\t${name}`);
}
// Dawn keeps node from ending.
process.exit(0);
