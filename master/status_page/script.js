/* script.js - the status page: asks /status.json about once a second and shows what it says.
 *
 * Values reach the page as text nodes and attributes of ours only, never as markup (the policy of
 * the page forbids it too). Rates are growth of counters by the server's own monotonic clock.
 *
 * Order: words, elements, counters, charts, tables, sections, asking.
 */
'use strict';

const POLL_MS = 1000, HIDDEN_MS = 30000, RETRY_MOST_MS = 15000, PATIENCE_MS = 5000;
const WINDOW_MS = 10000;          // over which rates and quantiles in the tables are taken
const CHART_MS = 300000, CHART_FIRST_MS = 60000;  // what is drawn, and while there is less to draw
const GAP_MS = 5000;              // a line is not drawn over what was not seen
const ROWS_MOST = 400;            // backends drawn at one time; problems come first
const STUCK_MS = 10000;           // a heartbeat older than this
const NOTES_MOST = 12;

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

/* ---- charts ---- */

/* The next of 1, 2, 5, 10 … from n on. */
function round(n) {
  const unit = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map(f => f * unit).find(top => top >= n * 0.999) || 10 * unit;
}

class Chart {
  constructor(title, unit, names, format, least, limit = Infinity) {
    Object.assign(this, { title, unit, names, format, least, limit, points: [], at: null });
    this.values = names.map(() => el('dd', {}, '–'));
    const many = names.length > 1;
    const legend = el('dl', many ? { class: 'many' } : {}, ...names.map((name, i) =>
      el('div', {}, ...(many ? [this.sample(i)] : []), el('dt', many ? {} : { class: 'unseen' }, name), this.values[i])));
    this.when = el('span', { class: 'quiet' }, unit);
    this.plot = svg('svg', { class: 'plot', role: 'img', 'aria-label': title });
    this.figure = el('figure', {}, el('figcaption', {}, el('p', {}, el('strong', {}, title), ' ', this.when), legend), this.plot);
    this.plot.addEventListener('pointermove', e => this.look(e.offsetX));
    this.plot.addEventListener('pointerleave', () => this.look(null));
    byId('charts').append(this.figure);
  }

  sample(i) {
    const s = svg('svg', { viewBox: '0 0 26 10', 'aria-hidden': 'true' });
    s.append(svg('path', { class: `line s${i}`, d: 'M0 5H26' }));
    return s;
  }

  add(t, values) {
    this.points.push({ t, wall: status.time_ms, values });
    while (this.points.length && this.points[0].t < t - CHART_MS) this.points.shift();
  }

  look(x) { this.at = x; this.draw(); }

  draw() {
    const width = this.plot.clientWidth, height = this.plot.clientHeight;
    if (!this.points.length || !width) return;
    const last = this.points[this.points.length - 1], left = 46, bottom = height - 18, top = 8;
    const greatest = Math.max(this.least, ...this.points.flatMap(p => p.values.map(v => v || 0)));
    const most = Math.min(round(greatest), this.limit);
    const span = last.t - this.points[0].t < CHART_FIRST_MS ? CHART_FIRST_MS : CHART_MS;
    const x = t => left + (width - left - 2) * (1 - (last.t - t) / span);
    const y = v => bottom - (bottom - top) * v / most;
    const parts = this.frame(width, left, bottom, most, y, span);
    this.names.forEach((_, i) => parts.push(...this.line(i, x, y, bottom)));
    const seen = this.at === null ? last : this.nearest(x);
    if (seen !== last) parts.push(svg('path', { class: 'mark', d: `M${x(seen.t).toFixed(1)} ${top}V${bottom}` }));
    this.plot.replaceChildren(...parts);
    this.tell(seen, last);
  }

