// The dashboard: what `/dashboard/events` tells each second.
import { connectStream } from '/auth/client.js';
import { bars, sparkline } from './charts.js';
import { clock, element, LAMP, make } from './page.js';

const KEPT = 300; // seconds of history
const SLOT = 10; // seconds of one bar, and of one point of a line of latencies
const AUDIT_ROWS = 50;
const NAMES = {
  'session.validate': 'Session validation',
  'store.lookup': 'Store look-up',
  'token.refresh': 'Token refresh',
  'provider.check': 'Provider check',
};
const OUTCOMES = ['success', 'transient', 'permanent'];
const GRAVITY = ['fail', 'warn', 'pass'];

let slots = []; // ten seconds each, oldest first
let opened = []; // [epoch seconds, open streams], each second
let targets = null;

const streams = sparkline(element('streams-chart'));
const validations = sparkline(element('validations-chart'));
const refreshes = bars(element('refreshes-chart'), [
  { label: 'ok', colour: 'accent' },
  { label: 'transient', colour: 'amber-light' },
  { label: 'permanent', colour: 'red' },
]);
const due = bars(element('due-chart'), [{ label: 'sessions', colour: 'accent' }]);

// -- what arrives ---------------------------------------------------------------------------------------------------

const stream = connectStream('/dashboard/events', { onEvent, onState });

function onEvent({ type, data }) {
  if (type === 'history') begin(JSON.parse(data));
  else if (type === 'figures') show(JSON.parse(data));
  else if (type === 'audit') showAudit(JSON.parse(data));
}

function onState(now) {
  element('lamp').hidden = false;
  element('lamp').dataset.state = now.state;
  element('lamp-text').textContent = LAMP[now.state];
  if (now.state === 'signed_out') welcome(now.authorization_url);
  else if (now.state === 'refused') notify(now.error_description ?? now.reason);
  else if (now.state === 'reauthorization') notify('The provider no longer renews your access: please sign in again.');
  else if (now.state === 'open') notify('');
}

function begin({ targets: limits, slots: earlier, streams: counts, audit }) {
  slots = earlier;
  opened = counts;
  targets ??= Object.entries(limits).map(([timer, limit]) => makeTarget(timer, limit));
  element('welcome').hidden = true;
  element('board').hidden = false;
  element('audit').replaceChildren();
  element('audit-empty').hidden = audit.length > 0;
  audit.forEach(showAudit);
}

function welcome(url) {
  stream.close();
  element('board').hidden = element('lamp').hidden = true;
  element('audit').replaceChildren(); // it is its user's own
  element('welcome').hidden = false;
  const place = new URL(url ?? '/auth/login', location.href);
  place.searchParams.set('return_to', '/dashboard');
  element('sign-in').href = place.href;
}

function notify(text) {
  element('notice').textContent = text;
  element('notice').hidden = text === '';
}

// -- what is shown --------------------------------------------------------------------------------------------------

function show(figures) {
  remember(figures);
  const { hit, miss, rejected } = figures.validations;
  showNumber('streams', streams, figures.streams, opened, `of ${counted(figures.sessions, 'session')}`);
  showNumber('validations', validations, rounded(hit + miss + rejected), slots.map(({ at, validations: asked }) => [at, asked]),
    `${rounded(hit)} cached, ${rounded(miss)} read, ${rounded(rejected)} refused`);
  for (const target of targets) target(figures);
  showRefreshes();
  showDue(figures.due);
  showHealth(figures.health);
}

/** A slot that was still running comes again, and a clock that is set may move its beginning a little. */
function remember({ at, streams: now, slots: newest }) {
  opened = [...opened, [at, now]].filter(([time]) => time > at - KEPT);
  for (const slot of newest) {
    slots = [...slots.filter((known) => Math.abs(known.at - slot.at) > SLOT / 2), slot];
  }
  slots = slots.filter((slot) => slot.at > at - KEPT);
}

const counted = (number, what) => `${number} ${what}${number === 1 ? '' : 's'}`;
const rounded = (number) => (Math.round(number * 10) / 10).toString();
const line = (pairs) => pairs.map(([x, y]) => ({ x, y }));

