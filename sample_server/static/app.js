// The page: signed out or signed in, and what the stream brings.
import { connectStream } from '/auth/client.js';
import { forgetUser, nameOf, showSessions, showUser } from './account.js';
import './copy-command.js';
import { clearLog, logEvent, logTick } from './event-log.js';
import { ApiError, ask, element, LAMP } from './page.js';
import { forgetToken, holdToken, showTick } from './token-view.js';

const SIGN_IN = '/auth/login?return_to=/';
const ENDED = {
  session_expired: 'Your session has expired.',
  revoked: 'Your session was ended.',
  reauthorization: 'Your sign-in at the provider has ended.',
};

let stream = null;
let user = null;
let countdown;
let asking = false;
let failures = 0;
let retry;

// -- signed out, signed in ------------------------------------------------------------------------------------------

/** Find out who is here, and show the page that is theirs; while nobody can tell, ask again, less and less often. */
async function begin() {
  if (asking) return;
  asking = true;
  clearTimeout(retry);
  try {
    const me = await ask('GET', '/me');
    failures = 0;
    enter(me);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) welcome('');
    else if (error.status === 403) notify(error.message);
    else {
      notify(`${error.message} Trying again…`);
      // With jitter: pages that lost the same server do not come back together.
      retry = setTimeout(begin, Math.min(30_000, 3_000 * 2 ** failures) * (0.5 + Math.random() / 2));
      failures += 1;
    }
  } finally {
    asking = false;
  }
}

function enter(me) {
  user = me;
  notify('');
  showUser(me);
  element('welcome').hidden = true;
  for (const id of ['desk', 'bar-user', 'lamp']) element(id).hidden = false;
  document.title = `${nameOf(me)} · tornado_sse_auth sample`;
  const may = me.scopes.includes('events:write');
  element('publish-send').disabled = !may;
  element('publish-result').textContent = may ? '' : 'Your session lacks the scope events:write.';
  stream?.close();
  stream = connectStream('/events', { onEvent: showEvent, onState: showState });
}

/** Nobody is signed in: nothing of the last user stays on the page. */
function welcome(text, authorizationUrl = null) {
  const wasHere = user !== null;
  stream?.close();
  stream = user = null;
  clearLog();
  forgetToken();
  forgetUser();
  element('publish').reset();
  element('publish-result').textContent = '';
  for (const id of ['desk', 'bar-user', 'lamp', 'reauthorization']) element(id).hidden = true;
  element('welcome').hidden = false;
  element('sign-in').href = returning(authorizationUrl ?? SIGN_IN);
  document.title = 'Sign in · tornado_sse_auth sample';
  notify(text);
  if (wasHere) element('welcome-title').focus();
}

/** The sign-in page, coming back here. */
function returning(url) {
  const place = new URL(url, location.href);
  place.searchParams.set('return_to', '/');
  return place.href;
}

function notify(text) {
  element('notice').textContent = text;
  element('notice').hidden = text === '';
}

// Signed in again in another tab?
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible' && user === null) begin();
});

// -- the stream -----------------------------------------------------------------------------------------------------

function showState(now) {
  element('lamp').dataset.state = now.state;
  element('lamp-text').textContent = LAMP[now.state];
  element('reauthorization').hidden = now.state !== 'reauthorization';
  showCountdown(now.retry_in);
  if (now.state !== 'open' && now.state !== 'reauthorization') holdToken();
  if (now.state === 'waiting') {
    logEvent('stream', `not connected (${now.reason}), trying again in ${now.retry_in.toFixed(1)} s`);
  } else if (now.state === 'reauthorization') {
    logEvent('auth', `auth_required: ${now.reason}`);
    element('reauthorization-link').href = returning(now.authorization_url ?? SIGN_IN);
  } else if (now.state === 'signed_out') {
    welcome(`${ENDED[now.reason] ?? 'You are signed out.'} Please sign in again.`, now.authorization_url);
  } else if (now.state === 'refused') {
    logEvent('stream', now.error_description ?? now.reason);
    notify(`The server refuses the stream: ${now.error_description ?? now.reason}`);
  } else if (now.state === 'open') {
    logEvent('stream', 'connected');
    showSessions(showFailure);
  }
}

function showCountdown(seconds = 0) {
  clearInterval(countdown);
  const until = Date.now() + seconds * 1000;
  const show = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    element('lamp-wait').textContent = left > 0 ? `in ${left} s` : '';
  };
  show();
  if (seconds > 0) countdown = setInterval(show, 250);
}

function showEvent({ type, data }) {
  if (type === 'tick') {
    const tick = JSON.parse(data);
    const refreshed = showTick(tick);
    if (refreshed) logEvent('refresh', `new upstream token: ${refreshed.before} s left before, ${refreshed.after} s now`);
    logTick(data);
  } else if (type === 'open') {
    if (JSON.parse(data).user_id === user.user_id) logEvent('open', data);
    else location.reload(); // somebody else has signed in here meanwhile
  } else {
    logEvent(['message', 'gap'].includes(type) ? type : 'event', type === 'message' ? data : `${type} ${data}`);
  }
}

// -- what the user does ---------------------------------------------------------------------------------------------

function showFailure(error) {
  if (error.status !== 401) notify(error.message); // of that the stream tells
}

async function signOut(everywhere) {
  try {
    await ask('POST', '/auth/logout', { everywhere });
    welcome(everywhere ? 'You are signed out everywhere.' : 'You are signed out.');
  } catch (error) {
    if (error.status === 401) welcome('You are signed out.');
    else notify(error.message);
  }
}

element('sign-out').addEventListener('click', () => signOut(false));
element('sign-out-everywhere').addEventListener('click', () => element('everywhere').showModal());
element('everywhere').addEventListener('close', (event) => {
  if (event.target.returnValue === 'yes') signOut(true);
  event.target.returnValue = '';
});
element('sessions-reload').addEventListener('click', () => showSessions(showFailure));

element('publish').addEventListener('submit', async (event) => {
  event.preventDefault();
  const result = element('publish-result');
  const text = element('publish-text');
  const publisher = user;
  result.classList.remove('failed');
  try {
    JSON.parse(text.value);
    const { id } = await ask('POST', '/publish', text.value);
    if (publisher !== user) return;
    result.textContent = `Accepted as event ${id}`;
  } catch (error) {
    if (publisher !== user) return;
    result.classList.add('failed');
    result.textContent = error instanceof SyntaxError ? 'This is not valid JSON.' : error.message;
    text.focus();
  }
});
element('publish-text').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) element('publish').requestSubmit(element('publish-send'));
});

begin();
