import {start, call, all, api, dropArea, el, keepFocus, main, listen, admin, writes, session, size, count, list, when, ask, toast, complain, inWords, Problem, imagePath, quote} from './app.js';

const pageSize = 60;
const uploadsAtOnce = 3;
const unheardEvery = 10_000; // how often, in ms, the list is asked for where a node does not hear of all changes

let user = '', prefix = '', next = null, shown = 0, closeStream = null, loading = 0, inLoad = false;

const wall = el('ul', {class: 'wall'});
const summary = el('p', {class: 'soft', role: 'status'});
const more = el('button', {class: 'more', hidden: true, onclick: () => load(false)}, 'Show more');
const empty = el('p', {class: 'empty', hidden: true});
const queue = el('ul', {class: 'uploads', 'aria-label': 'Uploads'});
const command = el('p', {class: 'command'});

// Thumbnails are asked for when they come into sight, some at a time.
const sight = new IntersectionObserver(entries => {
  for (const e of entries) {
    if (!e.isIntersecting) continue;
    sight.unobserve(e.target);
    const img = e.target.querySelector('img');
    img.src = img.dataset.src;
  }
}, {rootMargin: '300px'});

function tile(image) {
  const box = el('span', {class: 'thumb'});
  const img = el('img', {alt: '', 'data-src': `${imagePath(user, image.name)}?form=thumbnail&v=${image.version}`, width: 256, height: 256,
    onerror: () => box.replaceChildren(kindOf(image))});
  box.append(img);
  const item = el('li', {'data-name': image.name, 'data-version': image.version},
    el('button', {onclick: () => detail(image), 'aria-label': `${image.name}, ${size(image.bytes)}`},
      box, el('span', {class: 'name', title: image.name}, image.name, el('small', {}, `${size(image.bytes)} · node\u00a0${image.owner}`))));
  sight.observe(box);
  return item;
}

const kindOf = image => (image.type || '').split('/').pop().split(';')[0] || 'no preview';

// showPlace says how many images are shown, and whether there are more.
function showPlace(n, after) {
  shown = n;
  next = after || null;
  more.hidden = !next;
  empty.hidden = shown > 0;
  empty.textContent = prefix ? `No image of ${user} begins with “${prefix}”.` : `${user} has no images yet.`;
  summary.textContent = shown ? `${count(shown)} ${shown === 1 ? 'image' : 'images'}${next ? ' shown, and there are more' : ''}` : '';
}

// load shows the next page of the list, or with anew the first one again.
async function load(anew) {
  if (!anew && inLoad) return;
  const mine = ++loading;
  inLoad = true;
  if (anew) next = '';
  const query = new URLSearchParams({limit: pageSize});
  if (prefix) query.set('prefix', prefix);
  if (next) query.set('after', next);
  try {
    const page = await call('GET', `${api}/images/${encodeURIComponent(user)}?${query}`);
    if (mine !== loading) return;
    if (anew) {
      wall.replaceChildren();
      shown = 0;
    }
    wall.append(...page.images.map(tile));
    showPlace(shown + page.images.length, page.next);
  } catch (err) {
    if (mine === loading) complain(err);
  } finally {
    if (mine === loading) inLoad = false;
  }
}

// refresh shows what has changed on the pages that are shown, and leaves the rest of the wall as it is.
async function refresh() {
  const mine = loading;
  const images = [];
  let after = '';
  for (const wanted = Math.max(pageSize, shown + 1); images.length < wanted;) {
    const query = new URLSearchParams({limit: Math.min(1000, wanted - images.length)});
    if (prefix) query.set('prefix', prefix);
    if (after) query.set('after', after);
    const page = await call('GET', `${api}/images/${encodeURIComponent(user)}?${query}`).catch(complain);
    if (!page || mine !== loading) return;
    images.push(...page.images);
    if (!(after = page.next)) break;
  }
  const key = e => e.dataset.name + e.dataset.version;
  const old = new Map([...wall.children].map(e => [key(e), e]));
  const all = images.map(image => old.get(image.name + image.version) || tile(image));
  keepFocus(wall, () => {
    const kept = new Set(all);
    for (const e of old.values()) if (!kept.has(e)) e.remove();
    all.forEach((e, i) => { if (wall.children[i] !== e) wall.insertBefore(e, wall.children[i] || null); });
  });
  showPlace(images.length, after);
}

async function detail(image) {
  const path = imagePath(user, image.name);
  const fact = (name, ...value) => [el('dt', {}, name), el('dd', {}, ...value)];
  const picture = el('img', {src: `${path}?form=thumbnail&size=1024&v=${image.version}`, alt: image.name,
    onerror: e => e.target.replaceWith(el('p', {class: 'empty'}, `No preview: a browser or this node cannot show ${kindOf(image)}.`))});
  const body = el('div', {class: 'detail'}, picture, el('dl', {class: 'facts'},
    fact('Size', `${size(image.bytes)} (${count(image.bytes)} bytes)`),
    fact('Type', image.type || 'unknown'),
    fact('Encrypted by', `node ${image.owner}`),
    fact('Kept by', `${image.replicas.length === 1 ? 'node' : 'nodes'} ${list(image.replicas)}`),
    fact('Stored', when(image.created)),
    fact('SHA-256', image.sha256 ? el('span', {class: 'mono'}, image.sha256) : 'not asked for when it was stored')),
    el('p', {}, el('a', {class: 'button', href: path, download: image.name.split('/').pop()}, 'Download'), ' ',
      writes(user) && el('button', {type: 'button', class: 'danger', onclick: e => remove(image, e.target.closest('dialog'))}, 'Delete…')));
  await ask({title: image.name, extra: [body], command: `imgcluster get ${quote(`${user}/${image.name}`)}`});
}

