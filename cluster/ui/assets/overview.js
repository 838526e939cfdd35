import {start, call, api, el, fill, main, listen, admin, showHealth, size, count, percent, seconds, color, complain} from './app.js';

const words = {healthy: 'Healthy', degraded: 'Degraded', unavailable: 'Unavailable'};

const health = el('section', {class: 'card health', 'aria-live': 'polite'});
const tiles = el('dl', {class: 'tiles'});
const cards = el('div', {class: 'cards'});
const shards = el('ul', {class: 'shards'});
const charts = el('div', {class: 'charts'});

// showCluster draws a cluster's state.
function showCluster(c) {
  health.className = `card health ${showHealth(c)}`;
  const up = c.nodes.filter(n => n.state !== 'down').length;
  fill(health,
    el('strong', {}, words[c.health]),
    el('span', {}, c.health === 'healthy' ? `all ${c.nodes.length} nodes and ${c.shards.length} shards are up` : `${up} of ${c.nodes.length} nodes are up`),
    c.warnings?.length && el('ul', {}, c.warnings.map(w => el('li', {}, w))));
  const tile = (name, value, unit) => el('div', {}, el('dt', {}, name), el('dd', {}, value, unit && el('small', {}, ` ${unit}`)));
  if (!c.limited) {
    fill(tiles,
      tile('Images', count(c.images)),
      tile('Stored, without copies', size(c.bytes)),
      tile('Copies of each', c.replicas),
      tile('With too few copies', count(c.under_replicated)),
      tile('Uploads in progress', count(c.nodes.reduce((sum, n) => sum + n.uploads, 0))));
  }
  fill(cards, c.nodes.map(n => nodeCard(n, c)));
  fill(shards, c.shards.map(s => el('li', {class: s.leader ? color(s.leader) : ''},
    el('b', {}, s.id === 1 ? 'system' : `shard\u00a0${s.id}`), s.leader ? `node ${s.leader}` : 'no leader')));
}

const condition = n => n.state === 'down' ? ['down', 'bad'] : n.problem ? ['disk failed', 'bad'] : n.disk_full ? ['disk full', 'warn'] :
  n.state === 'draining' ? ['draining', 'warn'] : n.ready ? ['up', 'good'] : ['starting', 'warn'];

function nodeCard(n, c) {
  const [word, kind] = condition(n);
  const owned = c.nodes.reduce((sum, x) => sum + x.owned_images, 0);
  const bytes = c.nodes.reduce((sum, x) => sum + x.owned_bytes, 0);
  const fact = (name, ...value) => [el('dt', {}, name), el('dd', {}, ...value)];
  const share = () => {
    const b = el('i');
    b.style.width = percent(n.owned_images, owned).replace(' ', '');
    return el('div', {class: 'bar', 'aria-hidden': 'true'}, b);
  };
  return el('article', {class: `card node ${color(n.id)} ${n.state}`, id: `node-${n.id}`},
    el('header', {}, el('h3', {}, `Node ${n.id}`), el('span', {class: `pill ${kind}`}, word)),
    el('small', {class: 'mono'}, n.api),
    !c.limited && n.state !== 'down' && el('dl', {class: 'facts'},
      fact('Share', `${percent(n.owned_images, owned)} of images, ${percent(n.owned_bytes, bytes)} of bytes`, share()),
      fact('Holds', `${count(n.stored_images)} copies, ${size(n.stored_bytes)}`),
      fact('Memory', size(n.rss_bytes)),
      fact('Disk free', size(n.disk_free_bytes)),
      fact('Leads', `${n.leader_of} of ${c.shards.length} shards`),
      fact('Up for', n.uptime_s < 60 ? 'less than a minute' : seconds(n.uptime_s), n.version && `, version ${n.version}`)));
}

// Charts of the last hour: one line a node, or one for the cluster.
const plots = [
  {title: 'Uploads', unit: v => `${v < 10 ? v.toFixed(1) : Math.round(v)} /s`, sum: n => n.uploads_per_s},
  {title: 'Bytes stored and read', least: 1000, unit: v => `${size(Math.round(v))}/s`, lines: [['stored', s => total(s, n => n.upload_bytes_per_s)], ['read', s => total(s, n => n.read_bytes_per_s)]]},
  {title: 'Upload, 99th percentile', unit: v => seconds(v), node: n => n.upload_p99_s},
  {title: 'Processors in use', unit: v => v.toFixed(2), node: n => n.cpu},
  {title: 'Memory', unit: v => size(Math.round(v)), node: n => n.rss_bytes},
  {title: 'Share of uploads', unit: v => `${v.toFixed(0)} %`, share: n => n.uploads_per_s, range: [0, 100]},
];
const total = (sample, of) => sample.nodes.reduce((sum, n) => sum + (of(n) || 0), 0);
let samples = [];
let drawn = [];

