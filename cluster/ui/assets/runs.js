import {start, call, api, dropArea, el, main, listen, admin, ask, problemBox, Problem, toast} from './app.js';

const frame = el('iframe', {name: 'report', title: 'The report of the run', hidden: true});
const said = el('div');

// show has the node make the report of a log, in the frame.
async function show(file) {
  said.replaceChildren(el('p', {class: 'soft', role: 'status'}, `Reads ${file.name}…`));
  const input = el('input', {type: 'file', name: 'log'});
  const files = new DataTransfer();
  files.items.add(file);
  input.files = files.files;
  const form = el('form', {method: 'post', action: `${api}/report`, enctype: 'multipart/form-data', target: 'report', hidden: true}, input);
  document.body.append(form);
  frame.onload = () => {
    form.remove();
    const problem = problemIn(frame);
    frame.hidden = problem !== null;
    said.replaceChildren(problem ? problemBox(problem) : '');
  };
  form.submit();
}

// problemIn returns the problem that a frame shows in place of a report. A report is locked away from this
// page, which can read nothing of it.
function problemIn(frame) {
  const text = frame.contentDocument?.querySelector('pre')?.textContent;
  if (!text) return null;
  const document = JSON.parse(text);
  return new Problem(document.status, document);
}

async function quickRun() {
  if (!await ask({title: 'Start a quick run?', text: 'Thirty images of 5 to 25 MB are made and uploaded to this cluster, for the user stresstest. They stay there.', action: 'Start', command: 'imgcluster stress --profile quick',
    act: () => call('POST', `${api}/runs`, {profile: 'quick'})})) return;
  await follow();
}

// follow shows how far the run is, and its report in the end.
async function follow() {
  frame.hidden = true;
  try {
    await followed();
  } catch (err) {
    said.replaceChildren(problemBox(err));
  }
}

async function followed() {
  const bar = el('progress', {'aria-label': 'The run'});
  const note = el('p', {class: 'soft'}, 'begins…');
  said.replaceChildren(el('section', {class: 'card note'}, el('h2', {}, 'Quick run'), bar, note));
  for (;;) {
    const run = await call('GET', `${api}/runs`);
    if (run.count) { bar.max = run.count; bar.value = run.done; }
    note.textContent = run.count ? `${run.done} of ${run.count} images uploaded` : 'begins…';
    if (run.state === 'running') {
      await new Promise(r => setTimeout(r, 500));
      continue;
    }
    if (run.state === 'failed') throw new Error(run.problem);
    said.replaceChildren();
    frame.hidden = false;
    frame.src = `${api}/runs/report?${Date.now()}`;
    toast('The run has ended.');
    return;
  }
}

start(async () => {
  const drop = dropArea({
    text: ['Drop the log of a run here (', el('code', {}, 'log.jsonl'), '), or '], button: 'choose one', label: 'Log of a run',
    input: {id: 'log', accept: '.jsonl,.json,.log,.1,.gz'}, take: files => files[0] && show(files[0]),
  });
  main.append(drop);
  listen({});
  if (admin()) {
    const run = await call('GET', `${api}/runs`).catch(() => null);
    if (run?.possible) main.append(el('p', {class: 'toolbar'}, el('button', {class: 'main', onclick: quickRun}, 'Start a quick run…')));
    if (run?.state === 'running') follow();
  }
  main.append(said, frame, el('p', {class: 'command'}, 'The same by hand: ', el('code', {}, 'imgcluster report log.jsonl --html report.html'), ', ', el('code', {}, 'imgcluster stress')));
});
