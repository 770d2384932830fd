'use strict';
// The page of a trace that goes on. It asks the tracer for its content each second, and takes over what has changed: what the
// user has opened, sorted, zoomed or focused stays. XMLHttpRequest makes a document of the answer, in which no script runs.

document.documentElement.classList.add('scripted');

// token is what the tracer wants to see. It leaves the address, and so the history; this tab keeps it for a reload.
const token = (() => {
	const [, given] = location.hash.match(/^#token=(.+)$/) || [];
	if (given) {
		sessionStorage.setItem('token', given);
		history.replaceState(null, '', location.pathname);
	}
	return given || sessionStorage.getItem('token') || '';
})();

const state = document.getElementById('state'), pause = document.getElementById('pause'), page = document.getElementById('page');

// say says what is new to the user: a screen reader reads it.
function say(what) {
	if (state.textContent !== what) state.textContent = what;
}

// made are the elements that the scripts fill or add.
const filled = '.plot, #lanes, #list, #find-end, #find-count, #more, #reading, table.sortable thead, .numbers';

// take makes the children of an element those of another one.
function take(old, now) {
	const ids = new Set([...now.children].map(c => c.id).filter(Boolean));
	let at = old.firstChild;
	const next = () => { const left = at; at = at.nextSibling; return left; };
	for (const child of [...now.childNodes]) {
		while (at && (at.className === 'numbers' || at.id && !ids.has(at.id))) {
			const left = next();
			if (left.id) left.remove();
		}
		if (at && at.nodeName === child.nodeName && at.id === child.id) {
			takeOne(next(), child);
		} else {
			old.insertBefore(document.adoptNode(child), at);
		}
	}
	while (at) {
		const left = next();
		if (left.className !== 'numbers') left.remove();
	}
}

// nameOf is what a row is about.
const nameOf = row => row.cells[0].textContent;

// keyed gives each row a key: what it is about, and how many rows before it are about the same, such as one destination of
// several network namespaces.
function keyed(rows) {
	const seen = new Map();
	return [...rows].map(row => {
		const name = nameOf(row), before = seen.get(name) || 0;
		seen.set(name, before + 1);
		return [before + ' ' + name, row];
	});
}

// takeRows makes the rows of a table those of another one. A row stays that of its key.
function takeRows(old, now) {
	const rows = new Map(keyed(old.rows));
	const wanted = keyed(now.rows).map(([key, row]) => {
		const known = rows.get(key);
		rows.delete(key);
		if (!known) return document.adoptNode(row);
		takeOne(known, row);
		return known;
	});
	for (const left of rows.values()) left.remove();
	if (old.closest('table').tHead?.querySelector('[aria-sort]')) {
		old.append(...wanted.filter(row => row.parentNode !== old)); // sortTables sorts them
	} else {
		reorder(old, wanted);
	}
}

// takeOne makes an element or a text like another one.
function takeOne(old, now) {
	if (old.nodeType !== Node.ELEMENT_NODE) {
		if (old.data !== now.data) old.data = now.data;
		return;
	}
	for (const {name, value} of now.attributes) {
		if (old.getAttribute(name) !== value) old.setAttribute(name, value);
	}
	if (!now.hasAttribute('class') && !old.matches('details, .sort')) old.removeAttribute('class');
	if (old.matches(filled)) return;
	if (old.matches('.sortable tbody')) {
		takeRows(old, now);
	} else {
		take(old, now);
	}
}

// ask asks for the content. It never fails: without an answer the status is 0.
const ask = () => new Promise(resolve => {
	const request = new XMLHttpRequest();
	request.open('GET', document.body.dataset.content);
	request.setRequestHeader(document.body.dataset.tokenHeader, token);
	request.responseType = 'document';
	request.timeout = 10000;
	request.onloadend = () => resolve({status: request.status, content: request.status === 200 ? request.response : null});
	request.send();
});

function show(content) {
	data = readData(content);
	document.title = content.title;
	for (const script of content.querySelectorAll('script')) script.remove();
	take(page, content.body);
	sortTables();
	// Charts that the user reads stay as they are.
	if (!charts || !document.querySelector('.plot:hover, .plot:focus, .numbers[open]')) {
		charts?.close();
		charts = makeCharts(charts);
	}
	if (list) {
		list.update();
	} else {
		list = makeList();
	}
}

async function update() {
	const {status, content} = await ask();
	if (content) {
		show(content);
		say('Live: new numbers each second.');
	} else if (status === 401) {
		say('The token is missing or wrong: open the address that tcpshift has printed at its start.');
	} else if (status === 503) {
		say('There are no records yet.');
	} else {
		say('The tracer does not answer: it has ended, or the way to it is interrupted. The numbers are the last ones.');
	}
}

pause.onclick = () => {
	const paused = pause.getAttribute('aria-pressed') !== 'true';
	pause.setAttribute('aria-pressed', String(paused));
	if (paused) say('Paused.');
};

(async () => {
	for (;;) {
		if (!document.hidden && pause.getAttribute('aria-pressed') !== 'true') await update();
		await new Promise(resolve => setTimeout(resolve, 1000));
	}
})();
