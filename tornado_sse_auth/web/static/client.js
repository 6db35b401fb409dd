// @ts-check
/**
 * One authenticated stream of Server-Sent Events, kept open.
 *
 *     import { connectStream } from '/auth/client.js';
 *
 *     const stream = connectStream('/events', {
 *       onEvent: ({ type, data }) => show(type, JSON.parse(data)),
 *       onState: (now) => {
 *         if (now.state === 'reauthorization' || now.state === 'signed_out') offer(now.authorization_url);
 *       },
 *     });
 *     …
 *     stream.close();
 *
 * An `EventSource` gives up for good on any answer but 200 and tells nobody why. This stands on `fetch`: it sees the
 * status, says where to sign in, and otherwise comes back by itself with `Last-Event-ID`, so that nothing is lost that
 * the server still has. It needs no other file, writes nothing into the page and works under a strict content security
 * policy (`script-src 'self'; connect-src 'self'`).
 */

/**
 * An event of the stream. The server's own `auth_required`, `auth_restored` and `end` are states, not events.
 * @typedef {object} StreamEvent
 * @property {string} type         the `event` field; `message` where there is none
 * @property {string} data         the text, mostly JSON
 * @property {string} lastEventId  id of the newest event that had one
 */

/**
 * What the server's error answer told; present where an HTTP answer is the cause.
 * @typedef {object} Refusal
 * @property {number} [status]             HTTP status
 * @property {string} [error_description]  a sentence for people
 * @property {string} [request_id]         what the server's log knows the request by
 */

/**
 * What has become of the stream. `reason` is an error code of an answer, a close reason of an `end` event, or one of
 * ours: `network`, `silent` (no byte for too long), `ended` (the answer is over), `not_an_event_stream`, `http_<status>`.
 * `authorization_url` is where the user signs in: always http(s) and of the stream's own origin; null where the server
 * named none, as when the session was ended from elsewhere.
 * @typedef {(
 *   {state: 'connecting'} |
 *   {state: 'open'} |
 *   {state: 'waiting', reason: string, retry_in: number} & Refusal |
 *   {state: 'reauthorization', reason: string, authorization_url: string | null} |
 *   {state: 'signed_out', reason: string, authorization_url: string | null} & Refusal |
 *   {state: 'refused', reason: string} & Refusal |
 *   {state: 'closed', reason: string}
 * )} StreamState
 * `waiting`: comes back in `retry_in` seconds, or at once when the page is looked at or the network is there again.
 * `reauthorization`: still open, for a grace; signing in there, in any tab, brings `open` again on the same stream.
 * `signed_out`, `refused`, `closed`: over, until `reconnect()`.
 */

/**
 * All in milliseconds.
 * @typedef {object} Timing
 * @property {number} base     the first wait is up to this long, each further one up to twice the one before
 * @property {number} cap      a wait is never longer, but for what the server asks for (`retry`, Retry-After)
 * @property {number} steady   a stream that was open this long was no failure
 * @property {number} silence  no byte for this long: the connection is dead (heartbeats come each 15 s)
 */

/** @type {Readonly<Timing>} */
const TIMING = Object.freeze({ base: 1_000, cap: 30_000, steady: 10_000, silence: 45_000 });
const LONGEST_WAIT = 86_400_000; // beyond 2^31 ms a timer fires at once
const SIGN_IN_FIRST = new Set(['session_expired', 'revoked', 'reauthorization']);
const TRY_AGAIN = new Set([408, 425, 429]); // and every 5xx
const NO_CONTENT = 204; // how a server tells an event source not to come back

/**
 * Open the stream at `url` and keep it open. Throws `TypeError` where `url` is none.
 *
 * @param {string | URL} url
 * @param {object} [options]
 * @param {(event: StreamEvent) => void} [options.onEvent]  called for each event, in order, each once
 * @param {(state: StreamState) => void} [options.onState]  called for each change, first with `connecting`
 * @param {Partial<Timing>} [options.timing]                other waits than the default ones, as tests need
 * @returns {{close: () => void, reconnect: () => void}}
 *   `close` ends the stream; `reconnect` connects now, also after an end, and goes on where the stream was
 */
