// The page: photos that are cut over ranks, and three trainings. All numbers come from the layer.
import init from "./syncbn_web.js";
import { open, showRanks } from "./devices.js";
import { fill, find, fixed, line } from "./dom.js";
import { loadPhotos, loadFiles } from "./photos.js";
import { draw, isTraining, stop, train } from "./training.js";

const devices = line("devices");
const photos = line("photos");

const state = {
  session: null, choice: 0, pixels: null, files: 0, kept: null, busy: false, again: false,
  normalizing: null,
};

/** The rows at which ranks end: the first has the share of the slider, the others the rest alike. */
function ends() {
  const [count, rows] = [Number(find("count").value), state.pixels.height];
  if (count === 1) return new Uint32Array();
  const first = Math.round(rows * Number(find("share").value) / 100);
  const rest = (rows - first) / (count - 1);
  return Uint32Array.from({ length: count - 1 }, (_, i) => Math.round(first + i * rest));
}

function paint(id, bytes, cuts = []) {
  const canvas = find(id);
  [canvas.width, canvas.height] = [state.pixels.width, state.pixels.height];
  const context = canvas.getContext("2d");
  context.putImageData(new ImageData(new Uint8ClampedArray(bytes), canvas.width), 0, 0);
  context.fillStyle = "#ff2d78";
  for (const cut of cuts) context.fillRect(0, cut - 1, canvas.width, 3);
}

/** The largest change of the synchronized values since the first cut, of which there is none yet. */
function showChange(values) {
  if (!state.kept) {
    state.kept = values;
    find("change").textContent = "Move the cut to see how far synchronized values change.";
    return;
  }
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    largest = Math.max(largest, Math.abs(values[i] - state.kept[i]));
  }
  find("change").textContent =
    `Largest change of a synchronized value since the first cut: ${largest.toExponential(1)} deviations.`;
}

function showReport({ ranks, all, times }) {
  const row = (name, s) => [
    name, s.count, ...s.mean.map((mean, c) => `${fixed(mean)} ± ${fixed(s.deviation[c])}`),
  ];
  fill("statistics", [...ranks.map((rank, i) => row(`${i}`, rank)), row("all", all)]);
  const { upload, local, synchronize, apply, read } = times;
  fill("times", [[upload, local, synchronize, apply, read].map((ms) => fixed(ms, 2))]);
}

async function normalizeOnce() {
  const cuts = ends();
  const { session, pixels } = state;
  photos.working("Normalizing…");
  state.normalizing = session.normalize(cuts);
  const result = await state.normalizing;
  try {
    // Of photos or ranks that were changed meanwhile: the next result is on its way.
    if (session !== state.session || pixels !== state.pixels) {
      state.again = true;
      return;
    }
    paint("original", pixels.data, cuts);
    paint("local", result.local_pixels(), cuts);
    paint("synchronized", result.synchronized_pixels());
    showReport(JSON.parse(result.report()));
    showChange(result.synchronized());
  } finally {
    result.free();
  }
  photos.done("Ready.");
}

/** Says what the sliders are at, in numbers and for those who do not see them. */
function showSliders() {
  const [count, share] = [find("count"), find("share")];
  const rows = state.pixels.height;
  const first = Math.round(rows * Number(share.value) / 100);
  find("count-value").textContent = count.value;
  find("share-value").textContent = `${share.value} %`;
  count.setAttribute("aria-valuetext", count.value === "1" ? "1 rank" : `${count.value} ranks`);
  share.setAttribute("aria-valuetext", `${share.value} %: ${first} of ${rows} rows`);
  share.disabled = count.value === "1";
}

/** Normalizes again; a cut that is moved meanwhile comes next, and those between are left out. */
async function show() {
  showSliders();
  if (state.busy) {
    state.again = true;
    return;
  }
  state.busy = true;
  try {
    do {
      state.again = false;
      await normalizeOnce();
    } while (state.again);
  } catch (error) {
    photos.failed(error);
  } finally {
    state.busy = false;
  }
}

/** Shows these pixels from now on: photos, one below the other. */
async function take(pixels) {
  state.pixels = pixels;
  state.session.set_photos(pixels.data, pixels.width);
  state.kept = null;
  await show();
}

/** Shows the visitor's files. The last choice counts, however long an earlier one takes to read. */
async function own(files) {
  if (!files.length) return;
  const mine = ++state.files;
  try {
    const pixels = await loadFiles(files);
    if (mine === state.files) await take(pixels);
  } catch (error) {
    if (mine === state.files) photos.done(`These files cannot be shown: ${error.message ?? error}`);
  }
}

/** Frees a session when its last call has ended. */
async function close(session, call) {
  await Promise.allSettled([call]);
  session.free();
}

async function start(gpu) {
  stop();
  const mine = ++state.choice;
  devices.working(gpu ? "Opening WebGPU devices…" : "Opening host ranks…");
  const session = await open(gpu);
  // Another choice was made meanwhile: the last one counts.
  if (mine !== state.choice) {
    session.free();
    return;
  }
  if (state.session) close(state.session, state.normalizing);
  state.session = session;
  showRanks(session);
  devices.done("The ranks are open.");
  await take(state.pixels ?? await loadPhotos());
}

async function restart(gpu) {
  try {
    await start(gpu);
    for (const id of ["count", "files"]) find(id).disabled = false;
    // A training that was stopped still has a step to end, and enables its button then.
    find("train").disabled = isTraining();
    window.syncbnReady = true;
  } catch (error) {
    devices.failed(error);
  }
}

function listen() {
  find("count").addEventListener("input", show);
  find("share").addEventListener("input", show);
  find("train").addEventListener("click", () => train(state.session));
  find("stop").addEventListener("click", stop);
  find("files").addEventListener("change", (event) => own([...event.target.files]));
  const drop = find("drop");
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (!find("files").disabled) own([...event.dataTransfer.files]);
  });
  for (const input of document.querySelectorAll("input[name=kind]")) {
    input.addEventListener("change", () => restart(input.value === "gpu"));
  }
  window.addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

await init();
listen();
await restart(true);
