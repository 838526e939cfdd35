// Returns what is wrong with a report's page, as seen in a browser; scheme is light or dark.
(scheme) => {
  const wrong = [];
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) {
    const wide = all("main *").filter((e) => e.getBoundingClientRect().right > page.clientWidth + 1 && !e.closest(".table") && !e.closest(".hidden"));
    wrong.push(`${page.scrollWidth} pixels of ${page.clientWidth}, by ${wide.slice(0, 3).map((e) => e.outerHTML.slice(0, 80))}`);
  }
  const visible = (e) => { const b = e.getBoundingClientRect(); return b.width > 0 || b.height > 0; };
  for (const chart of all("figure.chart")) {
    const name = chart.id;
    const marks = all(".line, .dots", chart).filter((p) => p.getAttribute("d"));
    if (marks.length === 0 || !marks.some((p) => p.matches(".dots") || p.getTotalLength() > 1)) wrong.push(`${name}: no marks`);
    if (all("li", chart).length !== all(".lines > g", chart).length) wrong.push(`${name}: legend and lines differ`);
    if (all(".x span", chart).length < 2 || all(".y span", chart).length < 2) wrong.push(`${name}: no ticks`);
    if (!chart.querySelector("svg title").textContent || !chart.querySelector("svg desc").textContent) wrong.push(`${name}: no words`);
    for (const p of marks) {
      if (/NaN|Inf|undefined/.test(p.getAttribute("d"))) wrong.push(`${name}: ${p.getAttribute("d").slice(0, 60)}`);
      if (getComputedStyle(p).stroke === "none") wrong.push(`${name}: a line without colour`);
    }
    const box = chart.querySelector(".box"), r = box.getBoundingClientRect();
    for (const at of [0, 0.5, 0.999]) box.dispatchEvent(new PointerEvent("pointermove", {clientX: r.left + at * r.width, clientY: r.top + 5}));
    for (const mark of all(".tip", chart)) {
      const b = mark.getBoundingClientRect();
      if (!mark.hidden && (b.right > page.clientWidth + 1 || b.left < -1) && b.width < r.width) wrong.push(`${name}: the tip leaves the page`);
    }
    if (marks.some((p) => p.matches(".line"))) {
      const points = JSON.parse(chart.querySelector("script").textContent).lines.flatMap((l) => l.points);
      const data = JSON.parse(chart.querySelector("script").textContent);
      box.dispatchEvent(new PointerEvent("pointermove", {clientX: r.left + (points[0][0] - data.min) / (data.max - data.min) * r.width, clientY: r.top + 5}));
      const tip = chart.querySelector(".tip");
      if (tip.hidden || !tip.textContent.includes(data.lines.find((l) => l.points.length > 0).name)) wrong.push(`${name}: no tip`);
    }
    box.dispatchEvent(new PointerEvent("pointerleave"));
    const ticks = all(".x span", chart).map((e) => e.getBoundingClientRect());
    if (ticks.some((b, i) => i > 0 && b.left < ticks[i - 1].right)) wrong.push(`${name}: ticks overlap`);
  }
  for (const rect of all(".share rect")) if (+rect.getAttribute("width") > 0 && !visible(rect)) wrong.push("a share without a bar");
  const ids = all("[id]").map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`two of ${id}`);
  for (const a of all('a[href^="#"]')) if (!ids.includes(a.getAttribute("href").slice(1))) wrong.push(`${a.href} leads nowhere`);
  for (const h of all("h1, h2, h3[id]")) if (!h.id && !h.closest("aside, .check")) wrong.push(`no anchor at ${h.textContent}`);
  for (const t of all(".table")) {
    if (t.scrollWidth <= t.clientWidth) continue;
    if (getComputedStyle(t).backgroundImage === "none" || t.tabIndex < 0) wrong.push(`${t.getAttribute("aria-labelledby")}: cut with no sign that it scrolls`);
  }
  const runs = all("article").length;
  if (runs > 1 && all('main > .table td:first-child a[href^="#"]').length !== runs) wrong.push("no link to each run");
  const shown = () => all("details").filter((d) => d.open).length, before = shown();
  dispatchEvent(new Event("beforeprint"));
  if (shown() !== all("details").length) wrong.push("figures of the checks are not on paper");
  dispatchEvent(new Event("afterprint"));
  if (shown() !== before) wrong.push("figures stay open after printing");
  if (window.evil) wrong.push("a log's words were run");
  if (!document.title) wrong.push("no title");

  // Contrast by WCAG 2.2, 1.4.3 for words and 1.4.11 for lines.
  const rgb = (s) => s.match(/[\d.]+/g).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0.99) return c; } return [255, 255, 255]; };
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  for (const e of all("h1, h2 a, h3, .kicker, .pills a, .more, .note, td, th, .status, .check p, .fine, figcaption, .plot span, .limit p")) {
    const c = contrast(rgb(getComputedStyle(e).color), behind(e));
    if (c < 4.5) wrong.push(`contrast ${c.toFixed(2)} of ${e.className} ${e.textContent.slice(0, 30)}`);
  }
  for (const e of all(".line")) {
    const c = contrast(rgb(getComputedStyle(e).stroke), behind(e.closest("figure")));
    if (c < 3) wrong.push(`contrast ${c.toFixed(2)} of a line of ${e.closest("figure").id}`);
  }
  if ((light(behind(document.body.firstElementChild)) < 0.2) !== (scheme === "dark")) wrong.push(`not ${scheme}`);
  return wrong.slice(0, 12);
}
