// Shows the figures of a chart under the pointer, and those of the checks on paper. Everything is on the page without it.
let shut = [];
addEventListener("beforeprint", () => {
  shut = [...document.querySelectorAll("details:not([open])")];
  for (const d of shut) d.open = true;
});
addEventListener("afterprint", () => { for (const d of shut) d.open = false; });
for (const chart of document.querySelectorAll("figure.chart")) {
  const data = JSON.parse(chart.querySelector('script[type="application/json"]').textContent);
  const box = chart.querySelector(".box");
  const rule = Object.assign(document.createElement("div"), {className: "rule", hidden: true});
  const tip = Object.assign(document.createElement("div"), {className: "tip", hidden: true});
  box.append(rule, tip);
  const show = (v) => Number(v.toPrecision(4)).toString();
  const nearest = (points, t) => points.reduce((best, p) => Math.abs(p[0] - t) < Math.abs(best[0] - t) ? p : best, points[0]);
  const at = (t) => data.nines ? show(100 * (1 - 10 ** -t)) + " %" : show(t * data.factor) + " " + data.x;
  box.addEventListener("pointermove", (e) => {
    const r = box.getBoundingClientRect();
    const t = data.min + (e.clientX - r.left) / r.width * (data.max - data.min);
    const reach = (data.max - data.min) / 40;
    const lines = data.lines.filter((l) => l.points.length).map((l) => ({...l, p: nearest(l.points, t)})).filter((l) => Math.abs(l.p[0] - t) < 2 * reach);
    const marks = data.marks.filter((m) => Math.abs(m.t - t) < reach / 2);
    rule.hidden = tip.hidden = lines.length + marks.length === 0;
    if (tip.hidden) return;
    const x = lines.length ? lines[0].p[0] : marks[0].t;
    const left = (x - data.min) / (data.max - data.min) * r.width;
    rule.style.left = left + "px";
    tip.replaceChildren(at(x));
    for (const l of lines) {
      const row = Object.assign(document.createElement("div"), {className: "s" + l.style});
      row.append(Object.assign(document.createElement("b"), {textContent: "■ "}), `${l.name} ${show(l.p[1])} ${data.unit}`);
      tip.append(row);
    }
    for (const m of marks) tip.append(Object.assign(document.createElement("div"), {textContent: m.name}));
    tip.style.left = Math.max(0, Math.min(left + 12, r.width - tip.offsetWidth)) + "px";
  });
  box.addEventListener("pointerleave", () => { rule.hidden = tip.hidden = true; });
}
