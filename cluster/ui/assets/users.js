import {start, call, all, api, path, el, fill, table, main, listen, admin, session, when, ask, toast, complain, problemBox, list, quote} from './app.js';

const roles = {read: 'read: looks at the user’s images', write: 'write: stores and deletes them too', metrics: 'metrics: reads figures', admin: 'admin: everything'};

const users = el('tbody'), keys = el('tbody'), removals = el('div');

async function showUsers() {
  const items = await all(`${api}/users`, 'users', page => showRemovals(page.removals || []));
  fill(users, items.map(u => el('tr', {},
    el('td', {}, el('a', {href: `images?user=${encodeURIComponent(u.name)}`}, u.name)), el('td', {}, when(u.created)),
    el('td', {class: 'acts'}, el('button', {class: 'danger', 'aria-label': `Remove user ${u.name}`, onclick: () => removeUser(u)}, 'Remove…')))), !items.length && el('tr', {}, el('td', {colspan: 3, class: 'soft'}, 'No users yet.')));
}

function showRemovals(items) {
  removals.replaceChildren(...items.map(r => el('p', {class: 'notice'}, `The removal of ${r.user}, since ${when(r.since)}, is not complete: `,
    r.shards?.length ? `shards ${list(r.shards)} still drop records and files.` : `nodes ${list(r.nodes || [])} still drop the wrapped keys from their disks.`)));
}

async function showKeys() {
  const items = await all(`${api}/keys`, 'keys');
  fill(keys, items.map(k => el('tr', {},
    el('td', {class: 'mono'}, k.id, k.id === session.key && el('small', {}, ' (yours)')), el('td', {}, k.user || '—'), el('td', {}, k.role),
    el('td', {}, when(k.created)), el('td', {}, k.expires ? when(k.expires) : 'never'),
    el('td', {class: 'acts'}, (admin() || session.role === 'write' || k.id === session.key) &&
      el('button', {class: 'danger', 'aria-label': `Remove key ${k.id}`, onclick: () => removeKey(k)}, 'Remove…')))),
  !items.length && el('tr', {}, el('td', {colspan: 6, class: 'soft'}, session.open ? 'This cluster asks nobody for a key.' : 'No keys yet.')));
}

// told says what was done, and shows the lists again.
async function told(what) {
  toast(what);
  await refresh().catch(complain);
}

// send sends what a form asks for. When that fails, the form says why and keeps what was typed.
async function send(form, url, document) {
  const said = form.querySelector('.said');
  said.replaceChildren();
  try {
    return await call('POST', url, document);
  } catch (err) {
    said.replaceChildren(problemBox(err));
  }
}

async function addUser(event) {
  event.preventDefault();
  const form = event.target;
  const name = form.elements.name.value;
  if (!await send(form, `${api}/users`, {name})) return;
  form.reset();
  await told(`User ${name} is there.`);
}

async function removeUser(u) {
  const sure = await ask({title: `Remove user ${u.name}?`, danger: true, action: 'Remove', command: `imgcluster user rm ${quote(u.name)}`,
    text: 'Their keys are destroyed, and with them everything of theirs becomes unreadable, copies of it included. Only a backup of the catalog from before still has the keys. There is no way back.',
    extra: [el('label', {}, `To go on, type the name: ${u.name}`, el('input', {name: 'name', required: true, autocomplete: 'off', pattern: u.name.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')}))],
    act: () => call('DELETE', `${api}/users/${path(u.name)}`)});
  if (sure) await told(`User ${u.name} is removed.`);
}

async function addKey(event) {
  event.preventDefault();
  const form = event.target, f = form.elements;
  const key = {role: f.role.value};
  if (f.user.value) key.user = f.user.value;
  if (f.expires.value) key.expires = new Date(f.expires.value).toISOString();
  const made = await send(form, `${api}/keys`, key);
  if (!made) return;
  form.reset();
  forWhom(form);
  refresh().catch(complain);
  await ask({title: 'The new access key', text: 'The secret is shown this once: keep it now.', extra: [
    el('p', {}, 'ID', el('code', {class: 'secret'}, made.id)), el('p', {}, 'Secret', el('code', {class: 'secret', id: 'new-secret'}, made.secret)),
    el('button', {type: 'button', onclick: async e => {
      const text = `IMGCLUSTER_ACCESS_KEY=${made.id}\nIMGCLUSTER_SECRET_KEY=${made.secret}\n`;
      const copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
      e.target.textContent = copied ? 'Copied' : 'This browser does not let a page copy: select the secret';
    }}, 'Copy both as environment variables')]});
}

// forWhom asks for a user where the role is one of a user's.
function forWhom(form) {
  const {role, user} = form.elements;
  user.required = role.value === 'read' || role.value === 'write';
  user.placeholder = user.required ? '' : 'nobody';
}

async function removeKey(k) {
  const sure = await ask({title: `Remove key ${k.id}?`, danger: true, action: 'Remove', command: `imgcluster key rm ${k.id}`,
    text: k.id === session.key ? 'You are logged in with it, and are logged out then.' : 'Whoever uses it is refused from then on.',
    act: () => call('DELETE', `${api}/keys/${path(k.id)}`)});
  if (sure) await told(`Key ${k.id} is removed.`);
}

async function refresh() {
  await Promise.all([admin() && showUsers(), showKeys()]);
}

start(async () => {
  if (admin()) {
    main.append(removals,
      el('section', {}, el('h2', {}, 'Users'),
        el('form', {class: 'row', onsubmit: addUser}, el('label', {}, 'Name', el('input', {name: 'name', required: true, maxlength: 128})), el('button', {class: 'main'}, 'Add user'), el('div', {class: 'said'})),
        table([['Name'], ['Since'], ['Actions', 'acts']], users),
        el('p', {class: 'command'}, 'The same by hand: ', el('code', {}, 'imgcluster user add NAME'), ', ', el('code', {}, 'imgcluster user list'))));
  }
  main.append(el('section', {}, el('h2', {}, 'Access keys'),
    admin() && el('form', {class: 'row', onsubmit: addKey},
      el('label', {}, 'Role', el('select', {name: 'role', onchange: e => forWhom(e.target.form)}, Object.entries(roles).map(([role, text]) => el('option', {value: role}, text)))),
      el('label', {}, 'Of user', el('input', {name: 'user', maxlength: 128, required: true})),
      el('label', {}, 'Expires', el('input', {name: 'expires', type: 'datetime-local'})),
      el('button', {class: 'main'}, 'Make key'), el('div', {class: 'said'})),
    table([['ID'], ['User'], ['Role'], ['Made'], ['Expires'], ['Actions', 'acts']], keys),
    el('p', {class: 'command'}, 'The same by hand: ', el('code', {}, 'imgcluster key add --role write --user NAME'), ', ', el('code', {}, 'imgcluster key list'))));
  listen({});
  await refresh().catch(complain);
});
