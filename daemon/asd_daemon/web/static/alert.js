// The sound that opened an alert beside the nearest normal one, with the bands that differ marked in both.
"use strict";

(async () => {
  const sounds = document.getElementById("sounds"), id = sounds.dataset.event;
  const columns = 300, rows = 128, seconds = 10, rate = 16000;
  const note = (canvas, text) => { canvas.parentElement.querySelector("[data-note]").textContent = text; };
  const alertCanvas = document.getElementById("alert-canvas"), normalCanvas = document.getElementById("normal-canvas");
  if (sounds.dataset.clip !== "yes") {
    if (alertCanvas.parentElement.querySelector("[data-note]").textContent.includes("complete")) setTimeout(() => location.reload(), 4000);
    return;
  }

  async function decoded(address) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(await answer.text());
    const context = new OfflineAudioContext(1, rate, rate);
    return (await context.decodeAudioData(await answer.arrayBuffer())).getChannelData(0);
  }

  function mark(canvas, seconds) {
    const over = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    over.setAttribute("viewBox", "0 0 100 100");
    over.setAttribute("preserveAspectRatio", "none");
    over.setAttribute("aria-hidden", "true");
    const add = (kind, x, y, width, height) => {
      const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      Object.entries({ class: kind, x, y, width, height }).forEach(([key, value]) => box.setAttribute(key, value));
      over.append(box);
    };
    const low = asd.mel(asd.lowest), high = asd.mel(asd.highest), place = (hz) => 100 - (100 * (asd.mel(Math.max(asd.lowest, hz)) - low)) / (high - low);
    for (const row of document.querySelectorAll("#bands tr")) {
      const top = Math.max(0.3, place(Number(row.dataset.high))), bottom = Math.min(99.7, place(Number(row.dataset.low)));
      add("band", 0.2, top, 99.6, Math.max(1, bottom - top));
    }
    for (const second of seconds) add("second", second * 10, 96, 10, 4);
    canvas.parentElement.append(over);
  }

  function playhead(audio, canvas, begin) {
    const line = document.createElement("div");
    line.className = "playhead";
    canvas.parentElement.append(line);
    const move = () => {
      const part = (audio.currentTime - begin) / seconds;
      line.hidden = part < 0 || part > 1 || (audio.paused && audio.played.length === 0);
      line.style.left = `${100 * Math.min(1, Math.max(0, part))}%`;
      if (!audio.paused) requestAnimationFrame(move);
    };
    line.hidden = true;
    audio.addEventListener("play", move);
    audio.addEventListener("seeked", move);
  }

  let scale = null;
  try {
    const whole = await decoded(`/clips/${id}`);
    const end = Math.min(whole.length / rate, Math.max(seconds, Number(sounds.dataset.window))), begin = end - seconds;
    const audio = document.getElementById("alert-audio");
    audio.addEventListener("loadedmetadata", () => { audio.currentTime = Math.max(0, begin); }, { once: true });
    if (audio.readyState >= 1) audio.currentTime = Math.max(0, begin);
    const levels = asd.levels(whole.subarray(Math.max(0, begin * rate), end * rate), columns, rows);
    const sorted = Float32Array.from(levels).sort();
    scale = [sorted[Math.floor(sorted.length * 0.05)], sorted[Math.floor(sorted.length * 0.998)]];
    asd.paint(alertCanvas, levels, columns, rows, ...scale);
    const strange = document.getElementById("seconds");
    mark(alertCanvas, strange ? strange.dataset.seconds.split(",").map(Number) : []);
    playhead(audio, alertCanvas, begin);
    note(alertCanvas, "");
  } catch (error) {
    note(alertCanvas, `The sound can't be shown: ${error.message}`);
    note(normalCanvas, "");
    return;
  }

  try {
    const found = await (await fetch(`/api/alerts/${id}/normal`)).json();
    if (!found.found) {
      note(normalCanvas, "No normal sound of this machine is kept yet; one an hour is, from now on");
      return;
    }
    const audio = document.getElementById("normal-audio");
    audio.src = `/clips/${id}/normal`;
    audio.volume = Math.min(1, found.gain);
    const samples = (await decoded(`/clips/${id}/normal`)).map((sample) => sample * found.gain);
    asd.paint(normalCanvas, asd.levels(samples, columns, rows), columns, rows, ...scale);
    mark(normalCanvas, []);
    playhead(audio, normalCanvas, 0);
    note(normalCanvas, "");
    const about = document.getElementById("normal-about");
    about.textContent += ` The normal sound is of ${asd.time(new Date(found.at))}, the nearest of ${found.compared}.`;
  } catch (error) {
    note(normalCanvas, `It can't be shown: ${error.message}`);
  }
})();
