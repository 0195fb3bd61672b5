/* parts.js - what the status page is made of: charts and tables. */

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
