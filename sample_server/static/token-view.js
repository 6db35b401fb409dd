// The countdown of the upstream token, and its last five minutes.
import { clock, element } from './page.js';

const SECONDS = 300;
const [WIDTH, HEIGHT] = [300, 56];
const JUMP = 2; // seconds more than before: not a late tick, a new token

const ring = element('ring');
let history = [];
let left = null;
let full = 0;
let refreshes = 0;

/** Takes a `tick`; gives {before, after} in seconds when the token was refreshed since the last one, else null. */
export function showTick({ seq, token_expires_in: now }) {
  const refreshed = left !== null && now !== null && now > left + JUMP ? { before: left, after: now } : null;
  if (refreshed) {
    refreshes += 1;
    full = now;
    element('token-refreshes').textContent = refreshes;
    element('token-latest').textContent = clock.format(new Date());
    ring.classList.remove('refreshed');
    void ring.getBoundingClientRect(); // so that the animation begins anew
    ring.classList.add('refreshed');
  }
  left = now;
  full = Math.max(full, now ?? 0);
  element('token-seconds').textContent = now === null ? 'none' : Math.max(0, now);
  element('token-unit').textContent = now === null ? 'of this session' : now === 1 ? 'second left' : 'seconds left';
  element('token-ticks').textContent = seq;
  const part = full > 0 && now !== null ? Math.min(1, Math.max(0, now / full)) : 0;
  element('ring-left').setAttribute('stroke-dashoffset', 100 * (1 - part));
  ring.classList.toggle('low', now !== null && part <= 0.1);
  ring.classList.remove('stale');
  history = [...history, { at: Date.now() / 1000, left: now }].slice(-SECONDS);
  drawSaw();
  return refreshed;
}

/** No tick comes: the number is an old one, and says so. */
export function holdToken() {
  if (left === null) return;
  element('token-unit').textContent = 'last seen';
  ring.classList.add('stale');
}

/** Another session, or none: nothing of the one before is left. */
export function forgetToken() {
  history = [];
  left = null;
  full = refreshes = 0;
  element('token-seconds').textContent = '–';
  element('token-unit').textContent = 'seconds left';
  element('token-refreshes').textContent = element('token-ticks').textContent = '0';
  element('token-latest').textContent = 'none yet';
  element('ring-left').setAttribute('stroke-dashoffset', 100);
  ring.classList.remove('refreshed', 'low', 'stale');
  drawSaw();
}

function drawSaw() {
  const points = history.filter((point) => point.left !== null);
  const newest = points.at(-1)?.at ?? 0;
  const place = ({ at, left: seconds }) => {
    const x = WIDTH - ((newest - at) * WIDTH) / SECONDS;
    const y = HEIGHT - 3 - (Math.max(0, seconds) / (full || 1)) * (HEIGHT - 8);
    return `${x.toFixed(1)} ${y.toFixed(1)}`;
  };
  const line = points.filter((point) => newest - point.at <= SECONDS).map(place);
  const first = line[0]?.split(' ')[0];
  element('saw-line').setAttribute('d', line.length > 1 ? `M${line.join('L')}` : '');
  element('saw-area').setAttribute('d', line.length > 1 ? `M${first} ${HEIGHT}L${line.join('L')}L${WIDTH} ${HEIGHT}Z` : '');
}
