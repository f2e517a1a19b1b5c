// Smoke: does everything answer as it should? Few enough submissions for the default RATE_LIMIT.
import http from 'k6/http';
import { check, sleep } from 'k6';
import { BASE, OPTIONS, PROMISES, SECONDS, finish, newKey, submit } from './jobs.js';

// Submissions in one run: with the ones that are sent twice or are not valid, at most eight.
const ROUNDS = 3;

export const options = {
  ...OPTIONS,
  scenarios: {
    smoke: { executor: 'per-vu-iterations', vus: 1, iterations: ROUNDS, maxDuration: `${SECONDS + 60}s` },
  },
  thresholds: {
    ...PROMISES,
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    'http_req_duration{name:POST /jobs}': ['p(99)<1000'],
    submit_to_done: ['p(99)<5000'],
  },
};

function get(path, name) {
  return http.get(`${BASE}${path}`, { timeout: '10s', tags: { name } });
}

export default function smoke() {
  const began = Date.now();
  check(get('/health', 'GET /health'), { 'it is alive': (got) => got.status === 200 });
  check(get('/health/ready', 'GET /health/ready'), {
    'it is ready': (got) => got.status === 200 && got.json('status') === 'ok',
  });
  const body = { payload: { task: 'noop' }, idempotency_key: newKey() };
  const job = finish(body);
  if (__ITER === 0) rules(body, job);
  check(get('/jobs?limit=5', 'GET /jobs'), { 'jobs are listed': (got) => got.status === 200 && got.json('total') >= 0 });
  check(get('/dlq?limit=5', 'GET /dlq'), { 'dead letters are listed': (got) => got.status === 200 });
  check(get('/metrics', 'GET /metrics'), { 'metrics are there': (got) => got.body.includes('jobs_created_total') });
  sleep(Math.max(0, SECONDS / ROUNDS - (Date.now() - began) / 1000));
}

// An id of now (UUIDv7 begins with the time): one of long ago is answered 410.
function unknownId() {
  const now = Date.now().toString(16).padStart(12, '0');
  return `${now.slice(0, 8)}-${now.slice(8)}-7000-8000-000000000000`;
}

function rules(body, job) {
  const again = submit(body);
  if (job && again) check(again, { 'the same key is the same job': (got) => got.id === job.id });
  const wrong = http.post(`${BASE}/jobs`, JSON.stringify({ payload: [] }), {
    headers: { 'Content-Type': 'application/json' },
    timeout: '10s',
    tags: { name: 'POST /jobs, invalid' },
  });
  check(wrong, { 'a wrong submission is answered 422': (got) => got.status === 422 || got.status === 429 });
  check(get(`/jobs/${unknownId()}`, 'GET /jobs/{id}, unknown'), {
    'an unknown job is answered 404': (got) => got.status === 404,
  });
}
