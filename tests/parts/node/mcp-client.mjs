// A TypeScript MCP client that signs its user in and then calls tools: `node mcp-client.mjs JSON`.
//
// Options: sdk ("v1" or "v2"), url, seconds, pause (ms between a worker's calls). Says on standard output, a JSON object
// a line, `{"authorize": url}` when its user is needed, and at the end `{"result": {calls, failures, signIns, version}}`.
import { createServer } from "node:http";

const options = JSON.parse(process.argv[2]);
const say = (what) => console.log(JSON.stringify(what));

async function load() {
  if (options.sdk === "v2") {
    const { Client, StreamableHTTPClientTransport, UnauthorizedError } = await import("@modelcontextprotocol/client");
    const make = () => new Client({ name: "ts v2", version: "1" }, { versionNegotiation: { mode: "auto" } });
    return { make, StreamableHTTPClientTransport, UnauthorizedError };
  }
  const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
  const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
  const { UnauthorizedError } = await import("@modelcontextprotocol/sdk/client/auth.js");
  return { make: () => new Client({ name: "ts v1", version: "1" }), StreamableHTTPClientTransport, UnauthorizedError };
}

// The callback of a desktop client: a loopback server that waits for the browser.
const answers = [];
const waiting = [];
const callback = createServer((request, response) => {
  const query = new URL(request.url, "http://127.0.0.1").searchParams;
  response.end("You may close this page.");
  const next = waiting.shift();
  if (next) next(query);
  else answers.push(query);
});
await new Promise((done) => callback.listen(0, "127.0.0.1", done));
const redirectUrl = `http://127.0.0.1:${callback.address().port}/callback`;
const answer = () => (answers.length ? Promise.resolve(answers.shift()) : new Promise((done) => waiting.push(done)));

let signIns = 0;
const kept = {};
const authProvider = {
  redirectUrl,
  clientMetadata: {
    client_name: `TypeScript SDK ${options.sdk}`,
    redirect_uris: [redirectUrl],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  redirectToAuthorization: (url) => {
    signIns += 1;
    say({ authorize: String(url) });
  },
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  codeVerifier: () => kept.verifier,
  saveDiscoveryState: (state) => void (kept.discovery = state),
  discoveryState: () => kept.discovery,
};

const { make, StreamableHTTPClientTransport, UnauthorizedError } = await load();

async function connect() {
  const transport = new StreamableHTTPClientTransport(new URL(options.url), { authProvider });
  const client = make();
  try {
    await client.connect(transport);
    return { client, transport };
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
    const query = await answer();
    if (options.sdk === "v2") await transport.finishAuth(query);
    else await transport.finishAuth(query.get("code"));
    const again = new StreamableHTTPClientTransport(new URL(options.url), { authProvider });
    const fresh = make();
    await fresh.connect(again);
    return { client: fresh, transport: again };
  }
}

const { client, transport } = await connect();
const failures = [];
let calls = 0;
const end = Date.now() + options.seconds * 1000;

async function worker(name, args) {
  while (Date.now() < end) {
    calls += 1;
    try {
      const result = await client.callTool({ name, arguments: args });
      if (result.isError) failures.push(JSON.stringify(result.content));
    } catch (error) {
      failures.push(String(error));
    }
    await new Promise((done) => setTimeout(done, options.pause));
  }
}

await Promise.all([
  worker("whoami", {}),
  worker("upstream_profile", {}),
  worker("search_content", { query: "stream" }),
]);
const version = client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion ?? null;
await client.close();
callback.close();
say({ result: { calls, failures, signIns, version } });
process.exit(0);
