// Spike: quiet, then ten times as many from one second to the next, then quiet again, and all must be well.
import { OPTIONS, PROMISES, RATE, SECONDS, follow, followers, post, stream } from './jobs.js';

export { follow, post };

const PART = SECONDS / 4;
const QUIET = Math.max(1, Math.round(RATE / 10));

export const options = {
  ...OPTIONS,
  scenarios: {
    stream: stream(
      [
        { target: QUIET, duration: `${PART}s` },
        { target: RATE, duration: '1s' },
        { target: RATE, duration: `${PART}s` },
        { target: QUIET, duration: '1s' },
        { target: QUIET, duration: `${2 * PART - 2}s` },
      ],
      QUIET,
    ),
    during: followers(2 * PART),
    after: followers(PART, { startTime: `${3 * PART}s` }),
  },
  thresholds: {
    ...PROMISES,
    // In the spike answers may be slow and some not sent at all, but none may be wrong.
    'http_req_duration{name:POST /jobs}': ['p(99)<5000'],
    'submit_to_done{scenario:during}': ['p(99)<30000'],
    // A quarter of the run after the spike has ended, nothing of it is left to feel.
    'submit_to_done{scenario:after}': ['p(99)<5000'],
  },
};