async function remove(image, dialog) {
  const sure = await ask({title: `Delete ${image.name}?`, text: 'All copies of it are removed. There is no way back.', action: 'Delete', danger: true,
    command: `imgcluster rm ${quote(`${user}/${image.name}`)}`, act: () => call('DELETE', imagePath(user, image.name))});
  if (!sure) return;
  dialog.close();
  toast(`${image.name} is deleted.`);
  await refresh();
}

// Uploads: a few at a time, each with its progress and what the node says of it.
let running = 0;
const waiting = [];

function add(files) {
  for (const file of files) {
    const bar = el('progress', {max: Math.max(file.size, 1), value: 0, 'aria-label': `Upload of ${file.name}`});
    const line = el('li', {}, el('span', {}, file.name), el('div', {}, bar, el('small', {}, size(file.size))));
    queue.prepend(line);
    waiting.push({file, bar, note: line.lastChild.lastChild});
  }
  pump();
}

function pump() {
  while (running < uploadsAtOnce && waiting.length) {
    running++;
    upload(waiting.shift()).finally(() => { running--; pump(); });
  }
}

function upload({file, bar, note}) {
  return new Promise(done => {
    const request = new XMLHttpRequest();
    const name = file.webkitRelativePath || file.name;
    request.open('PUT', imagePath(user, name));
    if (file.type) request.setRequestHeader('Content-Type', file.type);
    request.upload.onprogress = e => { bar.value = e.loaded; };
    request.onload = () => {
      const answer = JSON.parse(request.responseText || '{}');
      if (request.status < 300) {
        bar.value = bar.max;
        note.textContent = `Node ${answer.owner} encrypted it, ${answer.replicas.length === 1 ? 'node' : 'nodes'} ${list(answer.replicas)} ` +
          (answer.replicas.length === 1 ? 'keeps it.' : 'keep it.');
      } else {
        failed(new Problem(request.status, answer));
      }
      done();
    };
    request.onerror = () => { failed(new Problem(0, {detail: 'the node does not answer'})); done(); };
    const failed = err => {
      bar.remove();
      note.className = 'error';
      note.textContent = inWords(err);
    };
    request.send(file);
  });
}

// choose shows the images of a user.
function choose(name) {
  user = name;
  const url = new URL(location);
  url.searchParams.set('user', user);
  if (prefix) url.searchParams.set('prefix', prefix); else url.searchParams.delete('prefix');
  history.replaceState(null, '', url);
  drop.hidden = !writes(user);
  command.replaceChildren('The same by hand: ', el('code', {}, `imgcluster ls ${quote(user)}`), ', ', el('code', {}, `imgcluster put FILE... --user ${quote(user)}`));
  closeStream?.();
  let due = null, fresh = Date.now();
  const later = () => {
    clearTimeout(due);
    fresh = Date.now();
    due = setTimeout(refresh, 150);
  };
  closeStream = listen({images: later, cluster: s => {
    // What is in a shard that this node does not hold, it does not hear of.
    const hears = s.shards.every(shard => shard.nodes.includes(session.node));
    if (!hears && !document.hidden && Date.now() - fresh > unheardEvery) later();
  }}, user);
  load(true);
}

const drop = dropArea({
  text: ['Drop images here, or '], button: 'choose files', label: 'Images to upload', input: {multiple: true, id: 'files'}, take: add,
});

start(async () => {
  const query = new URLSearchParams(location.search);
  prefix = query.get('prefix') || '';
  const find = el('input', {type: 'search', value: prefix, placeholder: 'begins with…', oninput: () => {
    clearTimeout(find.due);
    find.due = setTimeout(() => { prefix = find.value; choose(user); }, 250);
  }});
  const bar = el('form', {class: 'toolbar', onsubmit: e => e.preventDefault()});
  let names = [session.user];
  if (admin()) {
    const users = await all(`${api}/users`, 'users').catch(complain);
    if (!users) return;
    names = users.map(u => u.name);
  }
  const first = query.get('user') || names[0] || '';
  if (first && !names.includes(first)) names.unshift(first);
  const select = el('select', {onchange: () => choose(select.value)}, names.map(n => el('option', {selected: n === first}, n)));
  bar.append(el('label', {}, 'User', select), el('label', {class: 'grow'}, 'Name', find));
  if (admin()) {
    bar.append(el('button', {type: 'button', onclick: async () => {
      const answer = await ask({title: 'A new user', text: 'The first image makes the user. To store for a user that is not in the list, give the name:',
        extra: [el('label', {}, 'Name', el('input', {name: 'user', required: true, maxlength: 128}))], action: 'Go on', command: 'imgcluster put FILE... --user NAME'});
      if (!answer) return;
      select.append(el('option', {selected: true}, answer.user));
      choose(answer.user);
    }}, 'Another user…'));
  }
  main.append(bar, drop, queue, summary, wall, empty, more, command);
  if (!first) {
    empty.hidden = false;
    empty.textContent = 'There are no users yet. The first upload makes one.';
    drop.hidden = true;
    listen({});
    return;
  }
  choose(first);
});
