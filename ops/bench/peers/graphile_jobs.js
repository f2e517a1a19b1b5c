// Graphile Worker's no-op job, its client and its worker.
"use strict";

const { makeWorkerUtils, run, runMigrations } = require("graphile-worker");
const { DATABASE, hit, main } = require("./side.js");

// As the `perfTest/init.js` of its repository fills the table: all jobs in one statement.
const FILL = `select 1 from graphile_worker.add_jobs(
  array(select json_populate_recordset(null::graphile_worker.job_spec, $1::json)))`;

// As the `perfTest/graphile.config.js` of its repository: jobs are fetched many at a time, and completed in batches.
function tuned(localQueue, concurrentJobs) {
  return {
    maxPoolSize: concurrentJobs + 1,
    localQueue: { size: localQueue, refetchDelay: { durationMs: 10 } },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  };
}

async function setup() {
  await runMigrations({ connectionString: DATABASE });
}

async function client() {
  const utils = await makeWorkerUtils({ connectionString: DATABASE });
  return {
    one: (sent) => utils.addJob("noop", { sent }),
    bulk: (count) => {
      const jobs = JSON.stringify(Array(count).fill({ identifier: "noop", payload: { sent: 0 } }));
      return utils.withPgClient((connection) => connection.query(FILL, [jobs]));
    },
    close: () => utils.release(),
  };
}

// Executes up to `concurrentJobs` jobs at a time until it is killed.
async function work(concurrentJobs) {
  const localQueue = Number(process.env.BENCH_LOCAL_QUEUE ?? 0);
  const runner = await run({
    preset: {
      worker: {
        connectionString: DATABASE,
        concurrentJobs,
        ...(localQueue ? tuned(localQueue, concurrentJobs) : {}),
      },
    },
    taskList: { noop: ({ sent }) => hit(sent) },
  });
  await runner.promise;
}

main({ setup, client, work });
