// Returns what is wrong with a page of the dashboard, as seen in a browser; scheme is light or dark.
(scheme) => {
  const wrong = [];
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const page = document.documentElement;
  const visible = (e) => { const b = e.getBoundingClientRect(); return (b.width > 0 || b.height > 0) && !e.closest("[hidden], .hidden, .skip"); };
  if (page.scrollWidth > page.clientWidth) {
    const wide = all("body *").filter((e) => e.getBoundingClientRect().right > page.clientWidth + 1 && !e.closest(".table, nav, .hidden"));
    wrong.push(`${page.scrollWidth} pixels of ${page.clientWidth}, by ${wide.slice(0, 3).map((e) => e.outerHTML.slice(0, 90))}`);
  }
  const heads = all("h1").filter((e) => !e.closest("[hidden]"));
  if (heads.length !== 1) wrong.push(`${heads.length} h1`);
  const ids = all("[id]").map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`two of ${id}`);
  for (const e of all("input, select, progress")) if (!e.closest("label") && !e.ariaLabel && !document.querySelector(`label[for="${e.id}"]`)) wrong.push(`no label: ${e.outerHTML.slice(0, 80)}`);
  for (const e of all("button, a")) if (!(e.ariaLabel || e.textContent).trim()) wrong.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  for (const e of all("img")) if (!e.hasAttribute("alt")) wrong.push(`no alt: ${e.outerHTML.slice(0, 80)}`);
  for (const e of all("iframe")) if (!e.title) wrong.push("a frame without a title");
  for (const e of all("[tabindex]")) if (e.tabIndex > 0) wrong.push("an order of focus of its own");
  for (const e of all("th")) if (!e.scope) wrong.push("a head of a table without scope");
  if (!page.lang || !document.title) wrong.push("no language or no title");
  for (const e of all("td, dd, p, a, code")) if (visible(e) && e.clientWidth > 0 && e.clientWidth < 24 && e.textContent.trim().length > 3) wrong.push(`${e.clientWidth} pixels for ${e.textContent.slice(0, 20)}`);
  let level = 0;
  for (const e of all("h1, h2, h3")) { const l = +e.tagName[1]; if (l > level + 1) wrong.push(`${e.tagName} after h${level}: ${e.textContent}`); level = l; }

  // Contrast by WCAG 2.2, 1.4.3.
  const rgb = (s) => s.match(/[\d.]+/g).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0.99) return c; } return [255, 255, 255]; };
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  for (const e of all("h1, h2, h3, a, p, dt, dd, td, th, small, code, button, .pill, label, figcaption, figcaption *, strong, .name, .thumb, li, input, select")) {
    if (!visible(e) || !e.textContent.trim() && !e.value || e.disabled) continue;
    const c = contrast(rgb(getComputedStyle(e).color), behind(e));
    if (c < 4.5) wrong.push(`contrast ${c.toFixed(2)} of ${e.tagName} ${e.className} ${e.textContent.slice(0, 30)}`);
  }
  if ((light(behind(document.body.firstElementChild)) < 0.2) !== (scheme === "dark")) wrong.push(`not ${scheme}`);
  return wrong.slice(0, 12);
}
