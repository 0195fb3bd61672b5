/* page.js - what the status page shows, and when it asks. */

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
  const log = status.operator && status.operator.log_level;
  if (log) said.unshift(item('warn', 'log', `level ${log.operator}; the file: ${log.file}`));
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
