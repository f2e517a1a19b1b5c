// What all load tests share: submitting a job, following it to its end, and what must hold.
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';

export const BASE = __ENV.BASE_URL;
export const RATE = Number(__ENV.RATE);
export const SECONDS = Number(__ENV.SECONDS);

// How long a followed job may take, seconds, and how often it is looked at.
const PATIENCE = 30;
const LOOK_EVERY = 0.02;
const JSON_BODY = { headers: { 'Content-Type': 'application/json' }, timeout: '10s' };

export const accepted = new Counter('jobs_accepted');
export const replayed = new Counter('jobs_replayed');
export const refused = new Counter('jobs_refused');
export const unfinished = new Counter('jobs_unfinished');
export const submitToDone = new Trend('submit_to_done', true);

// 429 is an answer by the rules (RATE_LIMIT); the runner says how many there were.
http.setResponseCallback(http.expectedStatuses(200, 201, 404, 422, 429));

// What every profile must keep; a broken threshold fails the run.
export const PROMISES = {
  http_req_failed: ['rate<0.001'],
  checks: ['rate>0.999'],
  jobs_accepted: ['count>0'],
  jobs_unfinished: ['count==0'],
  ...(__ENV.NO_REFUSALS ? { jobs_refused: ['count==0'] } : {}),
};

export const OPTIONS = {
  summaryTrendStats: ['avg', 'min', 'med', 'p(90)', 'p(95)', 'p(99)', 'max'],
  userAgent: 'djps-load',
};

// An open stream of submissions: it does not slow down when the answers do.
export function stream(stages, start = RATE) {
  const peak = Math.max(start, ...stages.map((stage) => stage.target));
  return {
    executor: 'ramping-arrival-rate',
    exec: 'post',
    startRate: start,
    timeUnit: '1s',
    stages,
    preAllocatedVUs: Math.max(4, Math.ceil(peak / 2)),
    maxVUs: Math.max(20, peak * 2),
    gracefulStop: '10s',
  };
}

// One job after the other, each followed to its end.
export function followers(seconds, options = {}) {
  return { executor: 'constant-vus', exec: 'follow', vus: 1, duration: `${seconds}s`, gracefulStop: '35s', ...options };
}

// A name no other run uses.
export function newKey() {
  return `load-${Date.now()}-${__VU}-${__ITER}-${Math.random().toString(36).slice(2)}`;
}

function payload() {
  // One job in twenty takes a moment, so that the worker is not measured with nothing to do.
  return Math.random() < 0.05 ? { task: 'sleep', seconds: 0.05 } : { task: 'noop' };
}

export function submit(body) {
  const answer = http.post(`${BASE}/jobs`, JSON.stringify(body), { ...JSON_BODY, tags: { name: 'POST /jobs' } });
  if (answer.status === 429) {
    refused.add(1);
    check(answer, { 'a refusal says when to come back': (got) => Number(got.headers['Retry-After']) >= 0 });
    return null;
  }
  const well = check(answer, { 'a submission is answered 201 or 200': (got) => got.status === 201 || got.status === 200 });
  if (!well) return null;
  (answer.status === 201 ? accepted : replayed).add(1);
  return answer.json();
}

export function post() {
  const body = { payload: payload(), idempotency_key: newKey() };
  const job = submit(body);
  // One submission in fifty is sent twice, as clients do after a timeout.
  if (job && Math.random() < 0.02) {
    const again = submit(body);
    if (again) check(again, { 'the same key is the same job': (got) => got.id === job.id });
  }
}

// Submits a job and looks at it until it is final; returns it, or null when it was refused or did not end.
export function finish(body) {
  const began = Date.now();
  let job = submit(body);
  if (!job) return null;
  while (!['completed', 'failed', 'cancelled'].includes(job.status)) {
    if (Date.now() - began > PATIENCE * 1000) {
      unfinished.add(1);
      return null;
    }
    sleep(LOOK_EVERY);
    const answer = http.get(`${BASE}/jobs/${job.id}`, { timeout: '10s', tags: { name: 'GET /jobs/{id}' } });
    if (check(answer, { 'a job that was accepted is there': (got) => got.status === 200 })) job = answer.json();
  }
  submitToDone.add(Date.now() - began);
  check(job, { 'a noop completes': (got) => got.status === 'completed' });
  return job;
}

export function follow() {
  finish({ payload: { task: 'noop' }, idempotency_key: newKey() });
  sleep(0.5);
}
