// A peer's side in Node: what `side.py` is in Python. It understands the same commands and writes the same files.
//
// Node cannot map a file, so each process counts in its own memory and writes the counter every COUNT_PAUSE_MS
// and when it ends.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");

const DATABASE = process.env.BENCH_DATABASE ?? "";
const COUNTERS = process.env.BENCH_COUNTERS ?? ".";

// Executed jobs, and when the first and the last of them were: `RECORD` of `side.py`.
const record = Buffer.alloc(24);
const COUNT_PAUSE_MS = 10;
// Between two jobs that are sent to an idle system.
const IDLE_PAUSE_MS = 40;

const slot = { count: 0, first: 0, last: 0, file: -1 };

// Seconds since 1970, as Python's `time.time()`.
function now() {
  return (performance.timeOrigin + performance.now()) / 1000;
}

function write() {
  record.writeBigUInt64LE(BigInt(slot.count), 0);
  record.writeDoubleLE(slot.first, 8);
  record.writeDoubleLE(slot.last, 16);
  fs.writeSync(slot.file, record, 0, record.length, 0);
}

// Counts one executed job. `sent` is when it was sent, or 0 when no one asks how long it waited.
function hit(sent) {
  slot.last = now();
  if (slot.count++ === 0) {
    slot.first = slot.last;
    slot.file = fs.openSync(path.join(COUNTERS, `count-${process.pid}`), "w");
    write();
    setInterval(write, COUNT_PAUSE_MS).unref();
    process.once("exit", write);
  }
  if (sent) {
    fs.appendFileSync(path.join(COUNTERS, `waits-${process.pid}`), `${slot.last - sent}\n`);
  }
}

// Sends jobs as the command says; returns the seconds that this took.
async function send(client, command, number) {
  const began = performance.now();
  if (command === "bulk") {
    await client.bulk(number);
  } else {
    for (let sending = 0; sending < number; sending++) {
      await client.one(command === "idle" ? now() : 0);
      if (command === "idle") await sleep(IDLE_PAUSE_MS);
    }
  }
  return (performance.now() - began) / 1000;
}

// Does what the command line says, and prints what was measured as JSON.
//
// `setup` makes the peer's tables, `client` connects the end that sends jobs (`one`, `bulk`, `close`), `work` runs
// the peer's worker until it is stopped.
async function main({ setup, client, work }) {
  const [command, number] = [process.argv[2], Number(process.argv[3] ?? 0)];
  if (command === "setup") {
    await setup();
  } else if (command === "work") {
    await work(number);
  } else {
    const peer = await client();
    try {
      console.log(JSON.stringify({ seconds: await send(peer, command, number) }));
    } finally {
      await peer.close();
    }
  }
}

module.exports = { DATABASE, hit, main };