export function connectStream(url, { onEvent = () => {}, onState = () => {}, timing = {} } = {}) {
  const place = new URL(url, globalThis.document?.baseURI ?? globalThis.location.href);
  const connection = new Connection(place, onEvent, onState, { ...TIMING, ...timing });
  connection.reconnect();
  return { close: () => connection.close(), reconnect: () => connection.reconnect() };
}

/**
 * Text of an event stream in, events out (WHATWG HTML, section 9.2.6), wherever the text is cut into pieces.
 * `lastEventId` and `retry` (milliseconds, or null) are the newest ones received.
 */
export class EventParser {
  lastEventId = '';
  /** @type {number | null} */
  retry = null;
  #line = '';
  #afterReturn = false;
  #type = '';
  /** @type {string[]} */
  #data = [];
  #id = '';

  /** A new connection: what was left unfinished by the last one is not an event. */
  restart() {
    this.#line = '';
    this.#afterReturn = false;
    this.#type = '';
    this.#data = [];
    this.#id = this.lastEventId;
  }

  /**
   * @param {string} text  the next piece, decoded
   * @returns {Generator<StreamEvent, void, void>}
   */
  *feed(text) {
    if (text === '') return;
    // The carriage return before was a line end already; a line feed after it belongs to that one.
    const rest = this.#afterReturn && text.startsWith('\n') ? text.slice(1) : text;
    this.#afterReturn = text.endsWith('\r');
    const lines = rest.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop() ?? '';
    for (const line of lines) {
      if (line !== '') this.#field(line);
      else yield* this.#dispatch();
    }
  }

  /** @param {string} line */
  #field(line) {
    const colon = line.indexOf(':');
    if (colon === 0) return; // a comment
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + (line[colon + 1] === ' ' ? 2 : 1));
    if (name === 'data') this.#data.push(value);
    else if (name === 'event') this.#type = value;
    else if (name === 'id' && !value.includes('\0')) this.#id = value;
    else if (name === 'retry' && /^[0-9]+$/.test(value)) this.retry = Number(value);
  }

  /** @returns {StreamEvent[]}  none where the event has no data */
  #dispatch() {
    const [type, data] = [this.#type, this.#data];
    this.lastEventId = this.#id;
    this.#type = '';
    this.#data = [];
    return data.length > 0 ? [{ type: type || 'message', data: data.join('\n'), lastEventId: this.lastEventId }] : [];
  }
}

/** One attempt at a time. Whatever ends it aborts it, and after each wait it asks whether it has been. */
class Connection {
  #url;
  #onEvent;
  #onState;
  #timing;
  #parser = new EventParser();
  /** @type {AbortController | null} */
  #attempt = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #waiting = false;
  #notBefore = 0;
  #failures = 0;
  #openedAt = 0;
  /** @type {string | null} */
  #authorizationUrl = null;

  /**
   * @param {URL} url
   * @param {(event: StreamEvent) => void} onEvent
   * @param {(state: StreamState) => void} onState
   * @param {Timing} timing
   */
  constructor(url, onEvent, onState, timing) {
    this.#url = url;
    this.#onEvent = onEvent;
    this.#onState = onState;
    this.#timing = timing;
  }

