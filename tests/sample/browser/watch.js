// The page of the tests: notes what a stream tells. `watch(timing)` begins anew.
import { connectStream, EventParser } from '/auth/client.js';

window.EventParser = EventParser;
window.pageErrors = [];
window.addEventListener('error', (event) => {
  window.pageErrors.push(event.message);
  event.preventDefault();
});

window.watch = (timing = {}, onEvent = () => {}) => {
  window.stream?.close();
  window.events = [];
  window.states = [];
  window.stream = connectStream('/stream', {
    onEvent: (event) => {
      window.events.push(event);
      onEvent(event);
    },
    onState: (state) => window.states.push(state),
    timing: { base: 20, cap: 50, ...timing },
  });
};
window.now = () => window.states.at(-1) ?? {};
window.ready = true;