function showNumber(name, draw, now, pairs, note) {
  element(name).textContent = now;
  element(`${name}-note`).textContent = note;
  draw(line(pairs));
  const highest = Math.max(0, ...pairs.map(([, value]) => value));
  element(`${name}-label`).textContent = `Now ${now}; at most ${rounded(highest)} in the last five minutes.`;
}

function makeTarget(timer, limit) {
  const number = make('span', { class: 'number' }, '–');
  const verdict = make('p', { class: 'verdict' });
  const label = make('p', { class: 'unseen', id: `label-${timer}` });
  const canvas = make('canvas', { role: 'img', 'aria-labelledby': `label-${timer}` });
  const whole = make('section', { class: 'target' },
    make('h3', {}, NAMES[timer] ?? timer),
    make('p', { class: 'now' }, number, make('span', { class: 'of' }, `of ${limit} ms`)),
    verdict,
    make('div', { class: 'spark' }, canvas),
    label);
  element('targets').append(whole);
  const draw = sparkline(canvas, { target: limit });
  return ({ timers }) => {
    const { p95, samples, met } = timers[timer];
    whole.dataset.verdict = met === null ? 'unknown' : met ? 'met' : 'missed';
    number.textContent = p95 === null ? '–' : p95 < 0.1 ? '< 0.1' : p95 < 10 ? p95.toFixed(1) : Math.round(p95).toString();
    verdict.textContent = met === null ? `Too few to judge (${samples})` : met ? 'Target met' : 'Target missed';
    label.textContent = p95 === null
      ? `No measurement in the last five minutes; the target is ${limit} milliseconds.`
      : `95th percentile ${p95} milliseconds of ${counted(samples, 'measurement')}; the target is ${limit} milliseconds.`;
    draw(line(slots.map(({ at, p95: slow }) => [at, slow[timer]])));
  };
}

function showRefreshes() {
  const times = slots.map(({ at }) => clock.format(new Date(at * 1000)));
  const outcomes = OUTCOMES.map((outcome) => slots.map(({ refreshes: counts }) => counts[outcome]));
  refreshes(times, outcomes);
  const totals = outcomes.map((numbers) => numbers.reduce((sum, number) => sum + number, 0));
  OUTCOMES.forEach((outcome, number) => {
    element(`refreshes-${outcome}`).textContent = totals[number];
  });
  element('refreshes-label').textContent =
    `In the last five minutes ${totals[0]} succeeded, ${totals[1]} failed for now, ${totals[2]} for good.`;
}

function showDue(minutes) {
  due(minutes.map((_, number) => `${number + 1} min`), [minutes]);
  const sum = minutes.reduce((all, number) => all + number, 0);
  element('due-note').textContent = `${counted(sum, 'session')} in ${minutes.length} minutes`;
  element('due-label').textContent = `Sessions due by minute: ${minutes.join(', ')}.`;
}

function showHealth(checks) {
  const worstFirst = checks.toSorted((one, other) => GRAVITY.indexOf(one.status) - GRAVITY.indexOf(other.status));
  element('checks').replaceChildren(...worstFirst.map(({ name, status, ms, output }) =>
    make('li', { 'data-status': status },
      make('span', {}, name.replaceAll('_', ' ')),
      make('span', { class: 'state' }, status),
      ...(ms === null ? [] : [make('span', { class: 'took' }, `${ms} ms`)]),
      ...(output ? [make('span', { class: 'output' }, output)] : []))));
}

function showAudit({ time, event, outcome, reason }) {
  const rows = element('audit');
  rows.prepend(make('tr', {},
    make('td', {}, make('time', { datetime: time }, clock.format(new Date(time)))),
    make('td', {}, event),
    make('td', {}, outcome),
    make('td', {}, reason ?? '')));
  while (rows.children.length > AUDIT_ROWS) rows.lastElementChild.remove();
  element('audit-empty').hidden = rows.children.length > 0;
}
