// Serves a folder on the loopback interface: `node serve.mjs FOLDER [PORT]`.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize, sep } from "node:path";
import { pathToFileURL } from "node:url";

const TYPES = {
  ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8", ".wasm": "application/wasm", ".png": "image/png",
};

/** The contents and the type of a file of a folder; an error if it is none. */
async function contents(folder, url) {
  const path = decodeURIComponent(new URL(url, "http://localhost").pathname);
  const file = normalize(join(folder, path.endsWith("/") ? `${path}index.html` : path));
  if (!file.startsWith(normalize(folder) + sep)) throw new Error("outside");
  return [await readFile(file), TYPES[extname(file)] ?? "application/octet-stream"];
}

/** A server of the files of a folder, listening on a free port unless one is given. */
export async function serve(folder, port = 0) {
  const server = createServer(async (request, response) => {
    try {
      const [body, type] = await contents(folder, request.url);
      response.writeHead(200, { "content-type": type }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((listening, failed) => {
    server.once("error", failed);
    server.listen(port, "127.0.0.1", listening);
  });
  return server;
}

async function main(folder, port) {
  try {
    const server = await serve(folder, port);
    console.log(`http://localhost:${server.address().port}/`);
  } catch (error) {
    const taken = error.code === "EADDRINUSE";
    console.error(taken ? `Port ${port} is taken. Give another one: scripts/web.sh serve PORT` : `${error}`);
    process.exitCode = 1;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await main(process.argv[2], Number(process.argv[3] ?? 8080));
}
