import {start, call, api, el, fill, table, main, listen, admin, session, size, count, ask, toast, complain, problemOf, problemBox, color} from './app.js';

const rows = el('tbody');
const checks = el('div');
let state = {};
let verifying = new AbortController();

// shardsMembers is how many nodes have each shard.
const shardsMembers = 3;

// waits says what a member's change waits for.
function waits(m, members) {
  const parts = [];
  const some = (n, one, many) => { if (n) parts.push(`${count(n)} ${n === 1 ? one : many}`); };
  const others = members.filter(x => x.state === 'active').length;
  some(m.moving, 'shard is on the way', 'shards are on the way');
  if (m.state !== 'active') {
    some(m.images, 'copy is to be moved', 'copies are to be moved');
    some(m.leads, 'shard is still led', 'shards are still led');
    if (others >= shardsMembers) some(m.shards - m.moving, 'shard is to be moved', 'shards are to be moved');
  }
  if (!m.up) parts.unshift('it does not answer');
  if (parts.length) return `${m.state === 'active' && !m.moving ? '' : 'Waits: '}${parts.join(', ')}.`;
  if (m.state !== 'draining') return '';
  return m.shards ? `Has no copies left. Keeps its shards: only ${others} other nodes are active.` : 'Has nothing left.';
}

async function show() {
  const {members} = await call('GET', `${api}/members`);
  fill(rows, members.sort((a, b) => a.id - b.id).map(m => {
    const s = state[m.id] || {};
    const kind = !m.up ? 'bad' : m.state === 'active' ? 'good' : 'warn';
    return el('tr', {id: `node-${m.id}`, class: color(m.id)},
      el('td', {}, `Node ${m.id}`, m.id === session.node && el('small', {}, ' (this one)')),
      el('td', {}, el('span', {class: `pill ${kind}`}, m.up ? m.state === 'active' ? 'up' : m.state : 'down'), el('div', {class: 'soft'}, waits(m, members)),
        m.up && el('div', {class: 'soft'}, s.keep_up ? `Keep it up: ${s.keep_up}.` : 'May be stopped now.')),
      el('td', {class: 'mono'}, m.api, el('br'), el('small', {}, `Raft ${m.raft}`)),
      el('td', {class: 'n'}, count(m.images)), el('td', {class: 'n'}, m.shards), el('td', {class: 'n'}, m.leads),
      el('td', {class: 'n'}, s.disk_free_bytes ? size(s.disk_free_bytes) : '—'),
      el('td', {class: 'acts'},
        m.state === 'active' && el('button', {'data-op': 'drain', 'data-id': m.id}, 'Drain…'),
        m.state === 'draining' && el('button', {'data-op': 'resume', 'data-id': m.id}, 'Resume…'), ' ',
        m.state !== 'leaving' && el('button', {class: 'danger', 'data-op': 'remove', 'data-id': m.id}, 'Remove…')));
  }));
}

const questions = {
  drain: id => ({title: `Drain node ${id}?`, text: 'Its leaders and all new images go to other nodes, then its copies too. It goes on answering requests.', action: 'Drain', command: `imgcluster member drain ${id}`}),
  resume: id => ({title: `Resume node ${id}?`, text: 'It takes on images again.', action: 'Resume', command: `imgcluster member drain ${id} --undo`}),
  remove: id => ({title: `Remove node ${id}?`, text: 'Its copies are made on other nodes first; then it is no longer a member and ends.', action: 'Remove', danger: true, command: `imgcluster member remove ${id}`}),
};

rows.addEventListener('click', async event => {
  const {op, id} = event.target.dataset;
  if (!op || !await ask({...questions[op](id), act: () => call('POST', `${api}/members`, {op, id: Number(id)})})) return;
  await told({drain: `Node ${id} drains.`, resume: `Node ${id} takes on work again.`, remove: `Node ${id} is being removed.`}[op]);
});

// told says what was done, and shows the members again.
async function told(what) {
  toast(what);
  await show().catch(complain);
}

