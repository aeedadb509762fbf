// Choosing a microphone by listening to it.
"use strict";

(() => {
  const choose = document.getElementById("choose");
  if (!choose) return;
  const list = document.getElementById("microphones"), looking = document.getElementById("looking"), trial = document.getElementById("trial");
  const simulated = document.getElementById("simulated"), which = document.getElementById("simulated-which"), words = which.querySelector("input");
  const shared = document.getElementById("shared");
  const listening = new asd.Listening(trial);

  // One that a machine is heard by already is listened to through that machine
  function listen() {
    const chosen = list.querySelector("input[name=source]:checked");
    which.hidden = !chosen || chosen.value !== "simulate";
    trial.hidden = !chosen;
    const shares = (chosen && chosen.dataset.shares) || "";
    shared.hidden = !shares;
    shared.textContent = shares ? `This sound card hears ${shares} already. It is opened once for all: they begin anew when this machine is added, and drop the window in progress.` : "";
    if (!chosen) return;
    listening.open(chosen.value === "simulate" ? `simulate:${words.value.trim() || "fan"}` : chosen.dataset.machine || chosen.value);
  }

  async function look() {
    try {
      const answer = await fetch("/api/devices"), { devices, trouble } = await answer.json();
      for (const device of devices) list.insertBefore(entry(device), simulated);
      looking.textContent = trouble || (devices.length ? "" : "This box has no microphone; plug one in, and load the page again.");
    } catch {
      looking.textContent = "The microphones can't be listed just now; load the page again.";
    }
    looking.hidden = !looking.textContent;
  }

  function entry(device) {
    const label = document.createElement("label"), radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: "source", value: device.source, required: true });
    if (device.machine) radio.dataset.machine = device.machine;
    if (device.shares.length) radio.dataset.shares = device.shares.join(", ");
    const channel = device.channel === null ? "" : `, channel ${device.channel + 1}`, used = device.machine ? ` (hears ${device.machine})` : "";
    label.append(radio, ` ${device.name}${channel}${device.is_default ? ", the usual one" : ""}${used}`);
    return label;
  }

  list.addEventListener("change", listen);
  words.addEventListener("change", listen);
  window.addEventListener("pagehide", () => listening.close());
  look().then(listen);
})();
