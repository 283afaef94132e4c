// The ranks: WebGPU devices, or the host where there are none.
import { Session } from "./syncbn_web.js";
import { fill, find } from "./dom.js";

export const RANKS = 4;

/** That the browser has no WebGPU, or gives no adapter: something to switch on. */
class Missing extends Error {}

async function openGpu() {
  if (!window.isSecureContext) {
    throw new Missing("This page is not from https or from localhost: browsers hide WebGPU from it.");
  }
  if (!navigator.gpu) throw new Missing("This browser has no WebGPU, or it is switched off.");
  if (!await navigator.gpu.requestAdapter()) {
    throw new Missing("This browser has WebGPU, but gives no adapter: no GPU that it trusts.");
  }
  return await Session.open(RANKS, true);
}

function problem(error) {
  const missing = error instanceof Missing;
  find("problem-title").textContent =
    missing ? "There is no WebGPU device here" : "The WebGPU devices did not open";
  find("problem-text").textContent = error.message ?? `${error}`;
  find("hints").hidden = !missing;
  find("problem").hidden = false;
  document.querySelector("input[value=host]").checked = true;
}

/** A session with WebGPU devices if they are asked for and open, otherwise with host ranks. */
export async function open(gpu) {
  find("problem").hidden = true;
  if (gpu) {
    try {
      return await openGpu();
    } catch (error) {
      problem(error);
    }
  }
  return await Session.open(RANKS, false);
}

/** What the browser says of an adapter. Names are often kept from a page. */
function adapterName({ vendor, architecture, device, description }) {
  const known = [vendor, architecture, device, description].filter((name) => name).join(", ");
  return known || "name kept by the browser";
}

/** Shows the ranks, and the limits of the devices that they use. */
export function showRanks(session) {
  const devices = Array.from({ length: RANKS }, (_, rank) => session.device(rank));
  const mib = (bytes) => `${bytes / 2 ** 20} MiB`;
  fill("ranks", devices.map((device, rank) => (device ? [
    rank, adapterName(device.adapterInfo ?? {}), mib(device.limits.maxStorageBufferBindingSize),
    mib(device.limits.maxBufferSize), device.limits.maxComputeInvocationsPerWorkgroup,
  ] : [rank, "host (CPU)", "memory", "memory", "–"])));
  const names = new Set(devices.map((device) => device && adapterName(device.adapterInfo ?? {})));
  find("adapters").textContent = !devices[0] ? ""
    : names.size > 1 ? `The browser gave ${names.size} adapters.`
    : `The browser gave one adapter: the ranks are ${RANKS} devices on it.`;
}
