// Submits a job once only, waits for its end and prints its result. Needs Node 18 or newer and nothing else.
//
// How to run it, beside `python3 -m ops up`:
//
//     DJPS_URL=http://127.0.0.1:8000 node ops/examples/callers/submit.mjs '{"task": "noop"}' order-17
//
// The second word is the idempotency key. Make it of your own record, such as the order's number, so that it is the same
// when your program starts again.

import { setTimeout as sleep } from "node:timers/promises";

const API = process.env.DJPS_URL ?? "http://127.0.0.1:8000";
// Seconds that a call may take, and seconds that the API is asked to wait for the job's end.
const TIMEOUT = Number(process.env.DJPS_TIMEOUT ?? 10);
const WAIT = 20;
// Seconds between tries, and how long a job may take in all.
const PAUSES = [0.5, 1, 2];
const PATIENCE = 600;
// Answers after which the same request may succeed.
const PASSING = new Set([409, 429, 500, 502, 503, 504]);

// Makes a call until it is answered; it must be one that may be sent again: with a key, or a GET.
async function ask(path, options = {}, timeout = TIMEOUT) {
  let said;
  for (const pause of [...PAUSES, null]) {
    let after = 0;
    try {
      const answer = await fetch(API + path, { ...options, signal: AbortSignal.timeout(timeout * 1000) });
      const body = await answer.json();
      if (answer.ok) return body;
      said = `${answer.status} ${body.title}: ${body.detail}`;
      if (!PASSING.has(answer.status)) break;
      after = Number(answer.headers.get("Retry-After") ?? 0) || 0;
    } catch (lost) {
      // No answer, half of one, or one that is not JSON: the request may have been carried out.
      said = `no answer: ${lost.cause ?? lost}`;
    }
    if (pause !== null) await sleep(Math.max(pause, Math.min(after, 60)) * 1000);
  }
  throw new Error(said);
}

// Submits a job. The same body under the same key makes one job, however often it is sent.
function submit(payload, key) {
  return ask("/jobs", {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": key },
    body: JSON.stringify({ payload }),
  });
}

// Waits until a job is final; returns its result.
async function wait(job) {
  const end = Date.now() + PATIENCE * 1000;
  while (["queued", "processing"].includes(job.status) && Date.now() < end) {
    job = await ask(`/jobs/${job.id}?wait=${WAIT}`, {}, WAIT + TIMEOUT);
  }
  if (job.status !== "completed") throw new Error(`job ${job.id} is ${job.status}: ${job.last_error}`);
  return job.result;
}

try {
  const [payload, key] = process.argv.slice(2);
  console.log(JSON.stringify(await wait(await submit(JSON.parse(payload), key))));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
