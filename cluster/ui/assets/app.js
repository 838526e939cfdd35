// What all pages share: requests to the API, the session, the stream of events, elements, and numbers in words.

export const api = '/v1';

// Problem is an answer of the API that is not a success.
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `the node answered ${status}`);
    this.status = status;
    this.hint = document.hint || '';
    this.code = document.code || '';
  }
}

// call sends a request, with a document where there is one, and returns the answer's document.
export async function call(method, path, document) {
  const options = {method, headers: {Accept: 'application/json'}};
  if (document !== undefined) {
    options.headers['Content-Type'] = 'application/json';
    options.body = JSON.stringify(document);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem(0, {detail: 'this node does not answer', hint: 'open the dashboard of another node'});
  }
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? null : response.json();
}

export async function problemOf(response) {
  const text = await response.json().catch(() => ({}));
  const p = new Problem(response.status, text);
  if (p.status === 401) showLogin(p);
  return p;
}

// path escapes parts of a path; a slash within one stays only in the names of images.
export const path = (...parts) => parts.map(encodeURIComponent).join('/');
export const imagePath = (user, name) =>
  `${api}/images/${encodeURIComponent(user)}/${name.split('/').map(encodeURIComponent).join('/')}`;

// quote writes a word as a shell takes it.
export const quote = s => /^[\w./@:+-]+$/.test(s) ? s : `'${s.replaceAll("'", "'\\''")}'`;

// el makes an element. Text is never taken for markup.
export function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
    else if (name === 'class') e.className = value;
    else e.setAttribute(name, value === true ? '' : value);
  }
  e.append(...children.flat().filter(c => c !== null && c !== undefined && c !== false));
  return e;
}

// fill gives an element new children, and leaves it alone when they say what the old ones did: a reader
// is not interrupted. The focus stays where it was, by number.
export function fill(e, ...children) {
  const next = el('div', {}, ...children);
  if (next.innerHTML !== e.innerHTML.replace(/ data-column="[^"]*"/g, '')) keepFocus(e, () => e.replaceChildren(...next.childNodes));
}

// keepFocus changes what is in an element. When the focus was in it and would be lost, it goes to what is at
// the same place now, else to the last.
export function keepFocus(e, change) {
  const all = () => [...e.querySelectorAll('a, button, input, select')];
  const focused = document.activeElement;
  const at = all().indexOf(focused);
  change();
  if (at < 0 || focused.isConnected && focused === document.activeElement) return;
  const now = all();
  (focused.isConnected ? focused : now[at] || now.at(-1) || main).focus();
}

// all returns the items of all pages of a list, up to 10,000, and hands the first page to first.
export async function all(url, field, first = () => {}) {
  const items = [];
  for (let after = ''; items.length < 10000;) {
    const page = await call('GET', `${url}?limit=1000${after ? `&after=${encodeURIComponent(after)}` : ''}`);
    if (!after) first(page);
    items.push(...page[field]);
    if (!(after = page.next)) break;
  }
  return items;
}

// dropArea makes a place for files to be dropped on, or chosen by a button; take gets them. input has the
// attributes of the file input, label its name.
export function dropArea({text, button, label, input, take}) {
  const files = el('input', {type: 'file', class: 'hidden', ...input, onchange: () => { take([...files.files]); files.value = ''; }});
  const area = el('div', {class: 'drop'}, el('p', {}, ...text, el('button', {onclick: () => files.click()}, button), files,
    el('label', {class: 'hidden', for: input.id}, label)));
  for (const name of ['dragenter', 'dragover']) {
    area.addEventListener(name, e => { e.preventDefault(); area.classList.add('over'); });
  }
  area.addEventListener('dragleave', () => area.classList.remove('over'));
  area.addEventListener('drop', e => {
    e.preventDefault();
    area.classList.remove('over');
    take([...e.dataTransfer.files]);
  });
  return area;
}

// table makes a table; rows is its body. On a phone each cell is a line of its own, with its column's name.
export function table(columns, rows) {
  const name = () => {
    for (const r of rows.rows) [...r.cells].forEach((cell, i) => { if (cell.colSpan === 1) cell.dataset.column = columns[i][0]; });
  };
  new MutationObserver(name).observe(rows, {childList: true});
  name();
  return el('div', {class: 'table'}, el('table', {}, el('thead', {}, el('tr', {}, columns.map(([text, kind]) =>
    el('th', {scope: 'col', class: kind === 'n' ? 'n' : ''}, kind === 'acts' ? el('span', {class: 'hidden'}, text) : text)))), rows));
}

export const main = document.getElementById('main');
const state = document.getElementById('state');

// toast says something at the edge of the page, for some seconds.
export function toast(text, bad = false) {
  const t = el('div', {class: bad ? 'toast bad' : 'toast'}, text);
  document.getElementById('toasts').append(t);
  setTimeout(() => t.remove(), bad ? 12000 : 6000);
}

export function complain(err) {
  if (err.status === 401) return;
  toast(inWords(err), true);
  if (!(err instanceof Problem)) console.error(err);
}

export const inWords = err => err.hint ? `${err.message}. ${capital(err.hint)}.` : err.message;

export const problemBox = err => el('div', {class: 'error', role: 'alert'}, err.message, err.hint && el('small', {}, capital(err.hint)));

const capital = s => s.charAt(0).toUpperCase() + s.slice(1);

// ask shows a question and resolves to what was answered: the values of its inputs; null when it was
// cancelled. extra are elements between the text and the buttons. act does what was asked for, with the values;
// while it fails, the question stays and says why.
export function ask({title, text, action, danger, extra = [], command, act = () => {}}) {
  return new Promise(resolve => {
    const said = el('div');
    const go = action && el('button', {value: 'ok', class: danger ? 'main danger' : 'main'}, action);
    const form = el('form', {onsubmit: async event => {
      event.preventDefault();
      if (!go || form.ariaBusy) return;
      form.ariaBusy = 'true';
      try {
        await act(Object.fromEntries(new FormData(form)));
        d.close('ok');
      } catch (err) {
        if (err.status === 401) d.close();
        else said.replaceChildren(problemBox(err));
      } finally {
        form.ariaBusy = null;
      }
    }},
      el('h2', {}, title),
      text && el('p', {}, text), ...extra,
      command && el('p', {class: 'command'}, 'The same by hand: ', el('code', {}, command)),
      said,
      el('div', {class: 'acts'}, el('button', {type: 'button', onclick: () => d.close()}, action ? 'Cancel' : 'Close'), go));
    const d = el('dialog', {'aria-label': title}, form);
    d.addEventListener('close', () => {
      d.remove();
      if (document.activeElement === document.body) main.focus(); // what had the focus is gone
      resolve(d.returnValue === 'ok' ? Object.fromEntries(new FormData(form)) : null);
    });
    document.body.append(d);
    d.showModal();
  });
}

// Numbers in words.
export function size(n) {
  for (const [unit, bytes] of [['TB', 1e12], ['GB', 1e9], ['MB', 1e6], ['kB', 1e3]]) {
    if (n >= bytes * 0.9995) return `${(n / bytes).toPrecision(3).replace(/\.?0+$/, m => m.includes('.') ? '' : m)} ${unit}`;
  }
  return `${n} B`;
}
export const count = n => n.toLocaleString('en');
export const percent = (part, all) => all ? `${(100 * part / all).toFixed(1)} %` : '0 %';
export function seconds(s) {
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 90) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}
export const when = t => new Date(t).toLocaleString([], {dateStyle: 'medium', timeStyle: 'short'});
export const list = ids => ids.length < 2 ? ids.join('') : `${ids.slice(0, -1).join(', ')} and ${ids.at(-1)}`;
export const color = id => `n${(id - 1) % 8}`;

