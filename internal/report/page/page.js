'use strict';
// The tables of the page. What comes from the recording is only ever text: textContent, never markup.

// sortable makes the titles of a table's columns buttons that sort it.
function sortable(table, sort) {
	const titles = [...table.tHead.rows[0].cells];
	titles.forEach((title, n) => {
		const button = element('button', {type: 'button', className: 'sort', textContent: title.textContent});
		button.onclick = () => {
			const numbers = title.classList.contains('n'), now = title.getAttribute('aria-sort');
			const order = now === 'descending' ? 'ascending' : now === 'ascending' ? 'descending' : numbers ? 'descending' : 'ascending';
			titles.forEach(t => t.removeAttribute('aria-sort'));
			title.setAttribute('aria-sort', order);
			sort(n, order === 'descending' ? -1 : 1);
		};
		title.replaceChildren(button);
	});
}

// reorder puts the rows of a table into an order. The focus stays where it is.
function reorder(body, rows) {
	if (rows.every((row, i) => row === body.rows[i])) return;
	const focused = body.contains(document.activeElement) && document.activeElement;
	body.append(...rows);
	if (focused) focused.focus({preventScroll: true});
}

// sortTables makes the tables sortable, and sorts those again that the user has sorted.
function sortTables() {
	for (const table of document.querySelectorAll('table.sortable')) {
		if (!table.sortAgain) makeSortable(table);
		table.sortAgain();
	}
}

function makeSortable(table) {
	const body = table.tBodies[0];
	let sorted = () => {};
	const value = (row, n) => {
		const cell = row.cells[n];
		return 'v' in cell.dataset ? Number(cell.dataset.v) : cell.textContent;
	};
	sortable(table, (n, direction) => {
		sorted = () => {
			const rows = [...body.rows].sort((a, b) => {
				const last = a.classList.contains('other') - b.classList.contains('other');
				const x = value(a, n), y = value(b, n);
				return last || direction * (typeof x === 'number' ? x - y : x.localeCompare(y));
			});
			reorder(body, rows);
		};
		sorted();
	});
	table.sortAgain = () => {
		sorted();
		if (!table.classList.contains('bars')) return;
		const cells = [...table.querySelectorAll('td.bar')], most = Math.max(...cells.map(c => Number(c.dataset.v)));
		for (const c of cells) if (most) c.style.setProperty('--w', 100 * c.dataset.v / most + '%');
	};
}

