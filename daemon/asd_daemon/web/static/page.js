// What every page has: times in the browser's own zone, and how long ago.
"use strict";

const asd = {
  time(at) {
    const day = new Date();
    const sameDay = at.toDateString() === day.toDateString();
    const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    const date = { day: "numeric", month: "short", ...(at.getFullYear() === day.getFullYear() ? {} : { year: "numeric" }) };
    return at.toLocaleString(undefined, sameDay ? clock : { ...date, ...clock });
  },

  span(seconds) {
    const minutes = Math.round(seconds / 60);
    if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
    if (minutes < 60) return `${minutes} min`;
    if (minutes < 48 * 60) return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
    return `${Math.round(minutes / 1440)} days`;
  },

  localTimes(root) {
    for (const element of root.querySelectorAll("time[datetime]")) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      element.textContent = "ago" in element.dataset ? asd.span((Date.now() - at) / 1000) : asd.time(at);
      element.title = at.toLocaleString();
    }
  },

  // A stream that is refused stays closed: the session has ended, or the page was restarted. As soon as there is an answer, one may log in
  reopen(events) {
    events.addEventListener("error", () => {
      if (events.readyState !== EventSource.CLOSED) return;
      setInterval(async () => {
        try {
          if ((await fetch(location.href, { headers: { Accept: "text/html" } })).ok) location.reload();
        } catch { /* not there yet */ }
      }, 3000);
    });
  },

  count(n, what) { return `${n} ${what}${n === 1 ? "" : "s"}`; },

  colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--asd-${name}`).trim();
  },
};

asd.localTimes(document);
setInterval(() => {
  for (const element of document.querySelectorAll("time[data-ago]")) {
    element.textContent = asd.span((Date.now() - new Date(element.dateTime)) / 1000);
  }
}, 1000);

// A form that was sent says so until the next page is there, and is not sent twice
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented) return;
  if ("sent" in form.dataset) return event.preventDefault();
  form.dataset.sent = "yes";
  if (event.submitter) event.submitter.setAttribute("aria-busy", "true");
});
window.addEventListener("pageshow", () => { // also when one comes back to it
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    for (const button of form.querySelectorAll("[aria-busy]")) button.removeAttribute("aria-busy");
  }
});

// The words for a state, and how it looks; a state of a later version is shown by its own name
asd.states = {
  starting: ["Starting", "wait"], normal: ["Normal", "good"], alert: ["Alert", "bad"], learning: ["Learning", "wait"],
  unusable: ["Can't judge", "doubt"], unknown_state: ["Unknown state", "doubt"], mic_lost: ["No sound", "doubt"],
  wrong_device: ["Wrong microphone", "doubt"], overloaded: ["Box too slow", "doubt"], stopped: ["Stopped", "off"], off: ["Off", "off"], not_running: ["Not running", "off"],
};
asd.stateWords = (state) => asd.states[state] || [state.replaceAll("_", " "), "doubt"];
