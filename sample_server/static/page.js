// What all modules of the pages do alike: find an element, make one, name a stream's state, ask the server.

/** The element with this id; it stands in the page. */
export const element = (id) => document.getElementById(id);

/** A new element. Children are elements or strings, and a string is only ever text. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });

/** What the lamp says in each state of `connectStream`. */
export const LAMP = {
  connecting: 'Connecting',
  open: 'Live',
  waiting: 'Reconnecting',
  reauthorization: 'Sign in again',
  signed_out: 'Signed out',
  refused: 'Refused',
  closed: 'Closed',
};

/** An answer that is no success: `status`, and `code` of the error table; the message is for people. */
export class ApiError extends Error {
  constructor(status, { error = `http_${status}`, error_description, request_id } = {}) {
    super(`${error_description ?? `The server answered ${status}.`}${request_id ? ` (request ${request_id})` : ''}`);
    this.status = status;
    this.code = error;
  }
}

/** Ask our own server; gives the JSON of the answer, or null where it has none. Throws `ApiError`. */
export async function ask(method, path, body) {
  const request = { method, cache: 'no-store', headers: { Accept: 'application/json' } };
  if (body !== undefined) {
    request.body = typeof body === 'string' ? body : JSON.stringify(body);
    request.headers['Content-Type'] = 'application/json';
  }
  let answer;
  try {
    answer = await fetch(path, request);
  } catch {
    throw new ApiError(0, { error: 'network', error_description: 'The server cannot be reached.' });
  }
  const document = await answer.json().catch(() => null);
  if (!answer.ok) throw new ApiError(answer.status, document ?? {});
  return document;
}
