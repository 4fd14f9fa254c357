// SPDX-License-Identifier: MPL-2.0
//
// Signs in with MSAL and calls Graph with Microsoft's client for JavaScript, as an
// administrator's script would. Reads from standard input what MSAL is to be configured
// with and where Graph is; writes digests of the keys that it got, never a key.

import { createHash } from "node:crypto";
import { text } from "node:stream/consumers";
import { ConfidentialClientApplication } from "@azure/msal-node";
import { Client } from "@microsoft/microsoft-graph-client";

const { auth, graph } = JSON.parse(await text(process.stdin));
const app = new ConfidentialClientApplication({ auth });

// token answers the claims of a challenge, if there are any.
async function token(claims) {
  const result = await app.acquireTokenByClientCredential({
    scopes: ["https://graph.microsoft.com/.default"],
    claims,
    skipCache: claims !== undefined,
  });
  return result.accessToken;
}

let claims;
const client = Client.initWithMiddleware({
  baseUrl: graph,
  customHosts: new Set([new URL(graph).hostname]),
  authProvider: { getAccessToken: () => token(claims) },
});

const sensors = "/security/identities/sensors/microsoft.graph.security.";
const read = () => client.api(`${sensors}getDeploymentAccessKey()`).get();
const digest = (answer) => createHash("sha256").update(answer.deploymentAccessKey).digest("hex");

const regenerated = digest(await client.api(`${sensors}regenerateDeploymentAccessKey`).post());
let challenged = false;
const answer = await read().catch((error) => {
  const encoded = /claims="([^"]+)"/.exec(error.headers?.get("www-authenticate"))?.[1];
  if (error.statusCode !== 401 || encoded === undefined) throw error;
  challenged = true;
  claims = Buffer.from(encoded, "base64").toString();
  return read();
});
const installer = await client.api(`${sensors}getDeploymentPackageUri()`).get();
const refused = await client.api("/security/alerts_v2").get().catch((error) => error);

console.log(JSON.stringify({
  regenerated,
  read: digest(answer),
  challenged,
  version: installer.version,
  refused: { status: refused.statusCode, code: refused.code, requestId: refused.requestId },
}));
