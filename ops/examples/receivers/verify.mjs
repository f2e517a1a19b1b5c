// Checks the signature of a callback. Needs Node 18 or newer and nothing else.
//
// How to run it: as CGI gives a request, its headers in the environment and its body on stdin. In a server of yours call
// `verify` with the headers and the bytes of the body as they came, before they are parsed.
//
//     CALLBACK_SECRET=whsec_... HTTP_WEBHOOK_ID=... HTTP_WEBHOOK_TIMESTAMP=... HTTP_WEBHOOK_SIGNATURE=... \
//         node ops/examples/receivers/verify.mjs < body.json

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

// True if DJPS signed this body less than five minutes ago. Keep the ids that you have done: one that comes again is a replay.
function verify(secret, id, timestamp, signatures, body) {
  if (!id || !(Math.abs(Date.now() / 1000 - Number(timestamp || NaN)) < 300)) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const mine = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  return signatures.split(" ").some((one) => {
    const theirs = Buffer.from(one.replace(/^v1,/, ""), "base64");
    return one.startsWith("v1,") && theirs.length === mine.length && timingSafeEqual(theirs, mine);
  });
}

const { CALLBACK_SECRET, HTTP_WEBHOOK_ID, HTTP_WEBHOOK_TIMESTAMP, HTTP_WEBHOOK_SIGNATURE } = process.env;
const body = readFileSync(0);
if (verify(CALLBACK_SECRET, HTTP_WEBHOOK_ID, HTTP_WEBHOOK_TIMESTAMP, HTTP_WEBHOOK_SIGNATURE ?? "", body)) {
  const told = JSON.parse(body);
  console.log(told.data.id, told.data.status);
} else {
  console.error("not signed by DJPS, or too old");
  process.exitCode = 1;
}