// makeList makes the list of connections. It returns a function that shows those of new data, unless the user looks at one.
function makeList() {
	const list = document.getElementById('list'), body = list.tBodies[0], more = document.getElementById('more');
	const text = document.getElementById('find-text'), end = document.getElementById('find-end'), found = document.getElementById('find-count');
	const page = 50;
	const failures = new Set(data.Failures);

	const duration = ns => {
		for (const [unit, length] of [['ns', 1], ['µs', 1e3], ['ms', 1e6], ['s', 1e9]]) {
			if (ns < 1000 * length || unit === 's') return Number((ns / length).toPrecision(3)).toLocaleString('en-US') + ' ' + unit;
		}
	};
	const bytes = n => {
		for (const unit of ['B', 'KiB', 'MiB', 'GiB', 'TiB']) {
			if (n < 1024 || unit === 'TiB') return Number(n.toPrecision(3)) + ' ' + unit;
			n /= 1024;
		}
	};
	// clock is the time of the day, to the microsecond.
	const clock = ns => {
		const total = data.BaseNs + ns, second = Math.floor(total / 1e9);
		return iso(data.Base + second).slice(11, 19) + '.' + String(Math.floor((total - second * 1e9) / 1e3)).padStart(6, '0');
	};
	const endOf = c => c.Open ? 'open' : c.End || 'not known';

	const columns = [
		{title: 'Opened', value: c => c.From, show: c => clock(c.From).slice(0, 12)},
		{title: 'Service', value: c => c.Service || '', wide: true},
		{title: 'Role', value: c => c.Role || ''},
		{title: 'Local', value: c => c.Local || '', wide: true},
		{title: 'Peer', value: c => c.Peer || '', wide: true},
		{title: 'Ended by', value: endOf, show: c => c.Open ? 'open: ' + c.State : endOf(c), bad: c => failures.has(c.End) || c.State === 'CLOSE_WAIT'},
		{title: 'Lasted', number: true, value: c => c.To - c.From, show: c => c.Partial ? '' : duration(c.To - c.From)},
		{title: 'Retransmits', number: true, value: c => c.Retransmits || 0, show: c => c.Retransmits || ''},
		{title: 'Sent', number: true, value: c => c.Sent || 0, show: c => bytes(c.Sent || 0)},
		{title: 'Received', number: true, value: c => c.Received || 0, show: c => bytes(c.Received || 0)},
	];
	let matching = [], sorted = matching, shown = 0, sort = () => {};

	// life is what is known of one connection: its transitions, and what is in no column.
	function life(c) {
		const box = element('div', {});
		const terms = [['conn', c.Conn], ['process', c.PID ? c.Comm + ' (' + c.PID + ')' : ''], ['cgroup', c.Cgroup], ['error', c.Error],
			['reset_reason', c.Reset], ['round-trip time', c.RTT ? duration(c.RTT) : ''], ['partial', c.Partial ? 'it is older than the tracer' : '']];
		const steps = c.Steps || [];
		if (steps.length > 1) {
			const track = element('div', {className: 'track'});
			track.setAttribute('aria-hidden', 'true');
			const stop = c.Open ? c.To : steps[steps.length - 1][0], whole = Math.max(1, stop - steps[0][0]);
			steps.forEach((s, i) => {
				const until = i + 1 < steps.length ? steps[i + 1][0] : stop;
				if (until <= s[0]) return;
				const part = element('i', {title: s[2] + ' ' + duration(until - s[0])});
				part.style.width = 100 * (until - s[0]) / whole + '%';
				part.style.background = color(s[2]);
				track.append(part);
			});
			box.append(track);
		}
		if (steps.length) {
			const rows = steps.map((s, i) => {
				const key = element('span', {className: 'key'});
				key.style.background = color(s[2]);
				const until = i + 1 < steps.length ? steps[i + 1][0] : c.Open ? c.To : null;
				return element('tr', {}, element('td', {className: 'mono', textContent: clock(s[0])}),
					element('td', {className: 'n', textContent: '+' + duration(s[0] - steps[0][0])}),
					element('td', {}, s[1] + ' → ', key, s[2]),
					element('td', {className: 'n', textContent: until == null ? '' : duration(until - s[0])}));
			});
			box.append(element('table', {className: 'narrow steps'}, element('thead', {}, element('tr', {},
				...['time (UTC)', 'since the first', 'transition', 'stayed'].map(t => element('th', {scope: 'col', textContent: t})))), element('tbody', {}, ...rows)));
			if (c.StepsMore) box.append(element('p', {className: 'note', textContent: c.StepsMore + ' later transitions are not kept.'}));
		} else {
			box.append(element('p', {className: 'note', textContent: 'The recording has no transitions of it.'}));
		}
		box.append(element('dl', {}, ...terms.filter(t => t[1]).flatMap(t => [element('dt', {textContent: t[0]}), element('dd', {textContent: t[1]})])));
		return box;
	}

	function row(c) {
		const cells = columns.map((column, n) => {
			const content = String((column.show || column.value)(c));
			const cell = element('td', {className: (column.number ? 'n' : column.wide ? 'wide' : '') + (column.bad && column.bad(c) ? ' bad' : '')});
			if (n) {
				cell.textContent = content;
			} else {
				cell.append(element('button', {type: 'button', className: 'link mono', textContent: content}));
			}
			return cell;
		});
		const line = element('tr', {className: 'row'}, ...cells), button = cells[0].firstChild;
		button.setAttribute('aria-expanded', 'false');
		line.onclick = () => {
			if (String(getSelection())) return; // the user marks text
			const open = button.getAttribute('aria-expanded') === 'true';
			button.setAttribute('aria-expanded', String(!open));
			if (open) {
				line.nextSibling.remove();
			} else {
				line.after(element('tr', {className: 'life'}, element('td', {colSpan: columns.length}, life(c))));
			}
		};
		return line;
	}

	function showMore() {
		body.append(...sorted.slice(shown, shown + page).map(row));
		shown = Math.min(shown + page, sorted.length);
		more.hidden = shown >= sorted.length;
		more.textContent = 'Show ' + Math.min(page, sorted.length - shown) + ' more of ' + whole(sorted.length - shown);
	}

	function show(atLeast = 0) {
		shown = 0;
		body.replaceChildren();
		found.textContent = whole(sorted.length) + (sorted.length === 1 ? ' connection' : ' connections');
		do showMore(); while (shown < Math.min(atLeast, sorted.length));
	}

	function match() {
		const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
		matching = data.Connections.filter(c => (!end.value || endOf(c) === end.value) && words.every(w =>
			[c.Conn, c.Service, c.Comm, c.Local, c.Peer, c.Role, c.Error, c.State].some(v => v && v.toLowerCase().includes(w))));
		sorted = matching;
	}

	function find() {
		match();
		sort = () => {};
		list.querySelector('[aria-sort]')?.removeAttribute('aria-sort');
		show();
	}

	list.tHead.append(element('tr', {}, ...columns.map(c => element('th', {scope: 'col', textContent: c.title, className: c.number ? 'n' : ''}))));
	sortable(list, (n, direction) => {
		const value = columns[n].value;
		sort = () => {
			sorted = [...matching].sort((a, b) => {
				const x = value(a), y = value(b);
				return direction * (typeof x === 'number' ? x - y : x.localeCompare(y));
			});
		};
		sort();
		show();
	});
	function listEnds() {
		const listed = new Set([...end.options].map(o => o.value));
		for (const name of [...data.Ends, 'open']) {
			if (!listed.has(name) && data.Connections.some(c => endOf(c) === name)) end.append(element('option', {value: name, textContent: name}));
		}
	}
	text.oninput = end.onchange = find;
	document.getElementById('find').onsubmit = event => event.preventDefault();
	more.onclick = showMore;
	document.addEventListener('click', event => {
		const button = event.target.closest('button[data-find]');
		if (!button) return;
		text.value = button.dataset.find;
		end.value = '';
		find();
		document.getElementById('connections').scrollIntoView();
		text.focus({preventScroll: true});
	});
	listEnds();
	find();
	return {
		update() {
			if (body.querySelector('tr.life') || body.contains(document.activeElement)) return;
			listEnds();
			match();
			sort();
			show(shown);
		},
	};
}
