// Days and weeks of scores; a limit that can be dragged, and what would have fired at it.
"use strict";

(() => {
  const root = document.getElementById("history"), machine = root.dataset.machine;
  const chart = document.getElementById("chart"), slider = document.getElementById("limit");
  const steps = Number(slider.max), query = new URLSearchParams(location.search);
  const latest = Number(root.dataset.latest);
  const now = () => Math.max(Date.now() / 1000, latest); // what is simulated faster than real time is ahead of the clock
  let span = 86400, end = now(), table = null, plot = null, alerts = [], rule = null, limit = null, range = [0, 1], asked = 0;

  if (query.get("at")) end = Math.min(end, Number(query.get("at")) + span / 2);

  async function load() {
    const mine = ++asked, from = end - span;
    mark();
    say("Loading …");
    try {
      const [scores, more] = await Promise.all([
        asd.scores(machine, from, end),
        fetch(`/api/alerts?${new URLSearchParams({ machine, from, to: end })}`).then((answer) => answer.json()),
      ]);
      if (mine !== asked) return;
      table = scores;
      alerts = more.alerts;
      rule = more.rule || { open_after: 2, of: 3, close_after: 6, hysteresis: 0.05, cool_down_s: 60, relapse_s: 86400 };
    } catch (error) {
      say(`The scores can't be read: ${error.message}`);
      return;
    }
    draw();
    summarise();
    prepareSlider();
  }

  function say(text) { document.getElementById("summary").textContent = text; }

  function summarise() {
    const windows = table.time.length, unusable = table.reason.reduce((n, code) => n + (code > 0), 0);
    const days = span / 86400, opened = alerts.filter((alert) => alert.opened_s >= end - span).length;
    const when = days < 1 ? `${Math.round(span / 3600)} hours` : days === 1 ? "this day" : `these ${Math.round(days)} days`;
    if (!windows) return say(`No windows in ${when}.`);
    const reasons = table.reasons.length ? ` (${table.reasons.join(", ")})` : "";
    const what = table.bucket ? `${asd.count(windows, "stretch").replace("stretchs", "stretches")} of ${asd.span(table.bucket)}, each by its highest score` : asd.count(windows, "window");
    say(`${what} in ${when}, ${unusable} could not be judged${unusable ? reasons : ""}; ${count(opened, "alert")} opened.`);
  }

  function count(n, what) { return `${n === 0 ? "no" : n} ${what}${n === 1 ? "" : "s"}`; }

  function draw() {
    const data = asd.series(table), height = chart.clientWidth < 600 ? 240 : 320;
    if (plot) plot.destroy();
    plot = new uPlot(
      {
        width: chart.clientWidth, height, padding: [10, 8, 0, 0],
        legend: { show: false },
        cursor: { drag: { x: true, y: false, uni: 8 }, points: { show: false }, y: false },
        scales: { x: { range: (_, low, high) => (zoomed ? [low, high] : [begin(), end]) }, y: { range: high } },
        axes: [{ ...asd.axis(false), values: asd.clock }, { ...asd.axis(false), size: 52 }],
        series: [{}, { stroke: () => asd.colour("score"), width: 1.2, points: { show: data[0].length < 400, size: 3 } },
          { stroke: () => asd.colour("limit"), width: 1.5, dash: [6, 4], points: { show: false } },
          { stroke: () => asd.colour("usual"), width: 2.5, points: { show: false } }],
        hooks: { drawClear: [shade], draw: [drawLimit], setSelect: [zoom] },
      },
      data, chart,
    );
    plot.over.addEventListener("pointerdown", grab, true);
    plot.over.addEventListener("mousedown", (event) => { if (nearLine(event)) event.stopImmediatePropagation(); }, true);
    plot.over.addEventListener("pointermove", (event) => { plot.over.style.cursor = nearLine(event) ? "ns-resize" : "crosshair"; });
    plot.over.addEventListener("dblclick", whole);
  }

  let zoomed = false;

  // A span of which most is before the first window is shown from there on
  function begin() {
    const first = table.time.length ? table.time[0] : end;
    return first - (end - span) > 0.3 * span ? Math.max(end - span, Math.min(first - 60, end - 1800)) : end - span;
  }

  function high(_, low, top) {
    const most = Math.max(top, limit ?? top), least = Math.min(low, limit ?? low), room = (most - least || Math.abs(most) || 1) * 0.06;
    return [least - room, most + room];
  }

  function shade(u) {
    const { left, top, width, height } = u.bbox, place = (time) => Math.max(left, Math.min(left + width, u.valToPos(time, "x", true)));
    u.ctx.save();
    u.ctx.fillStyle = asd.colour("unusable");
    const step = Math.max(10, table.bucket);
    for (let i = 0; i < table.time.length; i++) {
      if (!table.reason[i]) continue;
      const first = i;
      while (i + 1 < table.time.length && table.reason[i + 1] && table.time[i + 1] - table.time[i] < 3 * step) i++;
      const from = place(table.time[first] - (table.bucket ? 0 : step)), to = place(table.time[i] + table.bucket);
      if (to > from) u.ctx.fillRect(from, top, Math.max(1, to - from), height);
    }
    for (const alert of alerts) {
      const from = place(alert.opened_s), to = place(alert.closed_s ?? now());
      u.ctx.fillStyle = asd.colour("alert-shade");
      u.ctx.fillRect(from, top, Math.max(2, to - from), height);
    }
    u.ctx.restore();
  }

  function drawLimit(u) {
    if (limit === null) return;
    const { left, width } = u.bbox, y = u.valToPos(limit, "y", true), ratio = devicePixelRatio;
    u.ctx.save();
    u.ctx.strokeStyle = u.ctx.fillStyle = asd.colour("wish");
    u.ctx.lineWidth = 2 * ratio;
    u.ctx.setLineDash([]);
    u.ctx.beginPath();
    u.ctx.moveTo(left, y);
    u.ctx.lineTo(left + width, y);
    u.ctx.stroke();
    u.ctx.beginPath();
    u.ctx.arc(left + width - 12 * ratio, y, 7 * ratio, 0, 7);
    u.ctx.fill();
    u.ctx.restore();
  }

  function nearLine(event) {
    return limit !== null && Math.abs(plot.valToPos(limit, "y") - (event.clientY - plot.over.getBoundingClientRect().top)) < (event.pointerType === "touch" ? 24 : 9);
  }

  function grab(event) {
    if (!nearLine(event)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    plot.over.setPointerCapture(event.pointerId);
    const move = (moved) => setLimit(plot.posToVal(moved.clientY - plot.over.getBoundingClientRect().top, "y"));
    const drop = () => { plot.over.removeEventListener("pointermove", move); slider.focus(); };
    plot.over.addEventListener("pointermove", move);
    plot.over.addEventListener("pointerup", drop, { once: true });
    plot.over.addEventListener("pointercancel", drop, { once: true });
  }

  function zoom(u) {
    if (u.select.width < 8) return;
    zoomed = true;
    document.getElementById("whole").hidden = false;
  }

  function whole() {
    zoomed = false;
    document.getElementById("whole").hidden = true;
    if (plot) plot.setData(plot.data);
  }

  function prepareSlider() {
    const scores = table.score.filter((score) => !Number.isNaN(score)), held = table.threshold.filter((one) => !Number.isNaN(one));
    slider.disabled = !scores.length || table.bucket > 0;
    if (slider.disabled) {
      limit = null;
      document.getElementById("verdict").textContent = table.bucket > 0 ? "Choose two weeks or less to try another limit." : "There is nothing to try it on.";
      document.getElementById("would").replaceChildren();
      offer(false);
      return;
    }
    const now = held.length ? held.at(-1) : scores.reduce((a, b) => Math.max(a, b));
    range = [scores.reduce((a, b) => Math.min(a, b)), Math.max(scores.reduce((a, b) => Math.max(a, b)), now) * 1.05];
    setLimit(limit === null ? now : limit, limit === null);
  }

  function setLimit(value, isFirst = false) {
    limit = Math.max(0, Math.min(range[1], Math.max(range[0], value)));
    const rounded = Number(limit.toPrecision(4));
    limit = rounded;
    slider.value = Math.round((steps * (limit - range[0])) / (range[1] - range[0] || 1));
    slider.setAttribute("aria-valuetext", String(rounded));
    document.getElementById("limit-value").textContent = rounded;
    plot.redraw(false);
    tryIt(isFirst);
  }

  function tryIt(isFirst) {
    const then = asd.replay(table, rule, limit), was = asd.replay(table, rule, null);
    const heard = table.time.length > 1 ? table.time.at(-1) - table.time[0] : 0;
    const often = heard > 86400 ? `, ${((then.length * 604800) / heard).toPrecision(2)} a week` : "";
    document.getElementById("verdict").textContent =
      `At ${limit}: ${count(then.length, "alert")}${often}. With the limit as it was: ${was.length || "none"}.`;
    const rows = then.slice(-8).reverse().map((alert) => {
      const row = document.createElement("li"), lasted = alert.closed === null ? "still open at the end" : `for ${asd.span(alert.closed - alert.opened)}`;
      row.textContent = `${asd.time(new Date(1000 * alert.opened))}, ${lasted}, up to ${Math.round((100 * alert.peak) / limit)} % of the limit`;
      return row;
    });
    if (then.length > rows.length) rows.push(Object.assign(document.createElement("li"), { textContent: `and ${then.length - rows.length} earlier` }));
    document.getElementById("would").replaceChildren(...rows);
    offer(!isFirst);
    root.dataset.would = then.length;
    root.dataset.was = was.length;
  }

  // To use it is there for who may act, and while its daemon runs
  function offer(isOffered) {
    const form = document.getElementById("use");
    if (!form) return;
    form.hidden = !isOffered;
    document.getElementById("wanted").value = isOffered ? limit : "";
  }

  function mark() {
    for (const button of document.querySelectorAll("[data-span]")) button.setAttribute("aria-pressed", String(Number(button.dataset.span) === span));
  }

  slider.addEventListener("input", () => setLimit(range[0] + ((range[1] - range[0]) * slider.value) / steps));
  for (const button of document.querySelectorAll("[data-span]")) {
    button.addEventListener("click", () => { span = Number(button.dataset.span); whole(); load(); });
  }
  for (const button of document.querySelectorAll("[data-move]")) {
    button.addEventListener("click", () => { end = Math.min(now(), end + Number(button.dataset.move) * span * 0.5); whole(); load(); });
  }
  document.getElementById("whole").addEventListener("click", whole);
  new ResizeObserver(() => plot && plot.setSize({ width: chart.clientWidth, height: chart.clientWidth < 600 ? 240 : 320 })).observe(chart);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot && plot.redraw());
  load();
})();
