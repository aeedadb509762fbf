// What one microphone hears at this moment: level, spectrogram, sound, and advice for who places it.
"use strict";

// `parts` lie below `root`, each with data-part
asd.Listening = class {
  constructor(root) {
    this.parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.scroller = new asd.Scroller(this.parts.spectrogram, 64);
    this.audio = null;
    this.name = null;
    this.events = null;
    this.parts.listen.addEventListener("click", () => this.hear());
  }

  // Listen to a machine, or try a source such as device:default; others are told what else the box says
  open(name, heed = {}) {
    this.close();
    this.name = name;
    this.events = new EventSource(`/events?${new URLSearchParams([["sound", name], ["advice", name]])}`);
    asd.reopen(this.events);
    const on = (kind, take) => this.events.addEventListener(kind, (event) => take(JSON.parse(event.data)));
    on("sound", (piece) => { if (piece.machine === name) this.sound(piece); });
    on("advice", (said) => { if (said.machine === name) this.advise(said.findings); });
    on("trial", (said) => { if (said.machine === name && said.trouble) this.advise([{ look: "bad", words: said.trouble }]); });
    for (const [kind, take] of Object.entries(heed)) on(kind, take);
  }

  close() {
    if (this.events) this.events.close();
    if (this.audio) this.hear();
    this.name = this.events = null;
    this.show(-90, "no sound", "good");
    this.parts.advice.replaceChildren();
  }

  sound(piece) {
    const value = Math.max(-90, Math.min(0, piece.rms_db));
    const loud = piece.peak_db > -1, soft = piece.rms_db < -75;
    this.show(value, `${value.toFixed(0)} dB${loud ? ", too loud" : soft ? ", very soft" : ""}`, loud ? "bad" : soft ? "doubt" : "good");
    this.scroller.add(Uint8Array.from(atob(piece.columns), (c) => c.charCodeAt(0)));
  }

  show(value, words, look) {
    const { meter, level } = this.parts;
    meter.setAttribute("aria-valuenow", value.toFixed(0));
    meter.setAttribute("aria-valuetext", words);
    meter.dataset.look = look;
    meter.firstElementChild.style.transform = `scaleX(${1 + value / 90})`;
    level.textContent = words;
  }

  advise(findings) {
    const list = this.parts.advice, told = findings.map((one) => one.words).join("\n");
    if (list.dataset.told === told) return; // or a screen reader says it again and again
    list.dataset.told = told;
    list.replaceChildren(...findings.map((one) => Object.assign(document.createElement("li"), { className: one.look, textContent: one.words })));
  }

  hear() {
    const button = this.parts.listen;
    if (this.audio) {
      this.audio.pause();
      this.audio.removeAttribute("src");
      this.audio.load();
      this.audio = null;
    } else if (this.name) {
      const audio = new Audio(`/listen?machine=${encodeURIComponent(this.name)}`);
      const stop = () => { if (this.audio === audio) this.hear(); };
      this.audio = audio;
      audio.addEventListener("error", stop);
      audio.play().catch(stop);
    }
    button.setAttribute("aria-pressed", String(Boolean(this.audio)));
    button.textContent = this.audio ? "Stop" : "Hear it";
  }
};
