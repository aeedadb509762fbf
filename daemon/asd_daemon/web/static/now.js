// The machines as they are at this moment, by server-sent events; what is not known for some seconds is not shown as known.
"use strict";

(() => {
  const silentAfter = 4000, hours = 3;
  const cards = new Map();
  let heardAt = 0, player = null;

  class Card {
    constructor(element) {
      this.element = element;
      this.name = element.dataset.machine;
      this.parts = Object.fromEntries([...element.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
      if (this.parts.spectrogram) this.scroller = new asd.Scroller(this.parts.spectrogram, 64);
      this.soundAt = 0;
      this.latest = Number(element.dataset.latest);
      this.parts.listen.addEventListener("click", () => this.listen());
    }

    // What is simulated faster than real time is ahead of the clock
    now() {
      return Math.max(Date.now() / 1000, this.latest);
    }

    show(machine) {
      const state = machine ? machine.state : "not_running";
      const [text, look] = asd.stateWords(state);
      const { badge, since, hearing, ratio, calibration, open, troubles } = this.parts;
      if (this.element.dataset.state !== state) this.element.dataset.state = state;
      this.element.dataset.look = look;
      set(badge, text);
      badge.className = `badge ${look}`;
      if (machine) {
        set(since, `${machine.operating_state ? `${machine.operating_state}, ` : ""}for ${asd.span(Math.max(0, this.now() - new Date(machine.since) / 1000))}`);
        since.title = new Date(machine.since).toLocaleString();
      } else {
        set(since, "nobody listens to it");
      }
      const listening = Boolean(machine && machine.listening);
      hearing.dataset.on = listening ? "yes" : "no";
      set(hearing, listening ? "Listening" : "Not listening");
      this.parts.listen.disabled = !listening;
      set(this.parts.text, machine ? machine.text || machine.reason || "" : "");
      const known = machine && machine.score !== null && machine.threshold;
      set(ratio, known ? `${Math.round((100 * machine.score) / machine.threshold)} % of the limit` : "no score yet");
      set(calibration, machine && machine.calibration ? limitWords(machine.calibration) : "");
      if (machine && machine.event_id) {
        open.href = `/alerts/${machine.event_id}`;
        set(open, machine.acknowledged ? "Look at the alert (acknowledged)" : "Look at the alert");
      } else {
        open.href = `/alerts?machine=${encodeURIComponent(this.name)}`;
        set(open, "Alerts");
      }
      const lines = machine ? [...machine.troubles, ...(machine.muted_until ? [`muted until ${asd.time(new Date(machine.muted_until))}`] : [])] : [];
      if (troubles.textContent !== lines.join("")) {
        troubles.replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
      }
      if (!listening) this.silent();
    }

    sound(piece) {
      this.soundAt = Date.now();
      const { meter, level } = this.parts, value = Math.max(-90, Math.min(0, piece.rms_db));
      const advice = piece.peak_db > -1 ? "too loud" : piece.rms_db < -75 ? "very soft" : "good level";
      meter.setAttribute("aria-valuenow", value.toFixed(0));
      meter.setAttribute("aria-valuetext", `${value.toFixed(0)} dB, ${advice}`);
      meter.dataset.look = piece.peak_db > -1 ? "bad" : piece.rms_db < -75 ? "doubt" : "good";
      meter.firstElementChild.style.transform = `scaleX(${1 + value / 90})`;
      set(level, `${value.toFixed(0)} dB, ${advice}`);
      this.scroller.add(Uint8Array.from(atob(piece.columns), (c) => c.charCodeAt(0)));
      if (piece.far_columns === undefined) return;
      if (!this.farScroller) {
        this.parts.far.hidden = false;
        this.farScroller = new asd.Scroller(this.parts.far.querySelector("canvas"), 64);
      }
      this.farScroller.add(Uint8Array.from(atob(piece.far_columns), (c) => c.charCodeAt(0)));
    }

    silent() {
      const { meter, level } = this.parts;
      if (!meter) return;
      meter.firstElementChild.style.transform = "scaleX(0)";
      meter.setAttribute("aria-valuetext", "no sound");
      meter.setAttribute("aria-valuenow", "-90");
      set(level, "no sound");
    }

    async draw() {
      const now = this.now();
      try {
        this.table = asd.series(await asd.scores(this.name, now - hours * 3600, now + 60)).slice(0, 3);
      } catch (error) {
        this.parts.chart.dataset.empty = "the scores can't be read just now";
        return;
      }
      const chart = this.parts.chart;
      if (!this.table[0].length) {
        chart.dataset.empty = "no score in the last three hours";
        return;
      }
      delete chart.dataset.empty;
      this.plot = new uPlot(
        {
          width: chart.clientWidth, height: 110, legend: { show: false }, cursor: { show: false }, padding: [6, 8, 0, 0],
          scales: { x: { range: () => this.range() }, y: { range: span } },
          axes: [{ ...asd.axis(true), values: asd.clock, size: 22 }, { ...asd.axis(true), size: 40, space: 26 }],
          series: [{}, { stroke: () => asd.colour("score"), width: 1.5, points: { size: 3 } },
            { stroke: () => asd.colour("limit"), width: 1.5, dash: [6, 4], points: { show: false } }],
        },
        this.table, chart,
      );
      new ResizeObserver(() => this.plot.setSize({ width: chart.clientWidth, height: 110 })).observe(chart);
    }

    // Three hours, or since the first window where that is less
    range() {
      const now = Math.max(this.now(), this.table[0].at(-1));
      return [Math.max(now - hours * 3600, Math.min(this.table[0][0] - 30, now - 600)), now];
    }

    add(at, score, threshold) {
      const time = new Date(at) / 1000;
      this.latest = Math.max(this.latest, time);
      if (!this.plot) {
        if (this.table) this.draw();
        return;
      }
      if (time <= this.table[0].at(-1)) return;
      [time, score, threshold].forEach((value, i) => this.table[i].push(value));
      this.plot.setData(this.table);
    }

    listen() {
      const button = this.parts.listen, was = button.getAttribute("aria-pressed") === "true";
      if (player) {
        player.audio.pause();
        player.audio.removeAttribute("src");
        player.audio.load();
        player.button.setAttribute("aria-pressed", "false");
        set(player.button, "Hear it");
        player = null;
      }
      if (was) return;
      const audio = new Audio(`/listen?machine=${encodeURIComponent(this.name)}`);
      player = { audio, button };
      button.setAttribute("aria-pressed", "true");
      set(button, "Stop");
      audio.addEventListener("error", () => { if (player && player.audio === audio) this.listen(); });
      audio.play().catch(() => { if (player && player.audio === audio) this.listen(); });
    }
  }

  function set(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function span(_, low, high) {
    const room = (high - low || Math.abs(high) || 1) * 0.08;
    return [low - room, high + room];
  }

  function limitWords(calibration) {
    if (calibration.state === "provisional") return "limit still provisional";
    if (calibration.state === "learning") return "limit is being learned";
    return `limit: ${calibration.state}`;
  }

  for (const element of document.querySelectorAll(".machine")) {
    const card = new Card(element);
    cards.set(card.name, card);
    card.draw();
  }

  const link = document.getElementById("link");
  const live = [...document.querySelectorAll(".machine[data-live]")].map((element) => ["sound", element.dataset.machine]);
  const events = new EventSource(`/events?${new URLSearchParams(live)}`);
  const last = new Map();
  asd.reopen(events);

  function showAll() {
    const fresh = Date.now() - heardAt < silentAfter;
    set(link, fresh ? "Live" : "No word from the box");
    link.dataset.on = fresh ? "yes" : "no";
    for (const card of cards.values()) {
      card.show(fresh ? last.get(card.name) : last.has(card.name) ? { ...last.get(card.name), listening: false } : undefined);
    }
    const worst = document.getElementById("worst"), looks = [...cards.values()].map((card) => card.element.dataset.look);
    const [alerts, doubts] = ["bad", "doubt"].map((look) => looks.filter((one) => one === look).length);
    if (worst) set(worst, `${alerts || "none"} of ${looks.length} in alert${doubts ? `, ${doubts} with trouble` : ""}`);
  }

  events.addEventListener("machines", (event) => {
    heardAt = Date.now();
    const { machines, adds } = JSON.parse(event.data), empty = document.querySelector("[data-adds]");
    if (empty && (empty.dataset.adds === "yes") !== adds) location.reload();
    last.clear();
    for (const [name, machine] of Object.entries(machines)) {
      last.set(name, machine);
      if (!cards.has(name)) location.reload();
    }
    showAll();
  });
  events.addEventListener("sound", (event) => {
    const piece = JSON.parse(event.data), card = cards.get(piece.machine);
    if (card && card.scroller) card.sound(piece);
  });
  events.addEventListener("scores", (event) => {
    for (const [machine, at, score, threshold] of JSON.parse(event.data).scores) {
      const card = cards.get(machine);
      if (card) card.add(at, score, threshold);
    }
  });
  setInterval(showAll, 1000);
})();
