/* base.js - the status page: words for numbers, elements, counters.
 *
 * The page asks /status.json about once a second and shows what it says. Values reach it as text
 * nodes and attributes of ours only, never as markup (its policy forbids that too). Rates are
 * growth of counters by the server's own monotonic clock.
 *
 * The build joins base.js, parts.js and page.js into one script.
 */
'use strict';

const POLL_MS = 1000, HIDDEN_MS = 30000, RETRY_MOST_MS = 15000, PATIENCE_MS = 5000;
const WINDOW_MS = 10000;          // over which rates and quantiles in the tables are taken
const CHART_MS = 300000, CHART_FIRST_MS = 60000;  // what is drawn, and while there is less to draw
const GAP_MS = 5000;              // a line is not drawn over what was not seen
const ROWS_MOST = 400;            // backends drawn at one time; problems come first
const STUCK_MS = 10000;           // a heartbeat older than this
const NOTES_MOST = 12;

let status = null;                 // the last answer

/* ---- words ---- */

const count = n => Math.round(n).toLocaleString('en');
const rate = n => n < 9.95 ? n.toFixed(n === 0 ? 0 : 1) : n < 99950 ? count(n) : (n / 1000).toFixed(0) + 'k';
const percent = n => n === 0 ? '0' : n < 0.1 ? '<0.1' : n < 9.95 ? n.toFixed(1) : n.toFixed(0);
const millis = n => n === null ? '–' : n < 9.95 ? n.toFixed(1) : count(n);
const two = n => String(n).padStart(2, '0');
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? '' : 's'}`;

function clock(ms) {
  const d = new Date(ms);
  const time = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  const day = d.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
  return status && Math.abs(status.time_ms - ms) > 20 * 3600e3 ? `${day} ${time}` : time;
}

function age(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  return s < 120 ? `${s} s` : s < 7200 ? `${Math.floor(s / 60)} min`
    : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
}

const since = seconds => seconds ? `${clock(seconds * 1000)}, ${age(status.time_ms - seconds * 1000)}` : '–';

/* ---- elements ---- */

const SVG = 'http://www.w3.org/2000/svg';
const byId = id => document.getElementById(id);

function el(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

function svg(name, attributes) {
  const e = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) e.setAttribute(key, value);
  return e;
}

/* Only what differs is written: a reader's place and selection stay. */
function say(e, text) { if (e.textContent !== text) e.textContent = text; }
function mark(e, key, value) { if (e.getAttribute(key) !== value) e.setAttribute(key, value); }
function show(e, is) { if (e.hidden === is) e.hidden = !is; }

/* ---- counters ---- */

/* What a thing's counters have been: {t, n: [numbers], b: buckets}, no older than WINDOW_MS but
 * for one; and its rate of the last minute. */
class Track {
  constructor() { this.samples = []; this.rates = []; }

  add(t, n, b) {
    const s = this.samples;
    if (s.length && s[s.length - 1].t >= t) return;
    s.push({ t, n, b });
    while (s.length > 2 && s[1].t <= t - WINDOW_MS) s.shift();
    this.rates.push(this.perSecond(0, 2));
    if (this.rates.length > 60) this.rates.shift();
  }

  /* The last sample, and the first of the window or the one that many before the last. */
  pair(steps) {
    const s = this.samples, last = s.length - 1;
    return last < 1 ? null : [s[steps ? Math.max(0, last + 1 - steps) : 0], s[last]];
  }

  /* A counter that began anew has grown by what it is. */
  growth(i, steps) {
    const p = this.pair(steps);
    return !p ? 0 : p[1].n[i] >= p[0].n[i] ? p[1].n[i] - p[0].n[i] : p[1].n[i];
  }

  perSecond(i, steps) {
    const p = this.pair(steps);
    return p ? this.growth(i, steps) * 1000 / (p[1].t - p[0].t) : 0;
  }

  /* Share of counter i in counter j of the window, in percent. */
  share(i, j) {
    const whole = this.growth(j);
    return whole ? Math.min(100, 100 * this.growth(i) / whole) : 0;
  }

  /* As akashctl: straight lines between the bounds; beyond the last is that bound. null: nothing
   * was measured. */
  quantiles(bounds, wanted) {
    const p = this.pair();
    if (!p || !p[1].b) return wanted.map(() => null);
    const grown = p[1].b.map((n, i) => n >= p[0].b[i] ? n - p[0].b[i] : n);
    const total = grown.reduce((a, b) => a + b, 0);
    return wanted.map(q => total ? quantile(grown, bounds, total * q) : null);
  }
}

function quantile(buckets, bounds, rank) {
  let below = 0;
  for (let i = 0; i < bounds.length; i++) {
    if (buckets[i] && below + buckets[i] >= rank) {
      const from = i ? bounds[i - 1] : 0;
      return (from + (bounds[i] - from) * (rank - below) / buckets[i]) / 1000;
    }
    below += buckets[i];
  }
  return bounds[bounds.length - 1] / 1000;
}

const QUANTILES = [0.5, 0.95, 0.99];
const tracks = new Map();

function track(key) {
  if (!tracks.has(key)) tracks.set(key, new Track());
  const t = tracks.get(key);
  t.seen = status.clock_ms;
  return t;
}

function forgetGone() {
  for (const [key, t] of tracks) if (t.seen !== status.clock_ms) tracks.delete(key);
}

const addUp = (into, list) => list.forEach((n, i) => { into[i] = (into[i] || 0) + n; });
