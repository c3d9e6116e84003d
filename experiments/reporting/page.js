"use strict";
// Draws the charts of the page. Every text goes in as text, never as markup.
const payload = JSON.parse(document.getElementById("payload").textContent);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const reduced = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

function themed(layout) {
  const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), automargin: true };
  return {
    height: 420, margin: { l: 60, r: 20, t: 32, b: 50 }, hovermode: "closest",
    paper_bgcolor: css("--paper"), plot_bgcolor: css("--paper"), font: { color: css("--ink") },
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom" }, ...layout,
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  };
}

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const flat = value => Array.isArray(value) ? value.flatMap(flat) : [value];

// The largest number of each choice among architectures, which fills a layer's bar.
function mostOf(architectures) {
  const most = {};
  for (const architecture of architectures)
    for (const [name, value] of Object.entries(architecture))
      for (const one of flat(value)) if (Number.isFinite(Number(one))) most[name] = Math.max(most[name] ?? 0, Number(one));
  return most;
}

function drawCell(tag, text, share) {
  return element(tag, text, { class: "layer", style: `--share: ${Number.isFinite(share) ? share : 0}%` });
}

// A table in which each row is a layer, and what the whole network has before it. Choices with equally many layers share
// a table; those of layers within stages have rows for each stage's layers.
function drawArchitecture(into, architecture, most = mostOf([architecture])) {
  const tables = new Map(), whole = element("p", null, { class: "whole" });
  for (const [name, value] of Object.entries(architecture)) {
    if (!Array.isArray(value)) { whole.append(`${name} `, drawCell("span", String(value), NaN), " "); continue; }
    const nested = value.some(Array.isArray);
    const shape = JSON.stringify(nested ? value.map(row => row.length) : value.length);
    if (!tables.has(shape)) tables.set(shape, []);
    tables.get(shape).push([name, nested ? value : [value]]);
  }
  const staged = Object.values(architecture).find(value => Array.isArray(value) && value.some(Array.isArray));
  into.replaceChildren(...(whole.childNodes.length ? [whole] : []), ...[...tables.values()].map(choices => {
    const table = element("table", null, { class: "layers" }), head = element("tr", null), rows = choices[0][1];
    const unit = staged && rows.length === 1 && rows[0].length === staged.length ? "stage" : "layer";
    for (const name of ["", ...choices.map(([name]) => name)]) head.append(element(name ? "th" : "td", name, name ? { scope: "col" } : {}));
    table.append(head);
    rows.forEach((row, i) => row.forEach((_, j) => {
      const line = element("tr", null);
      line.append(element("th", `${rows.length > 1 ? `stage ${i + 1}, ` : ""}${unit} ${j + 1}`, { scope: "row" }));
      for (const [name, values] of choices) line.append(drawCell("td", String(values[i][j]), 100 * values[i][j] / most[name]));
      table.append(line);
    }));
    const scrolls = element("div", null, { class: "wide", tabindex: "0", role: "region", "aria-label": choices.map(([name]) => name).join(", ") });
    scrolls.append(table);
    return scrolls;
  }));
}

function frontOf(costs, values, lowerIsBetter) {
  const order = costs.map((_, i) => i).filter(i => values[i] !== null);
  const sign = lowerIsBetter ? 1 : -1;
  order.sort((a, b) => costs[a] - costs[b] || sign * (values[a] - values[b]));
  const front = [];
  let best = Infinity;
  for (const i of order) if (sign * values[i] < best) { front.push(i); best = sign * values[i]; }
  return front;
}

function drawFront(run, key) {
  const chart = document.getElementById(`${key}-front`);
  if (chart === null) return;
  const choose = document.getElementById(`${key}-metric`), picked = document.getElementById(`${key}-picked`);
  const table = document.getElementById(`${key}-table`), all = run.candidates, most = mostOf(all.architecture);
  const text = value => run.percent ? `${(100 * value).toFixed(2)}%` : run.fixed ? value.toFixed(3) : String(Number(value.toPrecision(5)));
  for (const metric of run.metrics) choose.append(element("option", metric, { value: metric }));
  if (run.metrics.includes("macs")) choose.value = "macs";

  function pick(i) {
    const limits = run.metrics.map(metric => `${metric}<=${all.costs[metric][i]}`).join(",");
    const heading = element("h3", `Candidate ${i + 1}: ${run.shown} ${all.value[i] === null ? "not known" : text(all.value[i])}`);
    const costs = element("p", run.metrics.map(metric => `${metric} ${all.costs[metric][i].toLocaleString("en")}`).join(", "));
    const drawn = element("div", null, { class: "architecture" });
    drawArchitecture(drawn, all.architecture[i], most);
    const command = element("pre", `supernest export ${run.path} --budget '${limits}'`, { class: "command" });
    picked.replaceChildren(heading, costs, drawn, command);
  }

  function draw() {
    const metric = choose.value, costs = all.costs[metric], front = frontOf(costs, all.value, run.lowerIsBetter);
    const known = costs.map((_, i) => i).filter(i => all.value[i] !== null);
    const data = [
      { type: known.length > 3000 && webgl() ? "scattergl" : "scatter", mode: "markers", name: "candidates",
        x: known.map(i => costs[i]), y: known.map(i => all.value[i]), customdata: known,
        marker: { size: 6, opacity: 0.45, color: css("--accent") }, hovertemplate: "%{x:,}, %{y}<extra></extra>" },
      { type: "scatter", mode: "lines+markers", name: "Pareto front", line: { shape: "hv", color: css("--bad") },
        x: front.map(i => costs[i]), y: front.map(i => all.value[i]), customdata: front,
        hovertemplate: "%{x:,}, %{y}<extra></extra>" },
    ];
    const layout = themed({ xaxis: { title: { text: metric } },
      yaxis: { title: { text: `validation ${run.shown}` }, tickformat: run.percent ? ".1%" : "" } });
    Plotly.react(chart, data, layout, reduced);
    const head = element("tr", null);
    for (const name of ["", run.shown, ...run.metrics]) head.append(element("th", name, { scope: "col" }));
    table.replaceChildren(head, ...front.map(i => {
      const row = element("tr", null), cell = element("td", null), button = element("button", `candidate ${i + 1}`, { type: "button" });
      button.addEventListener("click", () => pick(i));
      cell.append(button);
      row.append(cell, element("td", text(all.value[i])));
      for (const name of run.metrics) row.append(element("td", all.costs[name][i].toLocaleString("en")));
      return row;
    }));
  }

  choose.addEventListener("change", draw);
  draw();
  chart.on("plotly_click", event => pick(event.points[0].customdata));
  redraw.push(draw);
}

function webgl() {
  return document.createElement("canvas").getContext("webgl") !== null;
}

const redraw = [];
payload.runs.forEach((run, i) => {
  drawFront(run, `run${i}`);
  for (const [name, chart] of Object.entries(run.charts)) {
    const place = document.getElementById(`run${i}-${name}`);
    if (place === null || chart === null) continue;
    const draw = () => Plotly.react(place, chart.data, themed(chart.layout), reduced);
    draw();
    redraw.push(draw);
  }
});
for (const place of document.querySelectorAll("[data-architecture]")) {
  const run = payload.runs[Number(place.dataset.run)], architecture = JSON.parse(place.dataset.architecture);
  drawArchitecture(place, architecture, mostOf([architecture, ...run.candidates.architecture]));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw.forEach(draw => draw()));