  reconnect() {
    this.#leave();
    globalThis.addEventListener('online', this.#wake);
    globalThis.document?.addEventListener('visibilitychange', this.#wake);
    this.#connect();
  }

  close() {
    if (this.#attempt || this.#waiting) this.#stop({ state: 'closed', reason: 'client' });
  }

  // -- an attempt ------------------------------------------------------------------------------------------------

  async #connect() {
    this.#waiting = false;
    const attempt = new AbortController();
    this.#attempt = attempt;
    this.#report({ state: 'connecting' });
    let heardAt = Date.now();
    // By the wall clock: it goes on while the machine sleeps, and a connection seldom outlives that.
    const watchdog = setInterval(() => {
      if (Date.now() - heardAt >= this.#timing.silence) attempt.abort();
    }, this.#timing.silence / 10);
    this.#openedAt = 0;
    /** @type {Outcome} */
    let outcome;
    try {
      outcome = await this.#converse(attempt, () => { heardAt = Date.now(); });
    } catch {
      outcome = { state: 'waiting', reason: attempt.signal.aborted ? 'silent' : 'network' };
    } finally {
      clearInterval(watchdog);
      attempt.abort(); // the answer may not be read to its end
    }
    if (attempt !== this.#attempt) return;
    this.#attempt = null;
    if (outcome.state === 'waiting') this.#wait(outcome);
    else this.#stop(outcome);
  }

  /**
   * Rejects where the network fails or the attempt is aborted.
   * @param {AbortController} attempt
   * @param {() => void} heard  called for each sign of life
   * @returns {Promise<Outcome>}
   */
  async #converse(attempt, heard) {
    /** @type {Record<string, string>} */
    const headers = { Accept: 'text/event-stream' };
    if (this.#parser.lastEventId) headers['Last-Event-ID'] = headerValue(this.#parser.lastEventId);
    const answer = await fetch(this.#url, { headers, cache: 'no-store', signal: attempt.signal });
    attempt.signal.throwIfAborted();
    heard();
    if (answer.status !== 200) return this.#refusal(answer, attempt);
    const type = answer.headers.get('Content-Type') ?? '';
    if (!answer.body || !/^text\/event-stream *(;|$)/i.test(type)) {
      return { state: 'refused', reason: 'not_an_event_stream', status: answer.status };
    }
    this.#openedAt = Date.now();
    this.#parser.restart();
    this.#report({ state: 'open' });
    const reader = answer.body.getReader();
    const decoder = new TextDecoder(); // which takes the byte order mark away
    for (;;) {
      const { done, value } = await reader.read();
      attempt.signal.throwIfAborted();
      if (done) return { state: 'waiting', reason: 'ended' };
      heard();
      for (const event of this.#parser.feed(decoder.decode(value, { stream: true }))) {
        const outcome = this.#receive(event);
        if (outcome) return outcome;
        attempt.signal.throwIfAborted();
      }
    }
  }

  /**
   * @param {StreamEvent} event
   * @returns {Outcome | null}
   */
  #receive(event) {
    if (event.type === 'auth_required') {
      const { authorization_url, reason } = parseObject(event.data);
      this.#authorizationUrl = this.#trusted(authorization_url);
      this.#report({
        state: 'reauthorization',
        reason: text(reason) ?? 'reauthorization',
        authorization_url: this.#authorizationUrl,
      });
    } else if (event.type === 'auth_restored') {
      this.#authorizationUrl = null;
      this.#report({ state: 'open' });
    } else if (event.type === 'end') {
      const reason = text(parseObject(event.data).reason) ?? 'ended';
      if (reason.startsWith('insufficient_')) return { state: 'refused', reason };
      if (!SIGN_IN_FIRST.has(reason)) return { state: 'waiting', reason };
      // The URL of an auth_required is good for the session that still exists, and for no other.
      const url = reason === 'reauthorization' ? this.#authorizationUrl : null;
      return { state: 'signed_out', reason, authorization_url: url };
    } else {
      this.#tell(this.#onEvent, event);
    }
    return null;
  }

  /**
   * @param {Response} answer
   * @param {AbortController} attempt
   * @returns {Promise<Outcome>}
   */
  async #refusal(answer, attempt) {
    const { status } = answer;
    if (status === NO_CONTENT) return { state: 'closed', reason: 'no_content' };
    const body = parseObject(await answer.text());
    attempt.signal.throwIfAborted();
    const reason = text(body.error) ?? `http_${status}`;
    /** @type {Refusal} */
    const told = { status };
    for (const name of /** @type {const} */ (['error_description', 'request_id'])) {
      const value = text(body[name]);
      if (value !== null) told[name] = value;
    }
    if (status === 401) {
      return { state: 'signed_out', reason, authorization_url: this.#trusted(body.authorization_url), ...told };
    }
    if (status < 500 && !TRY_AGAIN.has(status)) return { state: 'refused', reason, ...told };
    this.#notBefore = Date.now() + (milliseconds(answer.headers.get('Retry-After')) ?? 0);
    return { state: 'waiting', reason, ...told };
  }

  // -- between attempts ------------------------------------------------------------------------------------------

  /** @param {Outcome & {state: 'waiting'}} outcome */
  #wait(outcome) {
    const now = Date.now();
    const { base, cap, steady } = this.#timing;
    if (this.#openedAt && now - this.#openedAt >= steady) this.#failures = 0;
    // Full jitter, above what the server asks for: Retry-After with a refusal, else the stream's `retry`.
    const asked = this.#notBefore > now ? this.#notBefore - now : this.#parser.retry ?? 0;
    const delay = Math.min(LONGEST_WAIT, asked) + Math.random() * Math.min(cap, base * 2 ** this.#failures);
    this.#failures += 1;
    this.#waiting = true;
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#report({ ...outcome, retry_in: delay / 1000 });
  }

  /** The user is back, or the network: why wait? Only where the server has asked for it. */
  #wake = () => {
    if (!this.#waiting || globalThis.document?.visibilityState === 'hidden') return;
    clearTimeout(this.#timer);
    const delay = Math.min(LONGEST_WAIT, Math.max(0, this.#notBefore - Date.now()));
    this.#timer = setTimeout(() => this.#connect(), delay);
  };

  /** @param {StreamState} state */
  #stop(state) {
    this.#leave();
    this.#report(state);
  }

  #leave() {
    const attempt = this.#attempt;
    this.#attempt = null;
    this.#waiting = false;
    this.#notBefore = this.#failures = 0;
    clearTimeout(this.#timer);
    globalThis.removeEventListener('online', this.#wake);
    globalThis.document?.removeEventListener('visibilitychange', this.#wake);
    attempt?.abort();
  }

  /** @param {StreamState} state */
  #report(state) {
    this.#tell(this.#onState, state);
  }

  /**
   * An error of the page is the page's: it is reported there and the stream goes on.
   * @template T
   * @param {(value: T) => void} listener
   * @param {T} value
   */
  #tell(listener, value) {
    try {
      listener(value);
    } catch (error) {
      reportError(error);
    }
  }

  /**
   * An authorization URL that a page may open: http(s), and of the origin that the page asked, whoever wrote it.
   * @param {unknown} value
   */
  #trusted(value) {
    if (typeof value !== 'string' || !URL.canParse(value, this.#url)) return null;
    const url = new URL(value, this.#url);
    return /^https?:$/.test(url.protocol) && url.origin === this.#url.origin ? url.href : null;
  }
}

/** @typedef {Exclude<StreamState, {state: 'waiting'}> | ({state: 'waiting', reason: string} & Refusal)} Outcome */

/**
 * A header carries bytes: an id beyond ASCII goes as UTF-8, as an `EventSource` sends it.
 * @param {string} id
 */
function headerValue(id) {
  return Array.from(new TextEncoder().encode(id), (byte) => String.fromCharCode(byte)).join('');
}

/**
 * A Retry-After header, seconds or a date (RFC 9110, section 10.2.3), in milliseconds from now.
 * @param {string | null} value
 */
function milliseconds(value) {
  if (value === null) return null;
  const delay = /^[0-9]+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(delay) ? null : Math.min(LONGEST_WAIT, Math.max(0, delay));
}

/**
 * @param {string} json
 * @returns {Record<string, unknown>}  empty where `json` is no object
 */
function parseObject(json) {
  try {
    const value = JSON.parse(json);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}

/**
 * @param {unknown} value
 * @returns {string | null}
 */
function text(value) {
  return typeof value === 'string' ? value : null;
}
