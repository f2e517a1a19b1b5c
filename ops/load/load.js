// Load: an ordinary busy hour, in a minute or two. RATE submissions a second, some followed to their end.
import { OPTIONS, PROMISES, RATE, SECONDS, follow, followers, post, stream } from './jobs.js';

export { follow, post };

const RAMP = Math.min(10, SECONDS / 6);

export const options = {
  ...OPTIONS,
  scenarios: {
    stream: stream(
      [
        { target: RATE, duration: `${RAMP}s` },
        { target: RATE, duration: `${SECONDS - RAMP}s` },
      ],
      1,
    ),
    followers: followers(SECONDS, { vus: 2 }),
  },
  thresholds: {
    ...PROMISES,
    'http_req_duration{name:POST /jobs}': ['p(95)<250', 'p(99)<500'],
    submit_to_done: ['p(95)<2000', 'p(99)<5000'],
    // The stream was really sent: k6 drops what it has no free client for.
    dropped_iterations: [`count<${Math.max(1, RATE * SECONDS * 0.01)}`],
  },
};
