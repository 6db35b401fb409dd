// Who the user is, the user's sessions, and a bearer for the terminal.
import { ask, element, make } from './page.js';

const today = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hour12: false });
const earlier = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

let visit = 0; // of one user: an answer to what was asked in an earlier one is nobody's any more

/** What the user is called. A provider may claim anything; a name is text. */
export const nameOf = ({ user_id, claims }) =>
  [claims.name, claims.preferred_username, claims.email].find((name) => typeof name === 'string' && name.trim() !== '')
    ?? user_id.slice(user_id.lastIndexOf('|') + 1);

/** `me`: the answer of `/me`. */
export function showUser(me) {
  const name = nameOf(me);
  element('you-name').textContent = element('bar-name').textContent = name;
  element('avatar').textContent = Array.from(name)[0].toUpperCase();
  element('you-plan').textContent = me.subscription ?? 'no subscription';
  element('you-id').textContent = me.user_id;
  element('you-session').textContent = me.session_id;
  showTags(element('you-scopes'), me.scopes);
  showTags(element('you-permissions'), me.permissions);
  element('you-claims').textContent = JSON.stringify(me.claims, null, 2);
}

/** Nothing of the user is left on the page, and nothing comes after. */
export function forgetUser() {
  visit += 1;
  for (const id of ['bar-name', 'you-name', 'avatar', 'you-plan', 'you-id', 'you-session', 'you-claims', 'you-scopes',
    'you-permissions', 'sessions']) element(id).replaceChildren();
  command.textContent = result.textContent = '';
  command.hidden = copy.hidden = true;
}

function showTags(list, words) {
  const tags = words.map((word) => make('li', { class: 'tag' }, word));
  list.replaceChildren(...(tags.length > 0 ? tags : [make('li', { class: 'none' }, 'none')]));
}

// -- sessions -------------------------------------------------------------------------------------------------------

/** Fetch and show them; `onFailure` gets an ApiError. */
export async function showSessions(onFailure) {
  const asked = visit;
  try {
    const { sessions } = await ask('GET', '/auth/sessions');
    if (asked !== visit) return;
    const rows = sessions.toSorted((a, b) => b.current - a.current || b.last_seen.localeCompare(a.last_seen));
    element('sessions').replaceChildren(...rows.flatMap((session) => [
      sessionRow(session, onFailure), ...session.grants.map((grant) => grantRow(session, grant, onFailure))]));
  } catch (error) {
    if (asked === visit) onFailure(error);
  }
}

/** A program that the user has allowed something; it stands on the session above it. */
function grantRow(session, grant, onFailure) {
  const name = grant.name || 'A program without a name';
  const facts = [`allowed ${when(grant.created)}`, `last used ${when(grant.last_used)}`, ...grant.scopes];
  const end = make('button', { type: 'button', class: 'quiet small', 'aria-label': `End what ${name} may do` }, 'End');
  end.addEventListener('click', async () => {
    end.disabled = true;
    try {
      await ask('DELETE', `/auth/sessions/${encodeURIComponent(session.id)}/grants/${encodeURIComponent(grant.id)}`);
    } catch (error) {
      onFailure(error);
    }
    await showSessions(onFailure);
  });
  return make('li', { class: 'grant' },
    make('div', { class: 'session-text' },
      make('p', { class: 'session-name', title: grant.client_id }, name),
      make('p', { class: 'session-facts' }, facts.map(unbroken).join(', '))),
    end);
}

function sessionRow(session, onFailure) {
  const name = programOf(session.client);
  const streams = session.open_streams === 1 ? '1 open stream' : `${session.open_streams} open streams`;
  const facts = [streams, `signed in ${when(session.created)}`, `last seen ${when(session.last_seen)}`];
  const end = make('button', { type: 'button', class: 'quiet small', 'aria-label': `End the session of ${name}` }, 'End');
  end.addEventListener('click', async () => {
    end.disabled = true;
    try {
      await ask('DELETE', `/auth/sessions/${encodeURIComponent(session.id)}`);
    } catch (error) {
      onFailure(error);
    }
    // One's own is ended by its stream, which hears of it by itself.
    if (!session.current) await showSessions(onFailure);
  });
  return make('li', {},
    make('div', { class: 'session-text' },
      make('p', { class: 'session-name', title: session.client ?? '' },
        name, ...(session.current ? [make('span', { class: 'tag strong' }, 'this one')] : [])),
      make('p', { class: 'session-facts' }, facts.map(unbroken).join(', '))),
    end);
}

/** A time of day stays true while the page is looked at; "a minute ago" does not. */
function when(iso) {
  const time = new Date(iso);
  return (time.toDateString() === new Date().toDateString() ? today : earlier).format(time);
}

const unbroken = (words) => words.replaceAll(' ', '\u00a0');

/** A guess from a User-Agent header, for people only. */
function programOf(client) {
  const agent = client ?? '';
  const known = [['Edg/', 'Edge'], ['Firefox/', 'Firefox'], ['Chrome/', 'Chrome'], ['Safari/', 'Safari'], ['curl/', 'curl']];
  const program = known.find(([mark]) => agent.includes(mark))?.[1] ?? (agent.split(/[/ ]/)[0] || 'Unknown program');
  const system = ['Android', 'iPhone', 'iPad', 'Windows', 'Mac OS X', 'Linux'].find((word) => agent.includes(word));
  return system ? `${program} on ${system === 'Mac OS X' ? 'macOS' : system}` : program;
}

// -- a bearer -------------------------------------------------------------------------------------------------------

const command = element('bearer-command');
const copy = element('bearer-copy');
const result = element('bearer-result');

element('bearer-make').addEventListener('click', async () => {
  const asked = visit;
  result.textContent = '';
  try {
    const { access_token } = await ask('POST', '/auth/token', { grant: 'session', expires_in: 86_400 });
    if (asked !== visit) return;
    command.textContent = `curl -N -H "Authorization: Bearer ${access_token}" ${location.origin}/events`;
    command.hidden = copy.hidden = false;
  } catch (error) {
    if (asked === visit) result.textContent = error.message;
  }
});
copy.addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(command.textContent);
    result.textContent = 'Copied';
  } catch {
    getSelection().selectAllChildren(command); // no clipboard on plain http: then by hand
    result.textContent = 'Selected: press Ctrl C';
  }
});
