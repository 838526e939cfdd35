import {start, call, api, dropArea, el, main, listen, admin, ask, complain, problemBox, toast} from './app.js';

const frame = el('iframe', {name: 'report', title: 'The report of the run', hidden: true});
const said = el('div', {'aria-live': 'polite'});

// show has the node make the report of a log, in the frame.
async function show(file) {
  said.replaceChildren(el('p', {class: 'soft'}, `Reads ${file.name}…`));
  const input = el('input', {type: 'file', name: 'log'});
  const files = new DataTransfer();
  files.items.add(file);
  input.files = files.files;
  const form = el('form', {method: 'post', action: `${api}/report`, enctype: 'multipart/form-data', target: 'report', hidden: true}, input);
  document.body.append(form);
  frame.hidden = false;
  frame.onload = () => { said.replaceChildren(); form.remove(); };
  form.submit();
}

async function quickRun() {
  if (!await ask({title: 'Start a quick run?', text: 'Thirty images of 5 to 25 MB are made and uploaded to this cluster, for the user stresstest. They stay there.', action: 'Start', command: 'imgcluster stress --profile quick'})) return;
  try {
    await call('POST', `${api}/runs`, {profile: 'quick'});
    await follow();
  } catch (err) {
    complain(err);
  }
}

// follow shows how far the run is, and its report in the end.
async function follow() {
  const bar = el('progress', {'aria-label': 'The run'});
  const note = el('p', {class: 'soft'}, 'begins…');
  said.replaceChildren(el('div', {class: 'card'}, el('h3', {}, 'Quick run'), bar, note));
  for (;;) {
    const run = await call('GET', `${api}/runs`);
    if (run.count) { bar.max = run.count; bar.value = run.done; }
    note.textContent = run.count ? `${run.done} of ${run.count} images uploaded` : 'begins…';
    if (run.state === 'running') {
      await new Promise(r => setTimeout(r, 500));
      continue;
    }
    if (run.state === 'failed') {
      said.replaceChildren(problemBox(new Error(run.problem)));
      return;
    }
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
    input: {id: 'log', accept: '.jsonl,.json,.log,.1'}, take: files => files[0] && show(files[0]),
  });
  main.append(drop);
  listen({});
  if (admin()) {
    const run = await call('GET', `${api}/runs`).catch(() => null);
    if (run?.possible) main.append(el('p', {}, el('button', {class: 'main', onclick: quickRun}, 'Start a quick run…')));
    if (run?.state === 'running') follow().catch(complain);
  }
  main.append(said, frame, el('p', {class: 'command'}, 'The same by hand: ', el('code', {}, 'imgcluster report log.jsonl --html report.html'), ', ', el('code', {}, 'imgcluster stress')));
});