// The session.
export let session = null;

// start begins a page: run is called once it is known who looks at it.
export async function start(run) {
  try {
    session = await call('GET', `${api}/session`);
  } catch (err) {
    if (err.status !== 401) {
      main.hidden = false;
      main.append(problemBox(err));
    }
    return;
  }
  document.getElementById('cluster').textContent = session.cluster;
  const who = session.open ? '' : `${session.user || 'administrator'} · `;
  document.getElementById('who').textContent = `${who}node ${session.node}`;
  const logout = document.getElementById('logout');
  logout.hidden = session.open;
  logout.addEventListener('click', async () => {
    await call('DELETE', `${api}/session`).catch(complain);
    location.reload();
  });
  main.hidden = false;
  await run();
}

export const admin = () => session.role === 'admin';
export const writes = user => admin() || session.role === 'write' && session.user === user;

function showLogin(problem) {
  const box = document.getElementById('login');
  if (!box.hidden) return;
  main.hidden = true;
  state.hidden = true;
  const message = el('div', {'aria-live': 'polite'});
  const id = el('input', {name: 'id', autocomplete: 'username', required: true, spellcheck: 'false', autocapitalize: 'off'});
  const secret = el('input', {name: 'secret', type: 'password', autocomplete: 'current-password', required: true});
  const form = el('form', {onsubmit: async event => {
    event.preventDefault();
    try {
      const response = await fetch(`${api}/session`, {
        method: 'POST', headers: {'Content-Type': 'application/json'},
        body: JSON.stringify({id: id.value.trim(), secret: secret.value.trim()}),
      });
      if (!response.ok) throw await problemOf(response);
      location.reload();
    } catch (err) {
      message.replaceChildren(problemBox(err));
      secret.focus();
    }
  }}, el('label', {}, 'Access key ID', id), el('label', {}, 'Secret', secret), message, el('button', {class: 'main'}, 'Log in'));
  box.replaceChildren(el('div', {class: 'card'}, el('h1', {}, 'Log in'), form,
    el('p', {class: 'soft'}, 'An administrator makes a key with ', el('code', {}, 'imgcluster key add'), '.')));
  if (problem.message.includes('session')) message.append(problemBox(problem));
  box.hidden = false;
  id.focus();
}

// health returns a cluster's state in a word, the class of its colour, and what it comes from.
export function showHealth(cluster) {
  const kind = {healthy: 'good', degraded: 'warn', unavailable: 'bad'}[cluster.health];
  state.className = `pill ${kind}`;
  if (state.textContent !== cluster.health) state.textContent = cluster.health;
  return kind;
}

// listen calls the handlers of events, by name, until the page is left. user is whose images are watched.
export function listen(handlers, user = '') {
  let stream, seen = Date.now();
  const open = () => {
    stream = new EventSource(`${api}/events${user ? `?user=${encodeURIComponent(user)}` : ''}`);
    stream.onerror = () => {
      if (stream.readyState === EventSource.CLOSED) call('GET', `${api}/session`).catch(() => {}); // has it ended?
    };
    for (const name of new Set(['cluster', ...Object.keys(handlers)])) {
      stream.addEventListener(name, event => {
        seen = Date.now();
        const document = JSON.parse(event.data);
        if (name === 'cluster') showHealth(document);
        handlers[name]?.(document);
      });
    }
  };
  open();
  const watch = setInterval(() => {
    if (Date.now() - seen < 5000) return;
    state.className = 'pill bad';
    state.textContent = 'no answer';
    if (stream.readyState === EventSource.CLOSED) {
      stream.close();
      open();
    }
  }, 2000);
  const close = () => { clearInterval(watch); stream.close(); };
  addEventListener('pagehide', close);
  return close;
}
