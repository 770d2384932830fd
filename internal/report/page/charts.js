'use strict';
// The charts of the page. What comes from the recording is only ever text: textContent, never markup.

// What the page shows. A live page replaces them.
let data, charts, list;

const readData = page => JSON.parse(page.getElementById('data').textContent);

// hiddenOf has, for each chart, the labels of what the user has hidden.
const hiddenOf = {};

// element makes an element with properties, such as textContent, and children.
function element(name, properties, ...children) {
	const e = Object.assign(document.createElement(name), properties);
	e.append(...children);
	return e;
}

const two = n => n.toLocaleString('en-US', {maximumFractionDigits: n < 10 ? 2 : n < 100 ? 1 : 0});
const whole = n => n.toLocaleString('en-US');
// iso writes seconds since 1970 as 2026-11-30T05:16:02.123Z.
const iso = t => new Date(Math.round(t * 1000)).toISOString();
const color = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name.replace(' ', '_')).trim() ||
	getComputedStyle(document.documentElement).getPropertyValue('--unknown').trim();

// makeCharts makes the charts of data. They show the part of the time axis that those before them have been zoomed to.
function makeCharts(before) {
	const s = data.Series, width = s.Width;
	const xs = s.Opened.map((_, i) => s.Start + i * width);
	const all = {min: xs[0], max: xs[xs.length - 1] + width};
	let shown = {...all}, highlight = null, plots = [], ready = false;

	const clock = t => {
		const text = iso(t);
		return all.max - all.min > 86400 ? text.slice(5, 16).replace('T', ' ') : text.slice(11, width < 1 ? 23 : 19);
	};
	const tick = (u, splits, axis, space, step) => splits.map(t => {
		const text = iso(t);
		if (step >= 86400 || all.max - all.min > 86400 && t % 86400 === 0) return text.slice(5, 10);
		return text.slice(11, step < 1 ? 23 : step < 60 ? 19 : 16);
	});

	const perSecond = counts => counts.map(n => n / width);
	const sum = lists => xs.map((_, i) => lists.reduce((n, list) => n + list[i], 0));
	const some = list => list.some(n => n > 0);
	const ended = name => s.Ended[data.Ends.indexOf(name)];
	const failures = data.Failures.filter(name => some(ended(name)));
	const inOrder = data.Ends.filter(name => name !== 'not known' && !data.Failures.includes(name));

	// ports puts the occupancies of an alert into bins.
	function ports(alert) {
		const list = xs.map(() => null);
		for (const [at, percent] of alert.Points) {
			const i = Math.min(xs.length - 1, Math.max(0, Math.round((at - s.Start) / width)));
			list[i] = Math.max(list[i], percent);
		}
		return list;
	}

	const specs = {
		ports: () => ({
			lines: data.Alerts.filter(a => a.Points && a.Points.length).sort((a, b) => b.Critical - a.Critical).slice(0, 8)
				.map((a, i) => ({label: a.Label, color: ['no_port', 'local', 'refused', 'peer', 'timeout', 'reset_sent', 'LAST_ACK', 'abort'][i], values: ports(a), points: true})),
			format: v => two(v) + ' %', range: [0, 105], height: 150,
		}),
		rate: () => ({
			areas: [
				{label: 'ended in order', color: 'local', values: perSecond(sum(inOrder.map(ended)))},
				{label: 'ended, not known how', color: 'unknown', values: perSecond(ended('not known'))},
				{label: 'failed', color: 'reset_received', values: perSecond(sum(failures.map(ended)))},
			].filter(a => some(a.values)),
			lines: [{label: 'opened', color: 'opened', values: perSecond(s.Opened)}],
			format: v => two(v), height: 200,
		}),
		failed: () => ({areas: failures.map(name => ({label: name, color: name, values: perSecond(ended(name))})), format: v => two(v), height: 160}),
		states: () => ({
			areas: data.States.map((name, i) => ({label: name, color: name, values: s.States[i]})).filter(a => some(a.values)),
			format: whole, height: 220,
		}),
	};

	// stack returns the values of the areas, each on top of those before it. Hidden ones add nothing.
	function stack(areas, isHidden) {
		const total = xs.map(() => 0);
		return areas.map((a, n) => {
			if (!isHidden(n)) a.values.forEach((v, i) => { total[i] += v; });
			return total.slice();
		});
	}

	// overlay shades what is not to be trusted, and the alert that is chosen.
	function overlay(u) {
		const {left, top, width: w, height: h} = u.bbox, ctx = u.ctx;
		const shade = (from, to, style) => {
			const a = Math.max(left, u.valToPos(from, 'x', true)), b = Math.min(left + w, u.valToPos(to, 'x', true));
			if (b < left || a > left + w) return;
			ctx.fillStyle = style;
			ctx.fillRect(a, top, Math.max(b - a, 2 * devicePixelRatio), h);
		};
		ctx.save();
		xs.forEach((x, i) => { if (s.Lost[i] + s.Gaps[i] > 0) shade(x, x + width, color('loss')); });
		if (highlight) shade(highlight.From, highlight.To, highlight.Critical ? 'rgba(217,48,37,.13)' : 'rgba(200,140,0,.13)');
		ctx.restore();
	}

	function make(box) {
		const figure = box.closest('figure'), spec = specs[box.dataset.chart]();
		const areas = spec.areas || [], lines = spec.lines || [];
		const stepped = uPlot.paths.stepped({align: 1});
		// The whole is drawn first, and the lower parts over it.
		const order = areas.map((_, n) => areas.length - 1 - n);
		const raw = [null, ...order.map(n => areas[n].values), ...lines.map(l => l.values)];
		const value = (u, v, at, i) => i == null ? '' : raw[at][i] == null ? '–' : spec.format(raw[at][i]);
		const hidden = hiddenOf[box.dataset.chart] ||= new Set();
		const stacked = () => { const st = stack(areas, n => hidden.has(areas[n].label)); return [xs, ...order.map(n => st[n]), ...lines.map(l => l.values)]; };
		const grid = {stroke: color('line'), width: 1};
		const u = new uPlot({
			width: Math.max(200, box.clientWidth), height: spec.height,
			padding: [8, 8, 0, 0],
			tzDate: t => uPlot.tzDate(new Date(t * 1000), 'Etc/UTC'),
			cursor: {sync: {key: 'tcpshift', setSeries: false}, drag: {x: true, y: false}, y: false},
			scales: {x: {time: true, range: (u, min, max) => [min, max]}, y: {range: spec.range ? () => spec.range : (u, min, max) => [0, Math.max(1e-9, max) * 1.08]}},
			axes: [
				{stroke: color('soft'), grid, ticks: grid, size: 32, values: tick, space: 80, font: '12px system-ui, sans-serif'},
				{stroke: color('soft'), grid, ticks: grid, size: 60, values: (u, vs) => vs.map(v => spec.range ? v + ' %' : two(v)), font: '12px system-ui, sans-serif'},
			],
			series: [
				{label: 'UTC', value: (u, t, at, i) => i == null ? '' : clock(xs[i])},
				...order.map(n => ({label: areas[n].label, show: !hidden.has(areas[n].label), stroke: color(areas[n].color), fill: color(areas[n].color), width: 0, paths: stepped, points: {show: false}, value})),
				...lines.map(l => ({label: l.label, show: !hidden.has(l.label), stroke: color(l.color), width: 1.75, paths: l.points ? undefined : stepped, spanGaps: true, points: {show: !!l.points, size: 6}, value})),
			],
			hooks: {
				draw: [overlay],
				setScale: [(u, key) => { // also those that apply sets
					const {min, max} = u.scales.x;
					if (key === 'x' && ready && (min !== shown.min || max !== shown.max)) zoom(min, max);
				}],
				setSeries: [(u, at, opts) => {
					if (opts.show == null || at < 1) return;
					const {label} = at > areas.length ? lines[at - areas.length - 1] : areas[order[at - 1]];
					opts.show ? hidden.delete(label) : hidden.add(label);
					if (at > areas.length) return;
					u.setData(stacked(), false);
					u.redraw(true);
				}],
			},
		}, stacked(), box);
		const plot = {
			u, box, apply(min, max) { u.setScale('x', {min, max}); },
			read(i) { return [clock(xs[i]), ...[...areas, ...lines].filter(l => l.values[i] != null).map(l => l.label + ' ' + spec.format(l.values[i]))].join(', '); },
		};
		box.tabIndex = 0;
		box.setAttribute('role', 'application');
		box.setAttribute('aria-roledescription', 'chart');
		box.setAttribute('aria-label', figure.querySelector('figcaption').textContent + '; arrow keys read it, Numbers below has it as a table');
		box.onkeydown = event => keys(event, plot);
		u.over.ondblclick = () => zoom(all.min, all.max);
		numbers([...areas, ...lines], spec.format, figure);
		return plot;
	}

	// numbers is the table behind a chart. It is made when it is opened.
	function numbers(columns, format, figure) {
		const made = figure.querySelector('.numbers');
		const details = made || element('details', {className: 'numbers'}, element('summary', {textContent: 'Numbers'}));
		if (!made) figure.append(details);
		details.fill = () => {
			details.querySelector('.scroll')?.remove();
			if (!details.open) return;
			const rows = xs.map((x, i) => i).filter(i => xs[i] + width > shown.min && xs[i] < shown.max);
			const table = element('table', {}, element('caption', {textContent: figure.querySelector('figcaption').textContent}),
				element('thead', {}, element('tr', {}, ...['UTC', ...columns.map(c => c.label), 'missing records'].map((name, n) =>
					Object.assign(element('th', {textContent: name, scope: 'col', className: n ? 'n' : ''}))))),
				element('tbody', {}, ...rows.map(i => element('tr', {}, element('th', {textContent: clock(xs[i]), scope: 'row'}),
					...columns.map(c => element('td', {className: 'n', textContent: c.values[i] == null ? '' : format(c.values[i])})),
					element('td', {className: 'n', textContent: s.Lost[i] + s.Gaps[i] || ''})))));
			const box = element('div', {className: 'scroll', tabIndex: 0}, table);
			box.setAttribute('role', 'region');
			box.setAttribute('aria-label', 'Numbers');
			details.append(box);
		};
		details.ontoggle = details.fill;
	}

	// zoom shows a part of the time axis in all charts.
	function zoom(min, max) {
		if (!(max - min >= width / 2)) return;
		shown = {min: Math.max(all.min, min), max: Math.min(all.max, max)};
		for (const p of plots) p.apply(shown.min, shown.max);
		for (const open of document.querySelectorAll('.numbers[open]')) open.fill();
		lanes();
	}

	let at = 0; // the bin that the keyboard reads
	function keys(event, plot) {
		const span = shown.max - shown.min, middle = xs[at] + width / 2, step = event.shiftKey ? 10 : 1;
		const moves = {ArrowLeft: at - step, ArrowRight: at + step, Home: 0, End: xs.length - 1};
		if (event.ctrlKey || event.metaKey || event.altKey) return;
		if (event.key in moves) {
			at = Math.max(0, Math.min(xs.length - 1, moves[event.key]));
			if (xs[at] < shown.min || xs[at] >= shown.max) zoom(Math.max(all.min, xs[at] - span / 2), Math.min(all.max, xs[at] + span / 2));
			plot.u.setCursor({left: plot.u.valToPos(xs[at], 'x'), top: 10});
			document.getElementById('reading').textContent = plot.read(at);
		} else if (event.key === '+' || event.key === '=') {
			zoom(Math.max(all.min, middle - span / 4), Math.min(all.max, middle + span / 4));
		} else if (event.key === '-') {
			zoom(Math.max(all.min, middle - span), Math.min(all.max, middle + span));
		} else if (event.key === '0' || event.key === 'Escape') {
			zoom(all.min, all.max);
		} else {
			return;
		}
		event.preventDefault();
	}

	// lanes shows the alerts as bars over the same time axis.
	function lanes() {
		const box = document.getElementById('lanes');
		if (!box) return;
		const ends = [], rows = [], span = shown.max - shown.min;
		data.Alerts.forEach((a, i) => {
			if (a.To < shown.min || a.From > shown.max) return;
			let n = ends.findIndex(end => end <= a.From);
			if (n < 0) n = ends.length < 12 ? ends.length : 11;
			ends[n] = a.To + span * 0.2;
			rows[n] ||= element('div', {className: 'lane'});
			const from = (Math.max(a.From, shown.min) - shown.min) / span, to = (Math.min(a.To, shown.max) - shown.min) / span;
			const inside = (to - from) * box.clientWidth > a.Label.length * 6.6 + 14;
			const b = element('button', {type: 'button', title: a.Label + ', ' + clock(a.From) + ' to ' + clock(a.To)}, element('span', {textContent: a.Label}));
			b.className = (a.Critical ? 'critical' : 'warning') + (inside ? '' : ' outside' + (from > 1 - to ? ' left' : ''));
			b.style.left = 100 * from + '%';
			b.style.width = 100 * (to - from) + '%';
			b.onclick = () => choose(i);
			rows[n].append(b);
		});
		box.replaceChildren(...rows.filter(Boolean));
	}

	function choose(i) {
		const details = document.getElementById('alert-' + i);
		details.open = true;
		details.scrollIntoView({block: 'nearest'});
		details.querySelector('summary').focus();
	}

	function build() {
		for (const p of plots) p.u.destroy();
		ready = false;
		plots = [...document.querySelectorAll('.plot')].map(make);
		ready = true;
		zoom(shown.min, shown.max);
	}

	shown = before?.isZoomed() ? before.shown() : {...all};
	build();
	const colors = matchMedia('(prefers-color-scheme: dark)');
	colors.addEventListener('change', build);
	const size = new ResizeObserver(() => {
		for (const p of plots) if (p.box.clientWidth && p.box.clientWidth !== p.u.width) p.u.setSize({width: p.box.clientWidth, height: p.u.height});
		lanes();
	});
	size.observe(document.querySelector('main'));
	data.Alerts.forEach((a, i) => {
		document.getElementById('alert-' + i).ontoggle = event => {
			highlight = event.target.open ? a : highlight === a ? null : highlight;
			for (const p of plots) p.u.redraw(false);
		};
	});
	return {
		zoom, shown: () => shown, isZoomed: () => shown.min !== all.min || shown.max !== all.max,
		close() {
			colors.removeEventListener('change', build);
			size.disconnect();
			for (const p of plots) p.u.destroy();
		},
	};
}