  frame(width, left, bottom, most, y, span) {
    const label = (px, py, anchor, text) => {
      const t = svg('text', { x: px, y: py, 'text-anchor': anchor });
      t.textContent = text;
      return t;
    };
    const parts = [0, most / 2, most].flatMap(v => [
      svg('path', { class: 'grid', d: `M${left} ${y(v).toFixed(1)}H${width}` }),
      label(left - 6, y(v) + 4, 'end', v === 0 ? '0' : v < 1 ? String(+v.toFixed(2)) : rate(v))]);
    return [...parts, label(left, bottom + 15, 'start', `${span / 60000} min ago`), label(width, bottom + 15, 'end', 'now')];
  }

  line(i, x, y, bottom) {
    let d = '', area = '', run = [];
    const end = () => {
      if (run.length > 1) {
        const way = run.map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`).join('L');
        d += 'M' + way;
        area += `M${run[0][0].toFixed(1)} ${bottom}L${way}L${run[run.length - 1][0].toFixed(1)} ${bottom}Z`;
      }
      run = [];
    };
    let before = null;
    for (const p of this.points) {
      if (p.values[i] === null || (before && p.t - before.t > GAP_MS)) end();
      if (p.values[i] !== null) run.push([x(p.t), y(p.values[i])]);
      before = p;
    }
    end();
    const line = svg('path', { class: `line s${i}`, d });
    return this.names.length === 1 ? [svg('path', { class: 'area', d: area }), line] : [line];
  }

  nearest(x) {
    return this.points.reduce((a, b) => Math.abs(x(b.t) - this.at) < Math.abs(x(a.t) - this.at) ? b : a);
  }

  tell(seen, last) {
    this.names.forEach((_, i) => say(this.values[i], this.format(seen.values[i])));
    say(this.when, seen === last ? this.unit : `${this.unit}, at ${clock(seen.wall)}`);
    const words = this.names.map((name, i) => {
      const all = this.points.map(p => p.values[i]).filter(v => v !== null);
      return all.length ? `${name} now ${this.format(last.values[i])}, from ${this.format(Math.min(...all))} to ${this.format(Math.max(...all))}`
        : `${name} not measured`;
    });
    mark(this.plot, 'aria-label', `${this.title} (${this.unit}) of the last five minutes: ${words.join('; ')}`);
  }
}

/* ---- tables ---- */

/* columns: [title, class]. A cell is a text, or an element of the row's own. */
class Table {
  constructor(label, columns) {
    this.columns = columns;
    this.rows = new Map();
    this.body = el('tbody', { role: 'rowgroup' });
    const heads = columns.map(([title, kind]) => el('th', { scope: 'col', role: 'columnheader', class: kind }, title));
    this.table = el('table', { role: 'table' }, el('caption', { class: 'unseen' }, label),
      el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...heads)), this.body);
    this.box = el('div', { class: 'scroll' }, this.table);
    this.label = label;
  }

  row(key) {
    if (!this.rows.has(key)) {
      const cells = this.columns.map(([title, kind], i) => i === 0
        ? el('th', { scope: 'row', role: 'rowheader' })
        : el('td', { role: 'cell', class: kind, 'data-name': title }));
      this.rows.set(key, { tr: el('tr', { role: 'row' }, ...cells), cells });
    }
    return this.rows.get(key);
  }

  /* list: [key, texts]; a text of null leaves the cell to the caller. */
  fill(list) {
    const keys = new Set(list.map(([key]) => key));
    for (const [key, row] of this.rows) if (!keys.has(key)) { row.tr.remove(); this.rows.delete(key); }
    list.forEach(([key, texts], i) => {
      const row = this.row(key);
      texts.forEach((text, c) => {
        if (text === null) return;
        say(row.cells[c], text);
        row.cells[c].classList.toggle('void', text === '' || text === '–');
      });
      if (this.body.children[i] !== row.tr) this.body.insertBefore(row.tr, this.body.children[i] || null);
    });
    this.reach();
  }

  /* What does not fit can be reached by keyboard. */
  reach() {
    if (this.box.scrollWidth > this.box.clientWidth + 1) {
      mark(this.box, 'tabindex', '0'); mark(this.box, 'role', 'region'); mark(this.box, 'aria-label', this.label);
    } else if (this.box.hasAttribute('tabindex')) {
      for (const key of ['tabindex', 'role', 'aria-label']) this.box.removeAttribute(key);
    }
  }
}

/* ---- what is amiss ---- */

/* The operator's or the file's word goes before the health, as in akashctl. */
const wordOf = b => b.state === 'ready' ? b.health : b.state;
const isProblem = b => !b.usable || (b.breaker && b.breaker !== 'closed');
const isMeant = b => b.state !== 'ready';

function toneOf(b) {
  if (isMeant(b)) return 'warn';
  if (b.health === 'down') return 'bad';
  return isProblem(b) ? 'warn' : b.health === 'up' ? 'good' : 'calm';
}

function whyOf(b) {
  const words = b.why && !(b.operator && b.operator.state) ? [b.why] : [];
  if (b.operator && b.operator.state) words.push(`${b.state}, says the operator; the file: ${b.operator.state.file}`);
  if (b.breaker && b.breaker !== 'closed' && b.reason !== 'breaker_open') words.push(`breaker ${b.breaker}`);
  if (b.breaker_open_ms > 0) words[words.length - 1] += `, tried again in ${age(b.breaker_open_ms)}`;
  if (b.operator && b.operator.breaker && b.usable) words.push(`breaker ${b.breaker}, says the operator`);
  if (b.health === 'off' && !words.length) words.push('not checked');
  if (b.backup) words.push('backup');
  return words.join('; ');
}

function sinceOf(b) {
  if (b.operator && b.operator.state) return b.operator_since;
  return isMeant(b) || b.health === 'off' ? 0 : b.since;
}

const backends = () => status.upstreams.flatMap(up => up.backends.map(b => ({ up, b, key: `${up.name}/${b.id}` })));

/* [{key, tone, name, text}], the worst first. */
function problems(all) {
  const list = [], add = (key, tone, name, text) => list.push({ key, tone, name, text });
  if (status.draining) add('draining', 'bad', 'akashd', 'draining: it takes no new connections and ends');
  for (const up of status.upstreams)
    if (up.backends.length && !up.backends.some(b => b.usable)) add('up ' + up.name, 'bad', `upstream ${up.name}`, 'no usable backend');
  if (!status.reload.successful) add('reload', 'bad', 'last reload', `refused: ${status.reload.error}`);
  for (const w of status.workers)
    if (w.heartbeat_age_ms > STUCK_MS) add('worker ' + w.index, 'bad', `worker ${w.index}`, `no sign of life for ${age(w.heartbeat_age_ms)}`);
  for (const bad of [true, false])
    for (const { b, key } of all)
      if (isProblem(b) && !isMeant(b) && (b.health === 'down') === bad)
        add('backend ' + key, toneOf(b), `backend ${key}`, whyOf(b) + (sinceOf(b) && b.health === 'down' ? ` (since ${since(sinceOf(b))})` : ''));
  return list;
}

/* ---- sections ---- */

let status = null;      // the last answer
let known = null;       // problems of the one before, by key

const item = (tone, name, text) => el('li', { 'data-tone': tone }, ...(name ? [el('b', {}, name), ': ', text] : [text]));

function fillNotes(list, items) {
  const same = items.length === list.children.length && items.every((n, i) => n.textContent === list.children[i].textContent && n.dataset.tone === list.children[i].dataset.tone);
  if (!same) list.replaceChildren(...items);
}

function drawAttention(list, all) {
  const items = list.slice(0, NOTES_MOST).map(p => item(p.tone, p.name, p.text));
  if (list.length > NOTES_MOST) items.push(item('warn', '', `and ${count(list.length - NOTES_MOST)} more: see Only problems below`));
  if (!list.length) items.push(item('good', '', 'Nothing: every backend that should serve can be chosen, and the last reload took effect.'));
  fillNotes(byId('attention'), items);
  const said = all.filter(({ b }) => b.operator).flatMap(({ b, key }) => Object.entries(b.operator)
    .map(([what, d]) => item('warn', `backend ${key}`, `${what} ${d.operator}; the file: ${d.file} (since ${since(b.operator_since)})`)));
  fillNotes(byId('said'), said.slice(0, 4 * NOTES_MOST));
  show(byId('said-part'), said.length > 0);
}

/* To those who listen: only what has changed, and no more than they can bear. */
function tellNews(list, all) {
  const now = new Map(list.map(p => [p.key, p])), news = [];
  if (known) {
    for (const [key, p] of now) if (!known.has(key)) news.push(`${p.name}: ${p.text}`);
    for (const [key, p] of known) if (!now.has(key)) {
      const found = all.find(a => 'backend ' + a.key === key);
      news.push(found ? `${p.name} is ${wordOf(found.b)}` : `${p.name}: no longer`);
    }
  }
  known = now;
  if (news.length) say(byId('news'), news.slice(0, 3).join('. ') + (news.length > 3 ? `. And ${news.length - 3} more.` : '.'));
}

function drawHead(list) {
  const tag = byId('overall'), n = list.length;
  const tone = n === 0 ? 'good' : list.some(p => p.tone === 'bad') ? 'bad' : 'warn';
  say(tag, n === 0 ? 'all well' : plural(n, 'problem'));
  mark(tag, 'data-tone', tone);
  document.title = (n ? `(${n}) ` : '') + `akashd ${location.host}`;
  say(byId('facts'), `version ${status.version}, up ${age(status.time_ms - status.started * 1000)}, generation ${status.generation}, `
    + `${plural(status.workers.filter(w => w.state === 'serving').length, 'worker')} (${plural(status.restarts, 'restart')}), ${plural(status.connections, 'client')}`);
  say(byId('fresh'), `as of ${clock(status.time_ms)}`);
}

let charts = null;

/* Requests of HTTP and connections of TCP; answers 5xx; times of requests. */
function drawCharts() {
  const sum = [0, 0, 0, status.bytes.client_in + status.bytes.client_out], buckets = [];
  for (const l of status.listeners) {
    addUp(sum, [l.mode === 'tcp' ? l.accepted : l.requests, l.codes ? l.codes['5xx'] : 0, l.requests || 0]);
    if (l.duration_buckets) addUp(buckets, l.duration_buckets);
  }
  charts = charts || [
    new Chart('Requests', status.listeners.some(l => l.mode === 'tcp') ? 'and TCP connections, per second' : 'per second', ['now'], rate, 1),
    new Chart('Errors', '% answered with 5xx', ['now'], percent, 1, 100),
    new Chart('Time to answer', 'ms', ['p50', 'p95', 'p99'], millis, 1),
  ];
  const all = track(' all');
  all.add(status.clock_ms, sum, buckets.length ? buckets : null);
  if (all.samples.length > 1) {
    const errors = all.growth(2, 2) ? Math.min(100, 100 * all.growth(1, 2) / all.growth(2, 2)) : 0;
    charts[0].add(status.clock_ms, [all.perSecond(0, 2)]);
    charts[1].add(status.clock_ms, [errors]);
    charts[2].add(status.clock_ms, all.quantiles(status.buckets_us, QUANTILES));
    for (const chart of charts) chart.draw();
  }
}

const COLUMNS = [['Backend'], ['State', 'bare'], ['Why', 'why wide'], ['Since', 'since wide'], ['Weight', 'num'], ['Active', 'num slim'], ['Open', 'num'],
  ['Requests/s', 'num rate'], ['Errors %', 'num'], ['Failures', 'num'], ['p50 ms', 'num slim'], ['p95 ms', 'num slim'], ['p99 ms', 'num slim']];
const groups = new Map();

function group(up) {
  if (!groups.has(up.name)) {
    const table = new Table(`Backends of upstream ${up.name}`, COLUMNS), sum = el('span', { class: 'quiet' });
    const box = el('details', { class: 'group', open: '' }, el('summary', {}, el('h3', {}, up.name), sum), table.box);
    box.addEventListener('toggle', () => table.reach());
    groups.set(up.name, { box, sum, table });
  }
  return groups.get(up.name);
}

/* Counters of all backends, whether they are drawn or not. */
function countBackends(all) {
  const sums = new Map();
  for (const { up, b, key } of all) {
    const n = [b.served + b.failures, b.failures];
    track(key).add(status.clock_ms, n, b.response_buckets);
    if (!sums.has(up.name)) sums.set(up.name, { n: [0, 0], b: [] });
    addUp(sums.get(up.name).n, n);
    addUp(sums.get(up.name).b, b.response_buckets);
  }
  for (const [name, s] of sums) track(` up ${name}`).add(status.clock_ms, s.n, s.b);
}

function drawSpark(cell, rates) {
  if (!cell.firstChild || cell.firstChild.nodeType === Node.TEXT_NODE) {
    const s = svg('svg', { class: 'spark', viewBox: '0 0 60 16', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    s.append(svg('path'));
    cell.replaceChildren(s, el('span'));
  }
  const most = Math.max(1, ...rates), from = 60 - rates.length;
  const d = rates.length > 1 ? 'M' + rates.map((r, i) => `${from + i} ${(15 - 14 * r / most).toFixed(1)}`).join('L') : '';
  mark(cell.firstChild.firstChild, 'd', d);
  say(cell.lastChild, rate(rates.length ? rates.reduce((a, b) => a + b, 0) / rates.length : 0));
}

function drawName(cell, b) {
  if (!cell.firstChild) cell.replaceChildren(b.id, ...(b.id === b.address ? [] : [' ', el('span', {}, b.address)]));
  else if (cell.lastElementChild) say(cell.lastElementChild, b.address);
}

function drawTag(cell, word, tone) {
  if (!cell.firstElementChild) cell.replaceChildren(el('span', { class: 'tag' }));
  say(cell.firstElementChild, word);
  mark(cell.firstElementChild, 'data-tone', tone);
}

function drawBackend(table, b, key) {
  const row = table.row(key), t = tracks.get(key), word = wordOf(b);
  drawName(row.cells[0], b);
  drawTag(row.cells[1], word, toneOf(b));
  drawSpark(row.cells[7], t.rates.slice(-60));
  say(row.cells[7].lastChild, rate(t.perSecond(0)));
  if (row.word !== word && row.word !== undefined && row.word !== 'unknown') row.until = status.clock_ms + 4000;
  row.tr.classList.toggle('changed', row.until > status.clock_ms);
  row.word = word;
}

function backendTexts(b, key) {
  const t = tracks.get(key), weight = b.operator && b.operator.weight;
  return [null, null, whyOf(b), since(sinceOf(b)),
    count(b.weight) + (weight ? `\nfile: ${weight.file}` : ''), count(b.active), count(b.open) + (b.max_connections ? ` of ${count(b.max_connections)}` : ''),
    null, percent(t.share(1, 0)), count(b.failures), ...t.quantiles(status.buckets_us, QUANTILES).map(millis)];
}

function drawGroup(up, rows) {
  const g = group(up), t = tracks.get(` up ${up.name}`), usable = up.backends.filter(b => b.usable).length;
  const p95 = t ? t.quantiles(status.buckets_us, [0.95])[0] : null;
  say(g.sum, `${count(usable)} of ${plural(up.backends.length, 'backend')} usable, ${up.algorithm}`
    + (t ? `, ${rate(t.perSecond(0))}/s, ${percent(t.share(1, 0))} % errors` : '') + (p95 === null ? '' : `, p95 ${millis(p95)} ms`)
    + (up.waiting ? `, ${count(up.waiting)} waiting` : ''));
  g.table.fill(rows.map(({ b, key }) => [key, backendTexts(b, key)]));
  for (const { b, key } of rows) drawBackend(g.table, b, key);
  return g.box;
}

function drawUpstreams(all) {
  const words = byId('filter').value.toLowerCase().split(/\s+/).filter(w => w), only = byId('only').checked;
  let chosen = all.filter(({ b, key }) => (!only || isProblem(b))
    && words.every(w => `${key} ${b.address} ${wordOf(b)} ${b.usable ? 'usable' : 'unusable'}`.toLowerCase().includes(w)));
  const found = chosen.length;
  if (found > ROWS_MOST) {
    const first = new Set([...chosen.filter(c => isProblem(c.b)), ...chosen.filter(c => !isProblem(c.b))].slice(0, ROWS_MOST));
    chosen = chosen.filter(c => first.has(c));
  }
  const by = new Map();
  for (const c of chosen) by.has(c.up.name) ? by.get(c.up.name).push(c) : by.set(c.up.name, [c]);
  const boxes = status.upstreams.filter(up => by.has(up.name)).map(up => drawGroup(up, by.get(up.name)));
  for (const name of groups.keys()) if (!by.has(name)) { groups.get(name).box.remove(); groups.delete(name); }
  const place = byId('groups');
  if (!boxes.length) {
    const text = !all.length ? 'There are no upstreams.' : only && !words.length ? 'No problems: every backend can be chosen.' : 'Nothing matches.';
    if (place.textContent !== text) place.replaceChildren(el('p', { class: 'group empty' }, text));
  } else {
    for (const p of place.querySelectorAll('p')) p.remove();
    boxes.forEach((box, i) => { if (place.children[i] !== box) place.insertBefore(box, place.children[i] || null); });
  }
  const usable = all.filter(a => a.b.usable).length;
  say(byId('shown'), `${count(usable)} of ${plural(all.length, 'backend')} usable` + (chosen.length < found ? `; ${count(chosen.length)} of ${count(found)} shown, problems first: filter to see others`
    : found < all.length ? `; ${count(found)} shown` : ''));
}

const tables = {};

function drawTable(id, label, columns, list, empty) {
  const place = byId(id);
  if (!list.length) {
    if (place.textContent !== empty) place.replaceChildren(el('p', { class: 'empty' }, empty));
    return;
  }
  tables[id] = tables[id] || new Table(label, columns);
  if (place.firstChild !== tables[id].box) place.replaceChildren(tables[id].box);
  tables[id].fill(list);
}

function drawListeners() {
  drawTable('listeners', 'Listeners', [['Listener'], ['Mode', 'bare'], ['Addresses', 'wide'], ['Clients', 'num'], ['New/s', 'num'], ['Requests/s', 'num'], ['5xx %', 'num'], ['p95 ms', 'num']],
    status.listeners.map(l => {
      const t = track(` listener ${l.name}`), isHttp = l.mode === 'http';
      t.add(status.clock_ms, [l.accepted, l.requests || 0, l.codes ? l.codes['5xx'] : 0], l.duration_buckets);
      return [l.name, [l.name, l.mode + (l.tls ? ', tls' : ''), l.addresses.join(', '), count(l.connections) + (l.max_connections ? ` of ${count(l.max_connections)}` : ''),
        rate(t.perSecond(0)), isHttp ? rate(t.perSecond(1)) : '–', isHttp ? percent(t.share(2, 1)) : '–', millis(t.quantiles(status.buckets_us, [0.95])[0])]];
    }), 'There are no listeners.');
}

function drawWorkers() {
  const life = ms => ms > STUCK_MS ? `stuck: ${age(ms)} ago` : `${age(ms)} ago`;
  const list = status.workers.map(w => [`worker ${w.index} ${w.pid}`, [`worker ${w.index}`, w.state + (w.accepting || w.state !== 'serving' ? '' : ', not accepting'), String(w.pid), count(w.connections), count(w.confs), life(w.heartbeat_age_ms)]]);
  list.push(['monitor', ['monitor', '', String(status.monitor.pid), '', '', life(status.monitor.heartbeat_age_ms)]]);
  drawTable('workers', 'Processes', [['Process'], ['State', 'bare'], ['Pid', 'num'], ['Clients', 'num'], ['Configurations', 'num'], ['Sign of life', 'num']], list, '');
}

function drawReloads() {
  drawTable('reloads', 'Reloads, the newest first', [['When'], ['Verdict', 'bare'], ['By', ''], ['Generation', 'num'], ['Took', 'num'], ['Error', 'error wide']],
    status.reload.history.map(r => [`${r.number}`, [clock(r.time_ms), null, r.cause, count(r.generation), r.cause === 'start' || r.cause === 'upgrade' ? '' : `${count(r.took_ms)} ms`, r.error || '']]),
    'None so far.');
  for (const r of status.reload.history) drawTag(tables.reloads.row(`${r.number}`).cells[1], r.successful ? 'in force' : 'refused', r.successful ? 'good' : 'bad');
}

function drawReasons() {
  const list = Object.entries(status.failures).map(([reason, n]) => {
    const t = track(` reason ${reason}`);
    t.add(status.clock_ms, [n]);
    return [reason, n, t.perSecond(0)];
  });
  for (const l of status.rate_limits) {
    const t = track(` limit ${l.name}`);
    t.add(status.clock_ms, [l.limited]);
    if (l.limited) list.push([`rate limit ${l.name}`, l.limited, t.perSecond(0)]);
  }
  drawTable('reasons', 'Refusals and failures by reason', [['Reason'], ['Per second', 'num'], ['In all', 'num']],
    list.sort((a, b) => b[1] - a[1]).map(([reason, n, r]) => [reason, [reason, rate(r), count(n)]]), 'None so far.');
}

function draw() {
  const all = backends(), list = problems(all);
  countBackends(all);
  drawHead(list);
  drawAttention(list, all);
  tellNews(list, all);
  drawCharts();
  drawUpstreams(all);
  drawListeners();
  drawWorkers();
  drawReloads();
  drawReasons();
  forgetGone();
}

/* ---- asking ---- */

let timer = 0, failures = 0, answered = 0, isPaused = false, isAsking = false;

function plan(ms) {
  clearTimeout(timer);
  if (!isPaused) timer = setTimeout(ask, document.hidden ? Math.max(ms, HIDDEN_MS) : ms);
}

function lost(why) {
  failures += 1;
  const wait = Math.min(RETRY_MOST_MS, POLL_MS * 2 ** (failures - 1));
  if (failures > 1 || !status) {
    say(byId('lost'), `No answer from akashd${answered ? ` since ${clock(answered)}` : ''} (${why}). What is shown is old. Asking again.`);
    show(byId('lost'), true);
    say(byId('overall'), 'no connection');
    mark(byId('overall'), 'data-tone', 'bad');
    document.title = `(no connection) akashd ${location.host}`;
  }
  plan(wait);
}

async function ask() {
  if (isAsking) return;
  isAsking = true;
  const begun = performance.now();
  try {
    const answer = await fetch('status.json', { cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    status = await answer.json();
  } catch (error) {
    isAsking = false;
    lost(error.name === 'TimeoutError' ? 'too slow' : error.message.startsWith('status ') ? error.message : 'unreachable');
    return;
  }
  isAsking = false;
  failures = 0;
  answered = Date.now();
  show(byId('lost'), false);
  draw();
  plan(Math.max(POLL_MS, 5 * (performance.now() - begun)));
}

byId('host').textContent = location.host;
byId('pause').addEventListener('click', () => {
  isPaused = !isPaused;
  mark(byId('pause'), 'aria-pressed', String(isPaused));
  clearTimeout(timer);
  if (isPaused) say(byId('fresh'), `paused at ${clock(answered)}`); else ask();
});
const redraw = () => { if (status) drawUpstreams(backends()); };
byId('filter').addEventListener('input', redraw);
byId('only').addEventListener('change', redraw);
document.addEventListener('keydown', e => {
  const isTyping = e.target instanceof HTMLInputElement && e.target.type === 'search';
  if (e.key === '/' && !isTyping && !e.ctrlKey && !e.metaKey && !e.altKey) {
    e.preventDefault();
    byId('filter').focus();
  } else if (e.key === 'Escape' && isTyping) {
    e.target.value = '';
    redraw();
  }
});
document.addEventListener('visibilitychange', () => { if (!document.hidden && !isPaused) plan(0); });
window.addEventListener('resize', () => { if (charts) for (const chart of charts) chart.draw(); });
ask();