async function add() {
  const at = (host, port) => host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const answer = await ask({title: 'Add a node', action: 'Add', extra: [
    el('p', {}, 'Give its addresses first, then start it with a configuration that lists it.'),
    el('label', {}, 'ID', el('input', {name: 'id', type: 'number', min: 1, required: true})),
    el('label', {}, 'Host', el('input', {name: 'host', required: true})),
    el('label', {}, 'api_port', el('input', {name: 'api', type: 'number', min: 1, max: 65535, value: 8001, required: true})),
    el('label', {}, 'raft_port', el('input', {name: 'raft', type: 'number', min: 1, max: 65535, value: 9001, required: true})),
  ], command: 'imgcluster member add --id N --host HOST --api-port P --raft-port P',
  act: a => call('POST', `${api}/members`, {op: 'add', id: Number(a.id), api: at(a.host, a.api), raft: at(a.host, a.raft)})});
  if (answer) await told(`Node ${answer.id} is a member: start it now.`);
}

// verify has this node read its copies, and shows the stream of what it finds. It ends one that is under way.
async function verify(repair) {
  verifying.abort();
  verifying = new AbortController();
  const {signal} = verifying;
  const bar = el('progress', {max: 1, value: 0, 'aria-label': 'Verify'});
  const note = el('p', {class: 'soft'}, 'begins…');
  const bad = el('ul', {hidden: true});
  const end = el('p', {role: 'status'});
  const stop = el('button', {onclick: () => { verifying.abort(); end.textContent = 'Stopped before the end.'; stop.remove(); }}, 'Stop');
  checks.replaceChildren(el('section', {class: 'card note'}, el('h2', {}, `Node ${session.node} verifies its copies`), bar, note, bad, end, stop,
    el('p', {class: 'command'}, 'The same by hand: ', el('code', {}, `imgcluster verify --node ${session.node}${repair ? ' --repair' : ''}`))));
  try {
    const response = await fetch(`${api}/verify${repair ? '?repair=true' : ''}`, {method: 'POST', signal});
    if (!response.ok) throw await problemOf(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = '', last = ''; ;) {
      const {value, done} = await reader.read();
      if (done && last !== 'end') throw new Error('The node ended before it had read all.');
      if (done) break;
      text += value;
      const lines = text.split('\n');
      text = lines.pop();
      for (const line of lines.filter(Boolean).map(JSON.parse)) {
        last = line.type;
        bar.max = Math.max(line.of_bytes, 1);
        bar.value = line.bytes;
        note.textContent = `${count(line.images)} of ${count(line.of_images)} copies read, ${size(line.bytes)}; ${count(line.bad)} bad, ${count(line.repaired)} repaired` +
          (line.skipped ? `, ${count(line.skipped)} not judged` : '');
        if (line.type === 'bad') bad.append(el('li', {}, `${line.user}/${line.name}: ${line.problem}${line.fixed ? ', repaired' : ''}`));
        bad.hidden = !bad.children.length;
        if (line.type === 'failed') throw new Error(line.problem);
        if (line.type === 'end') end.append(el('b', {}, verdict(line)));
      }
    }
  } catch (err) {
    if (!signal.aborted) end.replaceChildren(problemBox(err));
  } finally {
    stop.remove();
  }
}

// verdict says what a verify has found.
function verdict({bad, repaired, skipped}) {
  if (bad > repaired) return `${bad === 1 ? 'A copy is' : `${count(bad)} copies are`} bad. Verify and repair takes good ones from other nodes.`;
  if (bad) return 'All is well now: what was bad is repaired.';
  return skipped ? 'What was read is good; some copies could not be judged now.' : 'All is well.';
}

start(async () => {
  if (!admin()) {
    main.append(el('p', {class: 'notice'}, 'The members are for administrators. The overview has the nodes.'));
    listen({});
    return;
  }
  const columns = [['Node'], ['State'], ['Addresses'], ['Copies', 'n'], ['Shards', 'n'], ['Leads', 'n'], ['Disk free', 'n'], ['Actions', 'acts']];
  main.append(
    el('div', {class: 'toolbar'}, el('button', {class: 'main', onclick: add}, 'Add a node…'),
      el('button', {onclick: () => verify(false)}, `Verify node ${session.node}`), el('button', {onclick: () => verify(true)}, 'Verify and repair')),
    checks,
    table(columns, rows),
    el('p', {class: 'command'}, 'The same by hand: ', el('code', {}, 'imgcluster member list')));
  let due = 0;
  listen({cluster: c => {
    state = Object.fromEntries(c.nodes.map(n => [n.id, n]));
    if (due++ % 2 === 0 && !document.querySelector('dialog[open]')) show().catch(complain);
  }});
  await show().catch(complain);
});
