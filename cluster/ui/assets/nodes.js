import {start, call, api, el, fill, table, main, listen, admin, session, size, count, ask, toast, complain, problemOf, problemBox, color} from './app.js';

const rows = el('tbody');
const checks = el('div', {'aria-live': 'polite'});
let state = {};

// waits says what a member's change waits for.
function waits(m) {
  if (!m.up) return 'does not answer';
  if (m.state === 'active' && !m.moving) return '';
  const parts = [];
  if (m.moving) parts.push(`${m.moving} ${m.moving === 1 ? 'shard is' : 'shards are'} on the way`);
  if (m.state !== 'active' && m.shards) parts.push(`holds ${m.shards} shards`);
  if (m.state !== 'active' && m.leads) parts.push(`leads ${m.leads}`);
  if (m.state === 'leaving' && m.images) parts.push(`${count(m.images)} copies are to be moved`);
  return parts.join(', ') || (m.state === 'draining' ? 'takes on no more work' : '');
}

async function show() {
  const {members} = await call('GET', `${api}/members`);
  fill(rows, members.sort((a, b) => a.id - b.id).map(m => {
    const s = state[m.id] || {};
    const kind = !m.up ? 'bad' : m.state === 'active' ? 'good' : 'warn';
    return el('tr', {id: `node-${m.id}`, class: color(m.id)},
      el('td', {}, `Node ${m.id}`, m.id === session.node && el('small', {}, ' (this one)')),
      el('td', {}, el('span', {class: `pill ${kind}`}, m.up ? m.state === 'active' ? 'up' : m.state : 'down'), el('div', {class: 'soft'}, waits(m)),
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
  drain: id => ({title: `Drain node ${id}?`, text: 'It hands its leaders over and takes on no more images. What it has stays there and is served.', action: 'Drain', command: `imgcluster member drain ${id}`}),
  resume: id => ({title: `Resume node ${id}?`, text: 'It takes on images again.', action: 'Resume', command: `imgcluster member drain ${id} --undo`}),
  remove: id => ({title: `Remove node ${id}?`, text: 'Its copies are made on other nodes first; then it is no longer a member and ends.', action: 'Remove', danger: true, command: `imgcluster member remove ${id}`}),
};

rows.addEventListener('click', async event => {
  const {op, id} = event.target.dataset;
  if (!op || !await ask(questions[op](id))) return;
  await change({op, id: Number(id)}, {drain: `Node ${id} drains.`, resume: `Node ${id} takes on work again.`, remove: `Node ${id} is being removed.`}[op]);
});

async function change(document, done) {
  try {
    await call('POST', `${api}/members`, document);
    toast(done);
    await show();
  } catch (err) {
    complain(err);
  }
}

async function add() {
  const answer = await ask({title: 'Add a node', action: 'Add', extra: [
    el('p', {}, 'Give its addresses first, then start it with a configuration that lists it.'),
    el('label', {}, 'ID', el('input', {name: 'id', type: 'number', min: 1, required: true})),
    el('label', {}, 'Host', el('input', {name: 'host', required: true})),
    el('label', {}, 'api_port', el('input', {name: 'api', type: 'number', min: 1, max: 65535, value: 8001, required: true})),
    el('label', {}, 'raft_port', el('input', {name: 'raft', type: 'number', min: 1, max: 65535, value: 9001, required: true})),
  ], command: 'imgcluster member add --id N --host HOST --api-port P --raft-port P'});
  if (!answer) return;
  const at = port => answer.host.includes(':') ? `[${answer.host}]:${port}` : `${answer.host}:${port}`;
  await change({op: 'add', id: Number(answer.id), api: at(answer.api), raft: at(answer.raft)}, `Node ${answer.id} is a member: start it now.`);
}

// verify has this node read its copies, and shows the stream of what it finds.
async function verify(repair) {
  const bar = el('progress', {max: 1, value: 0, 'aria-label': 'Verify'});
  const note = el('p', {class: 'soft'}, 'begins…');
  const bad = el('ul');
  checks.replaceChildren(el('div', {class: 'card'}, el('h3', {}, `Node ${session.node} verifies its copies`), bar, note, bad));
  try {
    const response = await fetch(`${api}/verify${repair ? '?repair=true' : ''}`, {method: 'POST'});
    if (!response.ok) throw await problemOf(response);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ''; ;) {
      const {value, done} = await reader.read();
      if (done) break;
      text += value;
      const lines = text.split('\n');
      text = lines.pop();
      for (const line of lines.filter(Boolean).map(JSON.parse)) {
        bar.max = Math.max(line.of_bytes, 1);
        bar.value = line.bytes;
        note.textContent = `${count(line.images)} of ${count(line.of_images)} copies read, ${size(line.bytes)}; ${count(line.bad)} bad, ${count(line.repaired)} repaired` +
          (line.skipped ? `, ${count(line.skipped)} not judged` : '');
        if (line.type === 'bad') bad.append(el('li', {}, `${line.user}/${line.name}: ${line.problem}${line.fixed ? ', repaired' : ''}`));
        if (line.type === 'failed') throw new Error(line.problem);
        if (line.type === 'end') note.append(el('b', {}, line.bad === line.repaired ? ' All is well.' : ' Some copies are bad.'));
      }
    }
  } catch (err) {
    checks.append(problemBox(err));
  }
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
    el('p', {class: 'command'}, 'The same by hand: ', el('code', {}, 'imgcluster member list'), ', ', el('code', {}, 'imgcluster verify')));
  let due = 0;
  listen({cluster: c => {
    state = Object.fromEntries(c.nodes.map(n => [n.id, n]));
    if (due++ % 2 === 0) show().catch(complain);
  }});
  await show().catch(complain);
});