function linesOf(plot) {
  if (plot.sum) return [['cluster', s => total(s, plot.sum)]];
  if (plot.lines) return plot.lines;
  const ids = [...new Set(samples.flatMap(s => s.nodes.map(n => n.id)))].sort((a, b) => a - b);
  return ids.map(id => [`node ${id}`, s => {
    const n = s.nodes.find(x => x.id === id);
    if (!n || !n.up) return null;
    if (!plot.share) return plot.node(n) || 0;
    const all = total(s, plot.share);
    return all ? 100 * (plot.share(n) || 0) / all : null;
  }]);
}

function drawCharts() {
  const style = getComputedStyle(document.documentElement);
  const css = name => style.getPropertyValue(name).trim();
  for (const u of drawn) u.destroy();
  drawn = [];
  charts.replaceChildren();
  for (const plot of plots) {
    const lines = linesOf(plot);
    const value = el('span', {class: 'key'}, lines.map(([name], i) => el('span', {class: `n${i % 8}`}, name)));
    const box = el('div', {class: 'plot'});
    charts.append(el('figure', {class: 'card chart'}, el('figcaption', {}, el('b', {}, plot.title), value), box));
    const axis = {values: (_, all) => all.map(t => new Date(t * 1000).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit'})), stroke: css('--soft'), grid: {stroke: css('--rule'), width: 1}, ticks: {stroke: css('--rule'), width: 1}, font: '12px system-ui'};
    drawn.push(new uPlot({
      width: Math.max(200, box.clientWidth), height: 190, legend: {show: false}, cursor: {y: false, drag: {setScale: false}},
      scales: {x: {range: lastHour}, y: {range: (_, low, high) => plot.range || [0, (Math.max(high, plot.least || 0) || 1) * 1.12]}},
      axes: [{...axis, space: 70, size: 34}, {...axis, size: 74, space: 34, values: (_, all) => all.map(plot.unit)}],
      series: [{}, ...lines.map(([name], i) => ({label: name, stroke: css(`--s${i % 8}`), width: 1.6, points: {show: false}, spanGaps: false}))],
      hooks: {setCursor: [u => {
        const at = u.cursor.idx;
        [...value.children].forEach((e, i) => {
          const v = at === null || at === undefined ? null : u.data[i + 1][at];
          e.textContent = v === null || v === undefined ? lines[i][0] : `${lines[i][0]} ${plot.unit(v)}`;
        });
      }]},
    }, dataOf(lines), box));
  }
}

// lastHour returns the time of the samples, of ten minutes at least.
function lastHour() {
  const last = samples.at(-1)?.t ?? Date.now() / 1000;
  return [Math.min(samples[0]?.t ?? last, last - 600), last];
}

const dataOf = lines => [samples.map(s => s.t), ...lines.map(([, of]) => samples.map(of))];

function addSample(s) {
  samples = [...samples.slice(-359), s];
  if (drawn.length === 0 || drawn.some((u, i) => u.series.length - 1 !== linesOf(plots[i]).length)) {
    drawCharts();
    return;
  }
  drawn.forEach((u, i) => u.setData(dataOf(linesOf(plots[i]))));
}

start(async () => {
  document.querySelector('h1').className = 'hidden';
  main.append(health, tiles, el('h2', {}, 'Nodes'), cards);
  if (admin()) {
    main.append(el('h2', {}, 'The last hour, as this node saw it'), charts);
  }
  main.append(el('h2', {}, 'Shards and their leaders'), shards);
  listen({cluster: showCluster, sample: addSample});
  call('GET', `${api}/cluster`).then(showCluster).catch(complain);
  if (!admin()) return;
  const history = await call('GET', `${api}/history`).catch(complain);
  if (!history) return;
  samples = history.samples;
  drawCharts();
  let width = innerWidth;
  addEventListener('resize', () => { if (innerWidth !== width) { width = innerWidth; drawCharts(); } });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawCharts);
});
