// A chat in one room, over the protocol of docs/protocol.md: a WebSocket and nothing else. It runs in a browser
// and in Node alike; index.html puts a page around it.

const BACKOFF_MS = 200; // the first try comes within this time; the bound doubles with each one that fails
const BACKOFF_CAP_MS = 10_000;
const SLOW_MS = 5_000; // where a node said "too many"
const STEADY_MS = 5_000; // a session that lasted this long was a good one: the back-off begins anew
const WELCOME_MS = 10_000; // from dialling to the welcome
const MISSES = 2; // pings without an answer: the connection is dead, though the socket does not know
const STOP = new Set([1000, 1002, 1003, 1007, 1009, 4001, 4003, 4009]); // to connect again would not help
const TOO_MANY = 4029;

export const randomId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(6)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/**
 * Stays connected, and in the room, until `leave()`.
 *
 * urls: of nodes or a balancer, tried in turn, as in "ws://127.0.0.1:8001".
 * on: what to do about { welcome: {user, node} } (a session), { joined: room } (others hear us, and we them),
 *     { said: {from, data} }, { closed: {code, reason, again_ms} } (null: for good) and { note: text }.
 */
export class Chat {
  #urls;
  #room;
  #on;
  #socket = null;
  #device = randomId(); // the same for all sessions: a new one takes the place of one that is half dead
  #ids = 0;
  #unanswered = new Map(); // id -> what to do with its answer
  #tries = 0;
  #timers = new Set();

  constructor(urls, on, { user = randomId(), room = "lobby" } = {}) {
    this.user = user;
    this.#urls = [...urls];
    this.#room = room;
    this.#on = on;
    this.#connect();
  }

  /** Says something to all others in the room. At most once: what cannot be said now is not kept. */
  say(data) {
    const lost = (why) => this.#on({ note: `not said: ${why}` });
    if (this.#socket?.readyState !== WebSocket.OPEN) return lost("there is no connection");
    this.#ask({ type: "publish", room: this.#room, data }, (error) => error && lost(error.message));
  }

  /** Says goodbye. */
  leave() {
    this.#forgetTimers();
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  #connect() {
    const url = this.#urls.shift();
    this.#urls.push(url);
    const query = new URLSearchParams({ user: this.user, device: this.#device });
    const socket = new WebSocket(`${url}/v1/connect?${query}`, ["ring.v1"]);
    this.#socket = socket;
    const session = { after_ms: null, began: null, silent: 0 };
    socket.onmessage = ({ data }) => this.#socket === socket && this.#hear(JSON.parse(data), session);
    socket.onclose = ({ code, reason }) => this.#socket === socket && this.#end(code, reason, session);
    // Some WebSockets (Node's of old) tell of one that never opened by an error alone.
    socket.onerror = () => this.#socket === socket && session.began === null && this.#end(1006, "no answer", session);
    this.#later(WELCOME_MS, () => session.began === null && this.#give_up("no welcome", session));
  }

  #hear(frame, session) {
    switch (frame.type) {
      case "welcome":
        session.began = performance.now();
        this.#on({ welcome: { user: frame.user, node: frame.node } });
        this.#join(0);
        if (frame.heartbeat_s > 0) this.#beat(frame.heartbeat_s * 1000, session);
        break;
      case "room":
        this.#on({ said: { from: frame.from ?? "(server)", data: frame.data } });
        break;
      case "ok":
      case "pong":
        this.#answer(frame.id, null);
        break;
      case "error":
        if (frame.id !== undefined) this.#answer(frame.id, frame);
        else if (frame.room !== undefined) this.#on({ note: `something may be missing: ${frame.message}` });
        else this.#on({ note: frame.message });
        break;
      case "reconnect":
        session.after_ms = frame.after_ms; // the node closes with 1012 now
        break;
    } // what a later release says is passed over
  }

  // A membership ends with its session: each one asks for it anew.
  #join(tries) {
    this.#ask({ type: "join", room: this.#room }, (error) => {
      if (error === null) this.#on({ joined: this.#room });
      else if (error.cut) return;
      else if (error.retryable) this.#later(backoff(tries), () => this.#join(tries + 1));
      else this.#on({ note: `not in ${this.#room}: ${error.message}` });
    });
  }

  // Scripts cannot see the pings of the node: these show that it is there.
  #beat(heartbeat_ms, session) {
    this.#later(heartbeat_ms, () => {
      if (session.silent >= MISSES) return this.#give_up("the node does not answer", session);
      session.silent += 1;
      this.#ask({ type: "ping" }, (error) => error === null && (session.silent = 0));
      this.#beat(heartbeat_ms, session);
    });
  }

  #ask(frame, answered) {
    const id = `${this.#device}-${++this.#ids}`;
    this.#unanswered.set(id, answered);
    this.#socket.send(JSON.stringify({ ...frame, id }));
  }

  #answer(id, error) {
    const answered = this.#unanswered.get(id);
    this.#unanswered.delete(id);
    answered?.(error);
  }

  // Closing would wait for an answer of a node that gives none: the socket is left to itself.
  #give_up(reason, session) {
    const socket = this.#socket;
    this.#end(1006, reason, session);
    socket.close();
  }

  #end(code, reason, session) {
    this.#socket = null;
    this.#forgetTimers();
    const unanswered = [...this.#unanswered.values()];
    this.#unanswered.clear();
    for (const answered of unanswered) answered({ cut: true, message: "it is not known whether it was" });
    if (STOP.has(code)) return this.#on({ closed: { code, reason, again_ms: null } });
    if (session.began !== null && performance.now() - session.began >= STEADY_MS) this.#tries = 0;
    const again_ms = session.after_ms ?? backoff(this.#tries) + (code === TOO_MANY ? SLOW_MS : 0);
    this.#tries += 1;
    this.#on({ closed: { code, reason, again_ms } });
    this.#later(again_ms, () => this.#connect());
  }

  #later(delay_ms, act) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, delay_ms);
    this.#timers.add(timer);
  }

  #forgetTimers() {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }
}

// Exponential and fully jittered, lest all clients of a node that died come at once.
const backoff = (tries) => Math.random() * Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** tries);
