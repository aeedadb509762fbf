// Placing the microphone of a machine, the countdown while it is learned, and whether a knock was heard.
"use strict";

(() => {
  const root = document.getElementById("learn"), machine = root.dataset.machine, windowS = 10;
  const listening = new asd.Listening(root);
  const progress = document.getElementById("progress"), left = document.getElementById("left"), words = document.getElementById("progress-words");
  const knocked = document.getElementById("knocked");

  let leaving = false; // to the page that answers a form: it would be lost if this one were loaded again meanwhile

  document.addEventListener("submit", () => { leaving = true; });
  listening.open(machine, { machines: (said) => follow(said.machines[machine]) });

  function follow(now) {
    const learning = now && now.learning;
    if (!learning || leaving) return;
    const badge = document.querySelector(".heading .badge"), [text, look] = asd.stateWords(now.state);
    badge.textContent = text;
    badge.className = `badge ${look}`;
    if (learning.is_learning !== (root.dataset.learning === "yes")) {
      location.reload();
      return;
    }
    if (!learning.is_learning) return;
    if (words.textContent !== learning.words) words.textContent = learning.words;
    if (learning.wanted) progress.max = learning.wanted;
    progress.value = learning.windows;
    left.textContent = remaining(learning);
  }

  function remaining(learning) {
    if (learning.windows >= learning.wanted) return "All is heard; it is being learned.";
    const each = learning.over_s ? learning.over_s / learning.wanted : windowS;
    return `About ${asd.span((learning.wanted - learning.windows) * each)} left${learning.unusable ? `; ${asd.count(learning.unusable, "window")} could not be used` : ""}.`;
  }

  async function awaitKnock(since) {
    const answer = await fetch(`/api/knock/${encodeURIComponent(machine)}?${new URLSearchParams({ since })}`).then((got) => got.json());
    const percent = (share) => `${Math.round(100 * share)} % of the limit`;
    const usual = answer.usual === null ? "" : ` Usual is ${percent(answer.usual)}.`;
    knocked.dataset.heard = answer.over ? (answer.heard ? "yes" : "no") : "";
    if (answer.heard) {
      knocked.textContent = `Heard: that window is ${percent(answer.share)}, ${Math.round(100 * (answer.share - 1))} % above it.${usual}`;
    } else if (!answer.over) {
      const so = answer.share === null ? "" : ` So far up to ${percent(answer.share)}.`;
      knocked.textContent = `Listening for the knock: ${answer.windows} of ${answer.of} windows judged.${so}`;
      setTimeout(() => awaitKnock(since), 1000);
    } else if (answer.unfit) {
      knocked.textContent = `A window could not be judged (${answer.unfit}): knock softer, for longer.${usual}`;
    } else {
      knocked.textContent = `Not heard: the most was ${answer.share === null ? "nothing" : percent(answer.share)}.${usual} Bring the microphone nearer, or knock for the whole half minute.`;
    }
  }

  if (knocked && knocked.dataset.since !== undefined) awaitKnock(knocked.dataset.since).catch(() => { knocked.textContent = "It can't be said just now; load the page again."; });
  window.addEventListener("pagehide", () => listening.close());
})();
