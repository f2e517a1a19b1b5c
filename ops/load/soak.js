// Soak: a steady stream for as long as you like, to find what grows.
import { OPTIONS, PROMISES, RATE, SECONDS, follow, followers, post, stream } from './jobs.js';

export { follow, post };

export const options = {
  ...OPTIONS,
  scenarios: {
    stream: stream([{ target: RATE, duration: `${SECONDS}s` }]),
    followers: followers(SECONDS),
    // The last tenth by itself: a system that grows slow is slow at the end.
    last: followers(SECONDS / 10, { startTime: `${SECONDS * 0.9}s` }),
  },
  thresholds: {
    ...PROMISES,
    'http_req_duration{name:POST /jobs}': ['p(99)<500'],
    submit_to_done: ['p(99)<5000'],
    'submit_to_done{scenario:last}': ['p(99)<5000'],
    dropped_iterations: [`count<${Math.max(1, RATE * SECONDS * 0.01)}`],
  },
};
