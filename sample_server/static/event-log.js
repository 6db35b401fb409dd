// The live event log: the newest row on top, at most ROWS of them.
import { clock, element, make } from './page.js';

const ROWS = 200;
const LONGEST = 1_000; // characters of one row
const list = element('log');
const empty = element('log-empty');
const ticks = element('log-ticks');

ticks.addEventListener('change', () => {
  // A row a second is nothing to be read out.
  list.setAttribute('aria-live', ticks.checked ? 'off' : 'polite');
  list.classList.toggle('with-ticks', ticks.checked);
  refreshEmpty();
});
element('log-clear').addEventListener('click', clearLog);

/** `kind` names the colour and is the row's label; `text` is shown as it is, but for what is too long of it. */
export function logEvent(kind, text) {
  const now = new Date();
  list.prepend(
    make('li', { class: `kind-${kind}` },
      make('time', { datetime: now.toISOString() }, clock.format(now)),
      make('span', { class: 'kind' }, kind),
      make('span', { class: 'text' }, shortened(text))),
  );
  while (list.children.length > ROWS) list.lastElementChild.remove();
  refreshEmpty();
}

function shortened(text) {
  if (text.length <= LONGEST) return text;
  return `${text.slice(0, LONGEST)}… (${text.length.toLocaleString()} characters in all)`;
}

export function logTick(text) {
  if (ticks.checked) logEvent('tick', text);
}

export function clearLog() {
  list.replaceChildren();
  refreshEmpty();
}

function refreshEmpty() {
  empty.hidden = list.querySelector(ticks.checked ? 'li' : 'li:not(.kind-tick)') !== null;
}
